"""``tunesmith runs artifacts``: the files that a run wrote, listed or fetched into a folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import click

from tunesmith.cli.finding import find_run
from tunesmith.cli.options import asks_service, json_option
from tunesmith.cli.render import bytes_text, print_json, print_table

if TYPE_CHECKING:
    from tunesmith.cli.client import Service

_PAGE = 1000


@click.command()
@click.argument("run")
@click.option("--kind", help="Only files of this kind, such as adapter or report.")
@click.option("--download", type=click.Path(file_okay=False, path_type=Path), help="Fetch them into this folder.")
@json_option
@asks_service
def artifacts(*, service: Service, run: str, kind: str | None, download: Path | None, as_json: bool) -> None:
    """List the files that a run wrote (`@latest` is the newest run), or fetch them."""
    run_id = find_run(service, run)["run_id"]
    found = [one for one in _all(service, run_id) if kind in (None, one["kind"])]
    if download is not None:
        for one in found:
            target = _fetch(service, run_id, one, download)
            click.echo(str(target), err=as_json)
    if as_json:
        print_json(found)
    elif not found:
        click.echo(f"no artifacts of kind {kind}" if kind else "no artifacts yet", err=True)
    elif download is None:
        print_table(("path", "kind", "size", "tags", "id"), map(_row, found))


def _all(service: Service, run_id: str) -> Iterator[dict[str, Any]]:
    from tunesmith.cli.client import run_path

    cursor = None
    while True:
        page = service.get(run_path(run_id, "artifacts"), limit=_PAGE, cursor=cursor)
        yield from page["artifacts"]
        cursor = page["cursor"]
        if cursor is None:
            return


def _fetch(service: Service, run_id: str, artifact: dict[str, Any], folder: Path) -> Path:
    """Into a file of the same path below ``folder``, which appears when it is whole."""
    from tunesmith.cli.client import run_path

    target = folder / _below(artifact["path"])
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.part")
    try:
        with (
            service.stream(run_path(run_id, "artifacts", artifact["artifact_id"], "content"), {}) as response,
            part.open("wb") as file,
        ):
            for chunk in response.iter_bytes():
                file.write(chunk)
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
    return target


def _below(path: str) -> PurePosixPath:
    """The path as one that stays below a folder, whatever a service may say.

    Raises:
        InvalidInput: it would not.
    """
    from tunesmith.errors import InvalidInput

    below = PurePosixPath(path)
    if below.is_absolute() or ".." in below.parts or not below.parts:
        raise InvalidInput(f"the service named a file {path!r}, which lies outside the run", mend="do not trust it")
    return below


def _row(artifact: dict[str, Any]) -> tuple[str, ...]:
    return (
        artifact["path"],
        artifact["kind"],
        bytes_text(artifact["bytes"]),
        ", ".join(artifact["tags"]),
        artifact["artifact_id"],
    )
