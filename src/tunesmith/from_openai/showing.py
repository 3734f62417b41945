"""What an import prints: how far a file has come, and at the end a table of what became of every job."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from tunesmith.cli.render import bytes_text, print_json, print_table
from tunesmith.terminal import printable

if TYPE_CHECKING:
    from tunesmith.from_openai.importing import Outcome


@contextmanager
def bar(label: str, size: int) -> Iterator[Callable[[int], None]]:
    """A bar on standard error; where that is no terminal, a line."""
    label = printable(label)
    if not sys.stderr.isatty():
        click.echo(f"{label}, {bytes_text(size)}", err=True)
        yield lambda _: None
        return
    with click.progressbar(length=size, label=label, file=sys.stderr) as shown:
        yield shown.update


@contextmanager
def counter(label: str, total: int) -> Iterator[Callable[[int], None]]:
    """Questions that were answered, on standard error; where that is no terminal, only the line."""
    label = printable(label)
    if not sys.stderr.isatty():
        click.echo(f"{label}: {total} questions", err=True)
        yield lambda _: None
        return
    with click.progressbar(length=total, label=label, file=sys.stderr, show_pos=True) as shown:
        yield shown.update


def show(outcomes: Sequence[Outcome], *, as_json: bool) -> None:
    """The table, then what is missing and what to do, then how to start what is ready."""
    if as_json:
        print_json(outcomes)
        return
    if not outcomes:
        click.echo("no job was chosen; --all takes those of every status", err=True)
        return
    print_table(("old job", "old model", "rows", "files", "here", "job", "missing"), map(_row, outcomes))
    for one in outcomes:
        for text in one.missing:
            click.echo(printable(f"{one.job}: {text}"), err=True)
        for text in one.notes:
            click.echo(printable(f"{one.job}: note: {text}"), err=True)
    for old, base in sorted({(one.model, one.trains_on) for one in outcomes if one.trains_on}):
        click.echo(printable(f"{old} is {base} here"), err=True)
    ready = [one.start_command for one in outcomes if one.start_command]
    if ready:
        click.echo("\nready to start:", err=True)
    for command in ready:
        click.echo(printable(f"  {command}"), err=True)


def _row(outcome: Outcome) -> tuple[str, ...]:
    here = outcome.dataset or ""
    return (
        outcome.job,
        outcome.model,
        ", ".join(str(count) for count in outcome.rows.values()),
        ", ".join(outcome.files),
        f"{here} (new)" if here and outcome.is_new else here,
        outcome.started or ("ready" if outcome.start_command else ""),
        str(len(outcome.missing) or ""),
    )
