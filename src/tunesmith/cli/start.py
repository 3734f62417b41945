"""``tunesmith runs start``: what ``POST /v1/experiments/{id}/runs`` does, from the command line."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import click

from tunesmith.cli.finding import find_dataset, find_experiment
from tunesmith.cli.options import asks_service, hyperparams_from, json_option, set_option
from tunesmith.cli.render import print_facts, print_json
from tunesmith.errors import InvalidInput, MissingReference, NotFound

if TYPE_CHECKING:
    from tunesmith.cli.client import Service

_DEFAULT_EXPERIMENT = "command-line"
_MOST_RECIPES = 10_000


@click.command()
@click.option("--recipe", help="How to train: a recipe's name (default: what the experiment is for).")
@click.option("--model", help="Any model reference (default: the experiment's model, or the train config's).")
@click.option("--data", help="An uploaded dataset by id or name, or a path; ./NAME is always a path.")
@set_option
@click.option("--train-config", help="A YAML file under the service's allowed roots, with overrides for the recipe.")
@click.option("--experiment", help=f"Its id or name (default: one called {_DEFAULT_EXPERIMENT}, made when needed).")
@click.option("--notes", default="", help="What is tried with it.")
@click.option("--priority", type=int, default=0, help="Larger starts first.")
@click.option("--seed", type=int, help="For everything random.")
@click.option("--watch", "watched", is_flag=True, help="Follow it with a progress bar; exit with 1 unless it succeeds.")
@json_option
@asks_service
def start(
    *,
    service: Service,
    recipe: str | None,
    data: str | None,
    settings: tuple[str, ...],
    train_config: str | None,
    experiment: str | None,
    watched: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Start a run: `tunesmith runs start --recipe lora --model NAME --data rows.jsonl --set learning_rate=1e-4`."""
    if watched and as_json:
        raise click.UsageError("--watch shows progress; for JSON use `tunesmith watch RUN --json` afterwards")
    wanted = {
        **given,
        "recipe": recipe,
        "dataset": {"name": _dataset(service, data)} if data else None,
        "hyperparams": hyperparams_from(settings),
        "train_config": _path_here(service, train_config) if train_config else None,
    }
    started = service.post(f"/v1/experiments/{_experiment(service, experiment, recipe)}/runs", wanted)
    if as_json:
        print_json(started)
        return
    _print_started(started)
    if not watched:
        click.echo(f"follow it: tunesmith watch {started['run_id']}", err=True)
        return
    from tunesmith.cli.watch import watch_run

    sys.exit(watch_run(service, started["run_id"]))


def _print_started(run: dict[str, Any]) -> None:
    print_facts(
        {
            "run": run["run_id"],
            "state": run["status"],
            "recipe": run["recipe"],
            "experiment": run["experiment_id"],
            "warnings": run["warnings"],
        }
    )


def _experiment(service: Service, named: str | None, recipe: str | None) -> str:
    """The id of the experiment that the run belongs to."""
    if named is not None:
        return str(find_experiment(service, named)["id"])
    if recipe is None:
        raise click.UsageError("name a --recipe, or an --experiment that says what is trained")
    _refuse_unknown(service, recipe)
    # The same key and body: two commands at once still make one experiment.
    fields = {"name": _DEFAULT_EXPERIMENT, "task_type": recipe, "goal": "runs started from the command line"}
    key = f"tunesmith runs start --recipe {quote(recipe)}"
    made = service.post("/v1/experiments", fields, idempotency_key=key)
    return str(made["id"])


def _refuse_unknown(service: Service, recipe: str) -> None:
    """Before an experiment is made for it. Raises MissingReference."""
    from tunesmith.recipes.suggest import nearest

    names = [found["name"] for found in service.pages("/v1/recipes", "recipes", limit=_MOST_RECIPES)]
    if recipe not in names:
        close = nearest(recipe, names)
        mend = "`tunesmith recipes list` shows them"
        raise MissingReference(
            f"there is no recipe {recipe!r}",
            where="--recipe",
            mend=f"did you mean {close}? {mend}" if close else mend,
        )


def _dataset(service: Service, name: str) -> str:
    """What stands for the data: a path if it is written as one, else a dataset, else a file of this folder.

    Raises:
        InvalidInput: a dataset and a file of this folder have that name.
    """
    if "/" in name or name.startswith((".", "~")):
        return _path_here(service, name)
    try:
        dataset = find_dataset(service, name)
    except NotFound:
        return _path_here(service, name)
    if service.is_local and Path(name).exists():
        raise InvalidInput(
            f"{name!r} is a dataset, and also a {'folder' if Path(name).is_dir() else 'file'} here",
            where="--data",
            mend=f"write ./{name} for what is here, or {dataset['id']} for the dataset",
        )
    return name


def _path_here(service: Service, name: str) -> str:
    """A file of this folder by its whole path, for a service on this machine: it may run in another folder."""
    if not service.is_local:
        return name
    path = Path(name).expanduser() if name.startswith("~/") else Path(name)
    return str(path.resolve()) if path.exists() else name
