"""Verifying and repairing the state folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from support.commands import Cli
from support.server import ServerProcess


@pytest.fixture
def keys(cli: Cli) -> Path:
    """A journal of three records."""
    for name in ("one", "two", "three"):
        assert cli("keys", "create", name).returncode == 0
    return cli.folder / "state" / "keys.jsonl"


def _flip(path: Path, line: int) -> None:
    lines = path.read_bytes().split(b"\n")
    lines[line - 1] = lines[line - 1].replace(b'"name"', b'"nbme"')
    path.write_bytes(b"\n".join(lines))


def test_damage_is_found_explained_and_mended(cli: Cli, keys: Path, recipes_dir: Path) -> None:
    """`state verify` names file and line and exits with 1; `state repair` keeps the original and makes it open again."""
    sound = cli("state", "verify")
    assert sound.returncode == 0
    assert "ok, 3 records" in sound.stdout
    _flip(keys, 2)
    damaged = cli("state", "verify")
    assert damaged.returncode == 1
    assert "keys.jsonl:2" in damaged.stdout
    assert "state repair" in damaged.stdout
    (verdict,) = json.loads(cli("state", "verify", "--json").stdout)
    assert verdict["damaged"] == 1
    before = keys.read_bytes()
    mended = cli("state", "repair")
    assert mended.returncode == 0, mended.stderr
    (kept,) = keys.parent.glob("keys.jsonl.damaged-*")
    assert str(kept.relative_to(cli.folder)) in mended.stdout
    assert kept.read_bytes() == before
    after = cli("state", "verify")
    assert after.returncode == 0
    assert kept.name in after.stdout
    with ServerProcess.start(keys.parent, recipes_dir) as server:
        server.stop()


def test_a_torn_tail_is_told_but_is_no_damage(cli: Cli, keys: Path) -> None:
    """The half of a last line that a crash leaves is counted; the next start sets it aside by itself."""
    keys.write_bytes(keys.read_bytes() + b'{"seq":4,"at')
    result = cli("state", "verify")
    assert result.returncode == 0
    assert "12 bytes of an unfinished last line" in result.stdout
    repaired = json.loads(cli("state", "repair", "keys.jsonl", "--json").stdout)
    assert repaired[0]["mended"]
    assert repaired[0]["lines"] == 3


def test_repairing_is_refused_where_it_would_do_harm(cli: Cli, keys: Path, recipes_dir: Path) -> None:
    """Not below a running server, not a file that is no journal, not a folder without state."""
    stranger = cli("state", "repair", "passwd")
    assert stranger.returncode == 1
    assert "is not a journal of this state folder" in stranger.stderr
    nowhere = cli("state", "verify", "--state-dir", "nowhere")
    assert nowhere.returncode == 1
    assert not (cli.folder / "nowhere").exists()
    with ServerProcess.start(keys.parent, recipes_dir) as server:
        held = cli("state", "repair")
        assert held.returncode == 1
        assert f"pid {server.pid}" in held.stderr
        assert cli("state", "verify").returncode == 0
        server.stop()
    nothing = cli("state", "repair")
    assert "nothing was wrong" in nothing.stdout


def test_repairing_does_not_pass_over_a_missing_journal(cli: Cli, keys: Path, recipes_dir: Path) -> None:
    """What no repair brings back is named with its mend, and the exit code is 1; the others are mended all the same."""
    with ServerProcess.start(keys.parent, recipes_dir) as server:
        server.stop()
    (keys.parent / "runs.jsonl").unlink()
    _flip(keys, 2)
    repaired = cli("state", "repair")
    assert repaired.returncode == 1
    assert "keys.jsonl: mended" in repaired.stdout
    assert "runs.jsonl: missing or older than it was" in repaired.stdout
    assert "tunesmith state accept runs.jsonl" in repaired.stdout
    again = cli("state", "repair", "--json")
    assert again.returncode == 1
    journals = {Path(journal["path"]).name: journal for journal in json.loads(again.stdout)}
    assert not any(journal["mended"] for journal in journals.values())
    assert [name for name, journal in journals.items() if journal["faults"]] == ["runs.jsonl"]
    assert cli("state", "repair", "keys.jsonl").returncode == 0
    named = cli("state", "repair", "runs.jsonl")
    assert named.returncode == 1
    assert "tunesmith state accept runs.jsonl" in named.stdout
    assert not (keys.parent / "runs.jsonl").exists()
