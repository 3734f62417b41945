"""``tunesmith watch``: a run as it goes, with a bar on a terminal and a line per metrics event elsewhere."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from tunesmith.cli.finding import find_run
from tunesmith.cli.options import asks_service, json_option

if TYPE_CHECKING:
    from tunesmith.cli.client import Service
    from tunesmith.cli.display import Display

_INTERRUPTED = 130


@click.command()
@click.argument("run")
@click.option("--lines", type=click.IntRange(0, 50), default=0, help="Show so many last log lines below the bar.")
@json_option
@asks_service
def watch(*, service: Service, run: str, lines: int, as_json: bool) -> None:
    """Follow a run with a live progress bar (`@latest` is the newest run); exit with 1 unless it succeeds.

    With --json, the events as they come, one per line, and then the run.
    """
    run_id = find_run(service, run)["run_id"]
    sys.exit(watch_run(service, run_id, lines=lines, as_json=as_json))


def watch_run(service: Service, run_id: str, *, lines: int = 0, as_json: bool = False) -> int:
    """Follow a run to its end and print it; answers the exit code."""
    from tunesmith.cli.display import display
    from tunesmith.cli.run_facts import print_run

    try:
        if as_json:
            ended = _print_events(service, run_id)
        else:
            with display(log_lines=lines) as shown:
                ended = follow_run(service, run_id, shown)
            print_run(ended)
    except KeyboardInterrupt:
        return left(run_id)
    return exit_code(ended["status"])


def follow_run(service: Service, run_id: str, shown: Display) -> dict[str, Any]:
    """Show the run until it is over; answers it as it then is."""
    from tunesmith.cli.client import run_path
    from tunesmith.cli.events import follow

    for event in follow(service, run_id, shown.note):
        shown.take(event.kind, event.fields)
    ended: dict[str, Any] = service.get(run_path(run_id))
    return ended


def exit_code(state: str | None) -> int:
    return 0 if state == "succeeded" else 1


def left(run_id: str) -> int:
    """Say that only the following has ended; answers the exit code for that."""
    click.echo(f"\nthe run goes on; `tunesmith runs cancel {run_id}` stops it", err=True)
    return _INTERRUPTED


def _print_events(service: Service, run_id: str) -> dict[str, Any]:
    import msgspec

    from tunesmith.cli.client import run_path
    from tunesmith.cli.events import follow

    for event in follow(service, run_id, lambda text: click.echo(text, err=True)):
        click.echo(msgspec.json.encode({"event": event.kind, **event.fields}))
    ended: dict[str, Any] = service.get(run_path(run_id))
    click.echo(msgspec.json.encode(ended))
    return ended
