"""``tunesmith experiments``: list, show and create what groups runs. Starting runs is in ``start``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from tunesmith.cli.finding import find_experiment
from tunesmith.cli.options import asks_service, json_option
from tunesmith.cli.render import age_text, metrics_text, print_facts, print_json, print_table

if TYPE_CHECKING:
    from tunesmith.cli.client import Service

_PATH = "/v1/experiments"


@click.group()
def experiments() -> None:
    """List, show and create experiments, which group runs for comparison.

    An EXPERIMENT is named by its id or its name, or `@latest` for the newest.
    """


@experiments.command("list")
@click.option("--tag", help="Only experiments with this tag.")
@click.option("--owner", help="Only experiments of this owner.")
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True, help="At most this many.")
@json_option
@asks_service
def list_experiments(*, service: Service, tag: str | None, owner: str | None, limit: int, as_json: bool) -> None:
    """List experiments, newest first."""
    found = service.pages(_PATH, "experiments", limit=limit, tag=tag, owner=owner)
    if as_json:
        print_json(found)
    elif not found:
        click.echo("no experiments match" if tag or owner else "no experiments yet", err=True)
    else:
        print_table(("id", "name", "task", "model", "owner", "age"), map(_row, found))


@experiments.command()
@click.argument("experiment")
@json_option
@asks_service
def show(*, service: Service, experiment: str, as_json: bool) -> None:
    """Show one experiment with its newest runs."""
    found = service.get(f"{_PATH}/{find_experiment(service, experiment)['id']}/detail")
    if as_json:
        print_json(found)
        return
    print_facts(
        {
            "experiment": found["id"],
            "name": found["name"],
            "task": found["task_type"],
            "goal": found["goal"],
            "version": found["version"],
            "model": found["base_model"],
            "owner": found["owner"],
            "tags": ", ".join(found["tags"]),
            "runs": [_run_line(run) for run in found["runs"]],
        }
    )


@experiments.command()
@click.argument("name")
@click.option("--task", "task_type", required=True, help="What its runs do: a recipe's name, such as lora or sft.")
@click.option("--model", "base_model", default="", help="The model that its runs start from, unless they name another.")
@click.option("--goal", default="", help="What it is meant to find out.")
@click.option("--owner", default="", help="Whose it is.")
@click.option("--tag", "tags", multiple=True, help="A tag; may be given more than once.")
@json_option
@asks_service
def create(*, service: Service, tags: tuple[str, ...], as_json: bool, **fields: str) -> None:
    """Create an experiment and print its id."""
    made = service.post(_PATH, {**fields, "tags": tags})
    if as_json:
        print_json(made)
    else:
        click.echo(made["id"])


def _row(experiment: dict[str, Any]) -> tuple[str, ...]:
    return (
        experiment["id"],
        experiment["name"],
        experiment["task_type"],
        experiment["base_model"],
        experiment["owner"],
        age_text(experiment["created_at"]),
    )


def _run_line(run: dict[str, Any]) -> str:
    said = (run["run_id"], run["status"], f"{run['progress']:.0%}", metrics_text(run["metrics"]), run["notes"])
    return "  ".join(part for part in said if part)
