"""SIGKILL at every failpoint of a real process: what it acknowledged is there exactly once, the rest absent or whole."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
from journal_parts import Note, line, opened

from tunesmith.journal import repair, verify

# Prints a note's number only after append returned. Three rounds of four concurrent appends.
_WRITES = """
import asyncio, sys
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from journal_parts import Note, opened

async def write(journal, number):
    await journal.append("written", Note(id=f"n{number}", count=number, text="x" * 50))
    print(number, flush=True)

async def main():
    journal = opened(Path(sys.argv[1]))
    for start in range(0, 12, 4):
        await asyncio.gather(*(write(journal, start + n) for n in range(4)))
    await journal.close()

asyncio.run(main())
"""

_REPAIRS = """
import sys
from pathlib import Path
from tunesmith.journal import repair
repair(Path(sys.argv[1]))
"""


def _run(script: str, path: Path, failpoint: int) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", script, str(path), str(Path(__file__).parent)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "TUNESMITH_FAILPOINT": str(failpoint)},
    )


def test_killed_at_every_failpoint_an_acknowledged_record_is_there_exactly_once(tmp_path):
    """N = 1, 2, ... until none fires: before, inside and after every write and fsync."""
    for failpoint in range(1, 100):
        folder = tmp_path / str(failpoint)
        folder.mkdir()
        path = folder / "notes.jsonl"
        child = _run(_WRITES, path, failpoint)
        _expect_acknowledged(path, {int(number) for number in child.stdout.split()})
        if child.returncode == 0:
            break
        assert child.returncode == -signal.SIGKILL, child.stderr
    assert failpoint > 15


def _expect_acknowledged(path: Path, acknowledged: set[int]) -> None:
    journal = opened(path)
    found = set()
    for record_id in journal.summaries:
        note = journal.get(record_id)
        assert note is not None
        assert note == Note(id=f"n{note.count}", count=note.count, text="x" * 50)
        assert len(journal.history(record_id)) == 1
        found.add(note.count)
    assert acknowledged <= found
    entry = asyncio.run(_append_and_close(journal))
    assert entry.seq == len(found) + 1
    assert verify(path).sound
    assert not verify(path).torn_bytes


async def _append_and_close(journal):
    entry = await journal.append("written", Note(id="next"))
    await journal.close()
    return entry


def test_killed_while_setting_a_torn_tail_aside_the_tail_is_not_lost(tmp_path):
    """The tail is in the journal or aside at every moment, and the start after that is clean."""
    for failpoint in range(1, 100):
        folder = tmp_path / str(failpoint)
        folder.mkdir()
        path = folder / "notes.jsonl"
        path.write_bytes(line(1) + line(2)[:40])
        child = _run(
            "import sys; sys.path.insert(0, sys.argv[2]); from journal_parts import *;"
            " from pathlib import Path; asyncio.run(opened(Path(sys.argv[1])).close())",
            path,
            failpoint,
        )
        kept = [aside.read_bytes() for aside in folder.glob("*.torn-*")]
        assert path.read_bytes() == line(1) + line(2)[:40] or kept == [line(2)[:40]]
        journal = opened(path)
        assert [entry.seq for entry in journal.history("n")] == [1]
        asyncio.run(journal.close())
        if child.returncode == 0:
            break
    assert failpoint > 4


def test_killed_while_repairing_the_original_is_not_lost(tmp_path):
    """At every moment the journal's name leads to the damaged or to the mended file, and the damaged bytes exist."""
    damaged = line(1) + b"bad\n" + line(3)
    for failpoint in range(1, 100):
        folder = tmp_path / str(failpoint)
        folder.mkdir()
        path = folder / "notes.jsonl"
        path.write_bytes(damaged)
        child = _run(_REPAIRS, path, failpoint)
        assert damaged in [file.read_bytes() for file in folder.iterdir()]
        repair(path)
        assert verify(path).sound
        assert [msgspec.json.decode(text)["seq"] for text in path.read_bytes().splitlines()] == [1, 2, 3]
        if child.returncode == 0:
            break
    assert failpoint > 3
