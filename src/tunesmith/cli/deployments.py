"""``tunesmith deployments``: serve models, see how they are, read what their engines say, and end them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from tunesmith.cli.options import asks_service, json_option
from tunesmith.cli.render import print_facts, print_json, print_table
from tunesmith.terminal import printable

if TYPE_CHECKING:
    from tunesmith.cli.client import Service

_ADDRESS = "/api/v1/deployments"
_REMOVE_SECONDS = 600.0
_LOG_PAGE = 1000


@click.group()
def deployments() -> None:
    """List, create, show and delete deployments, and read their logs."""


@deployments.command("list")
@click.option("--model", help="Only of this model reference, as it was given.")
@click.option("--tag", help="Only deployments with this tag.")
@click.option(
    "--status",
    type=click.Choice(["starting", "running", "unhealthy", "stopped", "failed"]),
    help="Only deployments in this state.",
)
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True, help="At most this many.")
@json_option
@asks_service
def list_deployments(
    *, service: Service, model: str | None, tag: str | None, status: str | None, limit: int, as_json: bool
) -> None:
    """List deployments, newest first."""
    found: list[dict[str, Any]] = service.listed(_ADDRESS, limit=limit, model=model, tag=tag, status=status)
    if as_json:
        print_json(found)
    elif not found:
        click.echo("no deployments match" if model or tag or status else "no deployments yet", err=True)
    else:
        print_table(("id", "name", "model", "state", "engine", "port"), map(_row, found))


@deployments.command()
@click.argument("model")
@click.option("--name", help="A name for it, which is a model reference as well.")
@click.option(
    "--engine",
    type=click.Choice(["auto", "vllm", "transformers"]),
    default="auto",
    show_default=True,
    help="What serves it.",
)
@click.option("--gpu", help="A GPU by its index, UUID or name.")
@click.option("--extra-args", default="", metavar="WORDS", help="Options for the engine, such as '--max-num-seqs 8'.")
@click.option("--health-path", default="/health", show_default=True, help="Where the engine tells of its health.")
@click.option("--model-version", default="", help="A version, for people.")
@click.option("--tag", "tags", multiple=True, help="A tag; may be given more than once.")
@json_option
@asks_service
def create(
    *,
    service: Service,
    model: str,
    name: str | None,
    engine: str,
    gpu: str | None,
    extra_args: str,
    health_path: str,
    model_version: str,
    tags: tuple[str, ...],
    as_json: bool,
) -> None:
    """Serve a model, named by any model reference."""
    wanted: dict[str, Any] = {"model_path": model, "name": name, "engine": engine, "preferred_gpu": gpu}
    wanted |= {"extra_args": extra_args, "health_path": health_path, "model_version": model_version, "tags": tags}
    made = service.post(_ADDRESS, wanted)
    _print(made, as_json=as_json)
    click.echo(f"see how it is: tunesmith deployments show {made['deployment_id']}", err=True)


@deployments.command()
@click.argument("deployment")
@json_option
@asks_service
def show(*, service: Service, deployment: str, as_json: bool) -> None:
    """Show one deployment, by its id or name, after a health check."""
    _print(service.get(_path(deployment)), as_json=as_json)


@deployments.command()
@click.argument("deployment")
@click.option("--grep", metavar="TEXT", help="Only lines with this text, in capitals or not.")
@json_option
@asks_service
def logs(*, service: Service, deployment: str, grep: str | None, as_json: bool) -> None:
    """Print what its engines have printed. With --json, one object for each line."""
    import msgspec

    offset, page = -1, {"next_offset": 0}
    while page["next_offset"] > offset:
        offset = page["next_offset"]
        page = service.get(_path(deployment, "logs"), offset=offset, limit=_LOG_PAGE, q=grep)
        for line in page["lines"]:
            click.echo(msgspec.json.encode(line) if as_json else printable(line["text"]))


@deployments.command()
@click.argument("deployment")
@click.option("--force", is_flag=True, help="Kill its engine without asking it to end.")
@json_option
@asks_service
def delete(*, service: Service, deployment: str, force: bool, as_json: bool) -> None:
    """End a deployment, and wait until nothing of it is left."""
    removed = service.delete(_path(deployment), patience_seconds=_REMOVE_SECONDS, force=force or None)
    if as_json:
        print_json(removed)
    else:
        click.echo(f"{removed['detail']}: {removed['deployment_id']}")


def _path(deployment: str, *rest: str) -> str:
    """The address of a deployment.

    Raises:
        NotFound: what is given cannot be a name, and would be taken for another address.
    """
    from urllib.parse import quote

    from tunesmith.errors import NotFound

    if "/" in deployment or deployment in ("", ".", ".."):
        raise NotFound(f"there is no deployment {deployment!r}", mend="`tunesmith deployments list` shows them")
    return "/".join([_ADDRESS, quote(deployment, safe=""), *rest])


def _row(one: dict[str, Any]) -> tuple[str, ...]:
    return (
        one["deployment_id"],
        one["name"] or "",
        one["model_path"],
        one["status"],
        one["engine"],
        str(one["port"]),
    )


def _print(one: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(one)
        return
    print_facts(
        {
            "deployment": one["deployment_id"],
            "name": one["name"],
            "state": one["status"],
            "reason": one["reason"],
            "model": one["model_path"],
            "parity": one["parity"],
            "version": one["model_version"],
            "tags": ", ".join(one["tags"]),
            "engine": one["engine"],
            "gpu": one["gpu_id"],
            "address": f"http://127.0.0.1:{one['port']}",
            "pid": one["pid"],
            "restarts": one["restarts"],
            "command": one["vllm_cmd"],
            "log": one["log_file"],
        }
    )
