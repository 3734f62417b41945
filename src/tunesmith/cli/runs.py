"""``tunesmith runs``: list, show, cancel, pause and resume. Starting is in ``start``, files are in ``artifacts``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from tunesmith.cli.artifacts import artifacts
from tunesmith.cli.finding import find_experiment, find_run
from tunesmith.cli.options import asks_service, json_option
from tunesmith.cli.render import (
    age_text,
    number_text,
    print_facts,
    print_json,
    print_table,
    took_text,
)
from tunesmith.cli.run_facts import done_text, print_run
from tunesmith.cli.start import start
from tunesmith.records import RunState

if TYPE_CHECKING:
    from tunesmith.cli.client import Service

# The service answers a cancel when the run has ended, which may take as long as the grace period.
_CANCEL_PATIENCE_SECONDS = 600.0


@click.group()
def runs() -> None:
    """Start, list, show, cancel, pause and resume runs.

    A RUN is named by its id, by the beginning of one, or `@latest` for the newest.
    """


runs.add_command(artifacts)
runs.add_command(start)


@runs.command("list")
@click.option("--state", type=click.Choice([str(state) for state in RunState]), help="Only runs in this state.")
@click.option("--recipe", help="Only runs of this recipe.")
@click.option("--experiment", help="Only runs of this experiment, by id or name.")
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True, help="At most this many.")
@json_option
@asks_service
def list_runs(
    *, service: Service, state: str | None, recipe: str | None, experiment: str | None, limit: int, as_json: bool
) -> None:
    """List runs, newest first."""
    experiment_id = find_experiment(service, experiment)["id"] if experiment else None
    found = service.pages("/v1/runs", "runs", limit=limit, state=state, recipe=recipe, experiment_id=experiment_id)
    if as_json:
        print_json(found)
    elif not found:
        click.echo("no runs match" if state or recipe or experiment else "no runs yet", err=True)
    else:
        print_table(("run", "state", "recipe", "done", "loss", "age", "took"), map(_row, found))


@runs.command()
@click.argument("run")
@json_option
@asks_service
def show(*, service: Service, run: str, as_json: bool) -> None:
    """Show one run: how far it is, what went wrong, where its files are."""
    found = find_run(service, run)
    if as_json:
        print_json(found)
    else:
        print_run(found)


@runs.command()
@click.argument("run")
@json_option
@asks_service
def cancel(*, service: Service, run: str, as_json: bool) -> None:
    """Stop a run and wait until it has ended; it may write its checkpoint first."""
    _ask_for(service, run, "cancel", as_json=as_json)


@runs.command()
@click.argument("run")
@json_option
@asks_service
def pause(*, service: Service, run: str, as_json: bool) -> None:
    """Stop a run with a checkpoint and free its slot; it can be resumed later."""
    _ask_for(service, run, "pause", as_json=as_json)


@runs.command()
@click.argument("run")
@json_option
@asks_service
def resume(*, service: Service, run: str, as_json: bool) -> None:
    """Resume a paused run from its newest checkpoint."""
    _ask_for(service, run, "resume", as_json=as_json)


def _ask_for(service: Service, run: str, change: str, *, as_json: bool) -> None:
    from tunesmith.cli.client import run_path

    run_id = find_run(service, run)["run_id"]
    answer = service.post(run_path(run_id, change), patience_seconds=_CANCEL_PATIENCE_SECONDS)
    if as_json:
        print_json(answer)
    else:
        print_facts({"run": answer["run_id"], "state": answer["status"], "checkpoint": answer["ckpt_path"] or "none"})


def _row(run: dict[str, Any]) -> tuple[str, ...]:
    loss = run["metrics"].get("loss")
    return (
        run["run_id"],
        run["status"],
        run["recipe"],
        done_text(run),
        "" if loss is None else number_text(loss),
        age_text(run["created_at"]),
        took_text(run),
    )
