"""``tunesmith serve``: read the settings, start the server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from tunesmith.settings import load


@click.command()
@click.option("--host", help="Address to listen on; anything but loopback needs an API key.")
@click.option("--port", type=int, help="Port to listen on; 0 picks a free one.")
@click.option("--state-dir", type=click.Path(path_type=Path), help="Where everything is kept.")
@click.option("--recipes-dir", type=click.Path(path_type=Path), help="Where recipe folders are looked for.")
@click.option("--config", type=click.Path(path_type=Path), help="Settings file (default: tunesmith.yaml if it exists).")
def serve(config: Path | None, **flags: Any) -> None:
    """Start the service. Stopping it, or killing it, leaves running trainings alone."""
    settings, _ = load(config=config, flags=flags)
    # Here, not earlier: a wrong setting should be reported before the heavy imports.
    from tunesmith.server.serve import serve as run_server

    run_server(settings)
