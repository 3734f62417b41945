"""API keys from the command line, with and without a server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.commands import Cli
from support.server import ServerProcess
from tunesmith.access import KeyRing, KeySummary
from tunesmith.journal import Journal
from tunesmith.paths import StatePaths
from tunesmith.records import Key, utc_now


@pytest.fixture
def own(tmp_path: Path, recipes_dir: Path) -> Iterator[ServerProcess]:
    """A server on the very folder that ``cli`` works in."""
    with ServerProcess.start(tmp_path / "state", recipes_dir) as server:
        yield server


def test_keys_are_made_before_the_first_start(cli: Cli, recipes_dir: Path) -> None:
    """Without a server the folder itself gets the key, and the server started next demands it."""
    made = cli("keys", "create", "ops", "--scope", "admin")
    assert made.returncode == 0, made.stderr
    token = made.stdout.strip()
    assert token.startswith("tsk_")
    assert token not in made.stderr
    assert token.split("_", 2)[2] not in (cli.folder / "state" / "keys.jsonl").read_text()
    with ServerProcess.start(cli.folder / "state", recipes_dir) as server:
        refused = cli("runs", "list")
        assert refused.returncode == 1
        assert "set TUNESMITH_API_KEY to a valid key" in refused.stderr
        wrong = cli("runs", "list", env={"TUNESMITH_API_KEY": token[:-1] + "#"})
        assert wrong.returncode == 1
        assert "unknown, wrong or revoked" in wrong.stderr
        assert token[:-1] not in wrong.stderr
        assert cli("runs", "list", env={"TUNESMITH_API_KEY": token}).returncode == 0
        server.stop()


def test_keys_go_through_a_running_server(own: ServerProcess, cli: Cli) -> None:
    """While a server holds the folder it makes, lists and revokes them, and at once acts on it."""
    admin = json.loads(cli("keys", "create", "admin", "--scope", "admin", "--json").stdout)
    env = {"TUNESMITH_API_KEY": admin["token"]}
    reader = json.loads(cli("keys", "create", "reader", "--scope", "read", "--json", env=env).stdout)
    narrow = cli("keys", "list", env={"TUNESMITH_API_KEY": reader["token"]})
    assert narrow.returncode == 1
    assert "this key may read, not admin" in narrow.stderr
    assert cli("keys", "revoke", reader["id"], env=env).returncode == 0
    twice = cli("keys", "revoke", reader["id"], env=env)
    assert twice.returncode == 1
    assert "revoked already" in twice.stderr
    assert cli("runs", "list", env={"TUNESMITH_API_KEY": reader["token"]}).returncode == 1
    listed = cli("keys", "list", env=env).stdout
    assert admin["id"] in listed
    assert reader["id"] in listed
    assert admin["token"] not in listed
    own.stop()


def test_a_long_list_of_keys_is_whole(cli: Cli, recipes_dir: Path) -> None:
    """Page by page from a server, as many as a folder tells without one."""
    token = cli("keys", "create", "admin", "--scope", "admin").stdout.strip()
    paths = StatePaths(cli.folder / "state")

    async def create() -> None:
        journal = Journal.open(paths.keys, Key, KeySummary, clock=utc_now)
        ring = KeyRing(journal, utc_now)
        await asyncio.gather(*(ring.create(f"key {number}", "read") for number in range(1_000)))
        await journal.close()

    asyncio.run(create())
    alone = json.loads(cli("keys", "list", "--json").stdout)
    assert len(alone) == 1_001
    with ServerProcess.start(cli.folder / "state", recipes_dir) as server:
        asked = cli("keys", "list", "--json", env={"TUNESMITH_API_KEY": token})
        assert {key["id"] for key in json.loads(asked.stdout)} == {key["id"] for key in alone}
        server.stop()


def test_keys_are_listed_and_revoked_without_a_server(cli: Cli) -> None:
    """The same works on the folder: that is how a lost last key is replaced."""
    cli("keys", "create", "ops")
    (key,) = json.loads(cli("keys", "list", "--json").stdout)
    assert key["name"] == "ops"
    assert key["scope"] == "write"
    assert cli("keys", "revoke", key["id"]).returncode == 0
    assert json.loads(cli("keys", "list", "--json").stdout)[0]["revoked_at"]
    unknown = cli("keys", "revoke", "key_nothing")
    assert unknown.returncode == 1
    assert "there is no key" in unknown.stderr
    assert cli("keys", "create", " ").returncode == 1
    assert "at most 200 characters" in cli("keys", "create", "x" * 201).stderr


def test_listing_and_revoking_make_no_state_folder(cli: Cli) -> None:
    """A folder that is misspelt is said to hold no state, and stays as it was; the first key makes one."""
    (cli.folder / "empty").mkdir()
    for words in (("list",), ("revoke", "key_nothing")):
        for folder, said in (("misspelt", "is not a folder"), ("empty", "holds no state")):
            refused = cli("keys", *words, "--state-dir", folder)
            assert refused.returncode == 1
            assert f"{folder}: {said}" in refused.stderr
    assert [path.name for path in cli.folder.rglob("*")] == ["empty"]
    (cli.folder / "empty" / "keys.jsonl").touch()
    assert "no keys" in cli("keys", "list", "--state-dir", "empty").stderr
    assert cli("keys", "create", "first", "--state-dir", "fresh").returncode == 0
    assert "first" in cli("keys", "list", "--state-dir", "fresh").stdout
