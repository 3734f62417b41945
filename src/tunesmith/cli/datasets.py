"""``tunesmith datasets``: list, show, create and delete datasets, and upload files into them."""

from __future__ import annotations

import sys
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO, Self
from urllib.parse import quote

import click

from tunesmith.cli.finding import find_dataset
from tunesmith.cli.options import asks_service, json_option
from tunesmith.cli.preview import preview
from tunesmith.cli.render import age_text, bytes_text, print_facts, print_json, print_table
from tunesmith.errors import InvalidInput, NotFound

if TYPE_CHECKING:
    from tunesmith.cli.client import Service

_PATH = "/api/v1/datasets"


@click.group()
def datasets() -> None:
    """List, show, create and delete datasets, upload files into them, and see what will be trained.

    A DATASET is named by its id or its name.
    """


@datasets.command("list")
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True, help="At most this many.")
@json_option
@asks_service
def list_datasets(*, service: Service, limit: int, as_json: bool) -> None:
    """List datasets, newest first."""
    found = service.pages(_PATH, "datasets", limit=limit)
    if as_json:
        print_json(found)
    elif not found:
        click.echo("no datasets yet", err=True)
    else:
        print_table(("id", "name", "state", "files", "size", "config", "age"), map(_row, found))


@datasets.command()
@click.argument("dataset")
@json_option
@asks_service
def show(*, service: Service, dataset: str, as_json: bool) -> None:
    """Show one dataset with its files."""
    found = find_dataset(service, dataset)
    if as_json:
        print_json(found)
        return
    totals = found["metadata"]
    config = found["train_config"]
    print_facts(
        {
            "id": found["id"],
            "name": found["name"],
            "status": found["status"],
            "type": found["type"],
            "source": found["source"],
            "task": found["task_type"],
            "about": found["description"],
            "size": f"{totals['total_files']} files, {bytes_text(totals['total_bytes'])}",
            "train config": f"{config['filename']} for {config['recipe']}" if config else None,
            "coming in": [
                f"{one['name']}: {bytes_text(one['bytes'])}" for one in found["upload_progress"]["in_flight"]
            ],
        }
    )
    if found["files"]:
        click.echo()
        files = ((one["upload_id"], one["name"], bytes_text(one["bytes"]), one["sha256"]) for one in found["files"])
        print_table(("id", "file", "size", "sha256"), files)


@datasets.command()
@click.argument("name")
@click.option("--description", default="", help="What is in it.")
@click.option("--task", "task_type", default="", help="What it is for, such as sft.")
@click.option("--source", default="", help="Where it comes from.")
@json_option
@asks_service
def create(*, service: Service, name: str, description: str, task_type: str, source: str, as_json: bool) -> None:
    """Create an empty dataset."""
    fields = {"name": name, "description": description, "task_type": task_type, "source": source}
    made = service.post(_PATH, {field: text for field, text in fields.items() if text or field == "name"})
    if as_json:
        print_json(made)
    else:
        click.echo(made["id"])


@datasets.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--dataset", required=True, help="The dataset's id or name.")
@click.option("--name", help="What the file is called there (default: as it is called here).")
@json_option
@asks_service
def upload(*, service: Service, file: Path, dataset: str, name: str | None, as_json: bool) -> None:
    """Upload FILE into a dataset."""
    if not file.is_file():
        raise InvalidInput(f"{str(file)!r} is not a file", where="FILE", mend="name a file that exists")
    found = find_dataset(service, dataset)
    with file.open("rb") as content, _Bar(content, file.name, file.stat().st_size) as shown:
        received = service.upload(f"{_PATH}/{found['id']}/files", name or file.name, shown)
    if as_json:
        print_json(received)
    else:
        print_facts({"id": received["upload_id"], "size": bytes_text(received["bytes"]), "sha256": received["sha256"]})


@datasets.command()
@click.argument("dataset")
@click.option("--upload", "upload_id", help="Delete only the file with this id.")
@json_option
@asks_service
def delete(*, service: Service, dataset: str, upload_id: str | None, as_json: bool) -> None:
    """Delete a dataset with all its files, or one of its files. Refused while an unfinished run uses it."""
    found = find_dataset(service, dataset)
    if upload_id is None:
        gone = service.delete(f"{_PATH}/{found['id']}")
    else:
        if all(one["upload_id"] != upload_id for one in found["files"]):
            raise NotFound(f"dataset {dataset!r} has no file with the id {upload_id!r}")
        gone = service.delete(f"/api/v1/uploads/{quote(upload_id, safe='')}")
    if as_json:
        print_json(gone)
    else:
        click.echo(f"deleted {upload_id or found['id']}")


datasets.add_command(preview)


class _Bar:
    """A file that shows how far it has been read, on standard error and only where that is a terminal."""

    def __init__(self, content: BinaryIO, label: str, size: int) -> None:
        self._content = content
        self._bar = click.progressbar(length=size, label=label, file=sys.stderr, hidden=not sys.stderr.isatty())

    def read(self, size: int = -1) -> bytes:
        chunk = self._content.read(size)
        self._bar.update(len(chunk))
        return chunk

    def fileno(self) -> int:
        """How the client learns the size."""
        return self._content.fileno()

    def __enter__(self) -> Self:
        self._bar.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._bar.__exit__(kind, error, traceback)


def _row(dataset: dict[str, Any]) -> tuple[str, ...]:
    totals, config = dataset["metadata"], dataset["train_config"]
    return (
        dataset["id"],
        dataset["name"],
        dataset["status"],
        str(totals["total_files"]),
        bytes_text(totals["total_bytes"]),
        config["recipe"] if config else "",
        age_text(dataset["created_at"]),
    )
