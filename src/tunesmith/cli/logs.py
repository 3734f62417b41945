"""``tunesmith logs``: what a run has printed; metrics and other events in words."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from tunesmith.cli.finding import find_run
from tunesmith.cli.options import asks_service, json_option
from tunesmith.cli.render import event_line

if TYPE_CHECKING:
    from tunesmith.cli.client import Service

_PAGE = 1000


@click.command()
@click.argument("run")
@click.option("-f", "--follow", is_flag=True, help="Go on until the run is over; exit with 1 unless it succeeded.")
@click.option(
    "--level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    help="Only lines of this level or a worse one. Not with -f.",
)
@click.option("--grep", metavar="TEXT", help="Only lines with this text, in capitals or not. Not with -f.")
@click.option("--raw", is_flag=True, help="Print every line as the process printed it. Not with -f.")
@json_option
@asks_service
def logs(
    *, service: Service, run: str, follow: bool, level: str | None, grep: str | None, raw: bool, as_json: bool
) -> None:
    """Print a run's log (`@latest` is the newest run); -f follows it.

    With --json, one object per line: log lines with their numbers and byte offsets, or the events when following.
    """
    if follow and (raw or level or grep):
        raise click.UsageError("--raw, --level and --grep are for a log that is not followed; pipe -f into grep")
    run_id = find_run(service, run)["run_id"]
    if follow:
        sys.exit(_follow(service, run_id, as_json=as_json))
    _print(service, run_id, {"level": level, "q": grep}, raw=raw, as_json=as_json)


def _print(service: Service, run_id: str, wanted: dict[str, str | None], *, raw: bool, as_json: bool) -> None:
    import msgspec

    from tunesmith.cli.client import run_path

    offset = -1
    page = {"next_offset": 0}
    # A filtered page may be empty and have others after it: the end is where no page goes further.
    while page["next_offset"] > offset:
        offset = page["next_offset"]
        page = service.get(run_path(run_id, "logs"), offset=offset, limit=_PAGE, **wanted)
        for line in page["lines"]:
            if as_json:
                click.echo(msgspec.json.encode(line))
            else:
                click.echo(line["text"] if raw else _in_words(line["text"]))


def _in_words(text: str) -> str:
    from tunesmith.contract.events import read_line

    event = read_line(text.encode())
    return event_line(*event) if event is not None else event_line("log", {"line": text})


def _follow(service: Service, run_id: str, *, as_json: bool) -> int:
    """Answers the exit code. What is not log goes to standard error."""
    import msgspec

    from tunesmith.cli.events import follow as events_of
    from tunesmith.cli.watch import exit_code, left

    state = None
    try:
        for event in events_of(service, run_id, lambda text: click.echo(text, err=True)):
            if event.kind == "state":
                state = event.fields["state"]
            if as_json:
                click.echo(msgspec.json.encode({"event": event.kind, **event.fields}))
            elif event.kind != "state":
                click.echo(event_line(event.kind, event.fields))
    except KeyboardInterrupt:
        return left(run_id)
    click.echo(f"run {run_id} {state}", err=True)
    return exit_code(state)
