"""``tunesmith projects``: list, show and create projects, and start runs of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from tunesmith.cli.options import asks_service, hyperparams_from, json_option, set_option
from tunesmith.cli.render import number_text, print_facts, print_json, print_table, took_text

if TYPE_CHECKING:
    from tunesmith.cli.client import Service


@click.group()
def projects() -> None:
    """List, show and create projects, and start runs of them."""


@projects.command("list")
@click.option("--status", type=click.Choice(["active", "archived"]), help="Only projects of this status.")
@click.option("--tag", help="Only projects with this tag.")
@click.option("--owner", help="Only projects of this owner.")
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True, help="At most this many.")
@json_option
@asks_service
def list_projects(
    *, service: Service, status: str | None, tag: str | None, owner: str | None, limit: int, as_json: bool
) -> None:
    """List projects, newest first."""
    found: list[dict[str, Any]] = service.listed("/api/projects", limit=limit, status=status, tag=tag, owner=owner)
    if as_json:
        print_json(found)
    elif not found:
        click.echo("no projects match" if status or tag or owner else "no projects yet", err=True)
    else:
        print_table(("id", "name", "state", "dataset", "config", "runs"), map(_row, found))


@projects.command()
@click.argument("project")
@json_option
@asks_service
def show(*, service: Service, project: str, as_json: bool) -> None:
    """Show one project, by its id or name, with its newest runs."""
    _print(service.get(_path(project)), as_json=as_json)


@projects.command()
@click.argument("name")
@click.option(
    "--dataset", required=True, help="An upload, a dataset, or a file below datasets/ of the training folder."
)
@click.option(
    "--config", required=True, help="A dataset's train config, or a file below configs/ of the training folder."
)
@click.option("--description", default="", help="What it is for.")
@click.option("--owner", default="", help="Whose it is.")
@click.option("--tag", "tags", multiple=True, help="A tag; may be given more than once.")
@json_option
@asks_service
def create(
    *,
    service: Service,
    name: str,
    dataset: str,
    config: str,
    description: str,
    owner: str,
    tags: tuple[str, ...],
    as_json: bool,
) -> None:
    """Create a project. Its files are looked for when a run is started."""
    wanted: dict[str, Any] = {"name": name, "dataset_name": dataset, "training_yaml_name": config}
    wanted |= {"description": description, "owner": owner, "tags": tags}
    _print(service.post("/api/projects", wanted), as_json=as_json)


@projects.command()
@click.argument("project")
@click.option("--model", help="Any model reference, in place of the train config's model.base.")
@set_option
@click.option("--notes", default="", help="What is tried with it.")
@click.option("--priority", type=int, default=0, help="Larger starts first.")
@click.option("--seed", type=int, help="For everything random.")
@json_option
@asks_service
def run(
    *,
    service: Service,
    project: str,
    model: str | None,
    settings: tuple[str, ...],
    notes: str,
    priority: int,
    seed: int | None,
    as_json: bool,
) -> None:
    """Start a run of a project, by its id or name."""
    wanted = {
        "model": model,
        "hyperparams": hyperparams_from(settings),
        "notes": notes,
        "priority": priority,
        "seed": seed,
    }
    started = service.post(f"{_path(project)}/runs", wanted)
    if as_json:
        print_json(started)
        return
    print_facts(
        {
            "run": started["id"],
            "state": started["status"],
            "recipe": started["recipe"],
            "warnings": started["warnings"],
            "command": started["start_command"],
        }
    )
    click.echo(f"follow it: tunesmith watch {started['id']}", err=True)


def _path(project: str) -> str:
    """The address of a project.

    Raises:
        NotFound: what is given cannot be a name, and would be taken for another address.
    """
    from urllib.parse import quote

    from tunesmith.errors import NotFound

    if "/" in project or project in ("", ".", ".."):
        raise NotFound(f"there is no project {project!r}", mend="`tunesmith projects list` shows them")
    return f"/api/projects/{quote(project, safe='')}"


def _row(project: dict[str, Any]) -> tuple[str, ...]:
    return (
        project["id"],
        project["name"],
        project["status"],
        project["dataset_name"],
        project["training_yaml_name"],
        str(project["runs_total"]),
    )


def _print(project: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(project)
        return
    print_facts(
        {
            "project": project["id"],
            "name": project["name"],
            "state": project["status"],
            "dataset": project["dataset_name"],
            "config": project["training_yaml_name"],
            "description": project["description"],
            "owner": project["owner"],
            "tags": ", ".join(project["tags"]),
            "runs": [_run_line(run) for run in project["runs"]],
        }
    )


def _run_line(run: dict[str, Any]) -> str:
    loss = run["metrics"].get("loss")
    said = (run["id"], run["status"], f"{run['progress']:.0%}", f"loss {number_text(loss)}" if loss is not None else "")
    return "  ".join(part for part in (*said, took_text(run)) if part)
