"""``tunesmith keys``: API keys, through the service while one runs, else straight in its journal under the lock."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from tunesmith.cli.options import json_option, state_dir_option, url_option
from tunesmith.cli.render import print_facts, print_json, print_table
from tunesmith.records import Scope

if TYPE_CHECKING:
    from tunesmith.access import KeyRing
    from tunesmith.cli.client import Service

_T = TypeVar("_T")


@click.group()
def keys() -> None:
    """Create, list and revoke API keys.

    They are asked of the service that holds the state folder; when none does, the folder itself is changed.
    """


@keys.command()
@click.argument("name")
@click.option("--scope", type=click.Choice([str(scope) for scope in Scope]), default="write", show_default=True)
@url_option
@state_dir_option
@json_option
def create(*, name: str, scope: str, url: str | None, state_dir: Path | None, as_json: bool) -> None:
    """Make a key. Its token is shown this once: on standard output, and nothing else is."""

    async def on_disk(ring: KeyRing) -> Any:
        return await ring.create(name, Scope(scope))

    made = _ask(url, state_dir, lambda service: service.post("/v1/keys", {"name": name, "scope": scope}), on_disk)
    if as_json:
        print_json(made)
        return
    click.echo(made["token"])
    click.echo(
        f"{made['id']} ({made['name']}, {made['scope']}): keep this token, it cannot be shown again.\n"
        "From the first key on, every call needs one; the commands read it from TUNESMITH_API_KEY.",
        err=True,
    )


@keys.command("list")
@url_option
@state_dir_option
@json_option
def list_keys(*, url: str | None, state_dir: Path | None, as_json: bool) -> None:
    """List all keys, revoked ones too. Tokens are not stored and cannot be listed."""

    async def on_disk(ring: KeyRing) -> Any:
        return [
            {
                "id": key_id,
                "name": key.name,
                "scope": key.scope,
                "created_at": key.created_at,
                "revoked_at": key.revoked_at,
            }
            for key_id, key in ring.all()
        ]

    found = _ask(
        url,
        state_dir,
        lambda service: service.pages("/v1/keys", "keys", limit=sys.maxsize),
        on_disk,
        makes_folder=False,
    )
    if as_json:
        print_json(found)
    elif not found:
        click.echo("no keys: everybody on this machine may call the service", err=True)
    else:
        print_table(("id", "name", "scope", "created", "revoked"), map(_row, found))


@keys.command()
@click.argument("key_id", metavar="ID")
@url_option
@state_dir_option
@json_option
def revoke(*, key_id: str, url: str | None, state_dir: Path | None, as_json: bool) -> None:
    """Revoke a key, at once and for good."""
    from urllib.parse import quote

    async def on_disk(ring: KeyRing) -> Any:
        key = await ring.revoke(key_id)
        return {"id": key.id, "name": key.name, "scope": key.scope, "revoked_at": key.revoked_at}

    path = f"/v1/keys/{quote(key_id, safe='')}"
    revoked = _ask(url, state_dir, lambda service: service.delete(path), on_disk, makes_folder=False)
    if as_json:
        print_json(revoked)
    else:
        print_facts({"id": revoked["id"], "name": revoked["name"], "revoked": _time(revoked["revoked_at"])})


def _ask(
    url: str | None,
    state_dir: Path | None,
    of_service: Callable[[Service], Any],
    on_disk: Callable[[KeyRing], Coroutine[Any, Any, Any]],
    *,
    makes_folder: bool = True,
) -> Any:
    """The answer as plain JSON values, whoever gave it.

    Raises:
        MissingReference: nobody serves the folder, there is no state in it, and none is to be made.
    """
    import msgspec

    from tunesmith.cli.client import Service, address_of
    from tunesmith.paths import StatePaths
    from tunesmith.settings import load
    from tunesmith.state_folder import refuse_without_state

    settings, _ = load(flags={"state_dir": state_dir})
    address = url or address_of(settings.state_dir)
    if address:
        with Service.found_by(lambda: address) as service:
            return of_service(service)
    if not makes_folder:
        refuse_without_state(StatePaths(settings.state_dir))
    return msgspec.to_builtins(_on_disk(settings.state_dir, on_disk))


def _on_disk(state_dir: Path, action: Callable[[KeyRing], Coroutine[Any, Any, _T]]) -> _T:
    from tunesmith.access import KeyRing, KeySummary
    from tunesmith.journal import Journal, Watermarks
    from tunesmith.paths import StatePaths
    from tunesmith.records import Key, utc_now
    from tunesmith.server.state_lock import StateLock
    from tunesmith.state_folder import refuse_incomplete

    paths = StatePaths(state_dir)

    async def run() -> _T:
        journal = Journal.open(paths.keys, Key, KeySummary, clock=utc_now)
        try:
            return await action(KeyRing(journal, utc_now))
        finally:
            Watermarks(paths.watermarks, utc_now).note({paths.keys.name: journal.watermark})
            await journal.close()

    with StateLock.acquire(paths.lock):
        paths.create()
        refuse_incomplete(paths, utc_now)
        return asyncio.run(run())


def _row(key: dict[str, Any]) -> tuple[str, ...]:
    return key["id"], key["name"], key["scope"], _time(key["created_at"]), _time(key["revoked_at"])


def _time(iso: str | None) -> str:
    return iso[:19].replace("T", " ") if iso else ""
