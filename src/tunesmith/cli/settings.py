"""``tunesmith settings``: every setting, its value, and where it came from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import msgspec

from tunesmith.cli.options import json_option
from tunesmith.cli.render import print_json, print_table
from tunesmith.settings import DESCRIPTIONS, load


@click.command()
@click.option("--config", type=click.Path(path_type=Path), help="Settings file (default: tunesmith.yaml if it exists).")
@json_option
def settings(*, config: Path | None, as_json: bool) -> None:
    """Print every setting with its value and where it came from: default, file or variable."""
    _, sources = load(config=config)
    if as_json:
        print_json([{**msgspec.structs.asdict(source), "description": DESCRIPTIONS[source.name]} for source in sources])
        return
    rows = [(source.name, _text(source.value), source.origin, DESCRIPTIONS[source.name]) for source in sources]
    print_table(("setting", "value", "from", "what it is"), rows)


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return ", ".join(f"{name}={meaning}" for name, meaning in value.items()) or "-"
    if isinstance(value, tuple):
        return ":".join(map(str, value)) or "-"
    return "-" if value in (None, "") else str(value)
