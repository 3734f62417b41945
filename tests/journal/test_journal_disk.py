"""A full disk refuses new work and harms nothing stored; a failed fsync stops the writer for good."""

from __future__ import annotations

import asyncio
import errno
import subprocess
import sys
from pathlib import Path

import pytest
from journal_parts import NO_ROOM, FailingDisk, Note, NoteSummary, opened, with_journal

from tunesmith.errors import OutOfSpace, Unavailable
from tunesmith.journal import Journal, verify


@pytest.mark.parametrize("reason", NO_ROOM)
def test_a_full_disk_fails_the_batch_and_nothing_else(tmp_path, reason):
    """Every append of the batch is told, the partial bytes are gone, and writing goes on once there is room."""
    path = tmp_path / "notes.jsonl"
    disk = FailingDisk()

    async def fill(journal: Journal[Note, NoteSummary]) -> None:
        heard = []
        journal.on_commit(lambda entry, record, previous: heard.append(entry.seq))
        await journal.append("written", Note(id="n", count=1))
        stored = path.read_bytes()
        disk.write_error = reason
        refused = await asyncio.gather(
            *(journal.append("written", Note(id="n", count=count)) for count in range(2, 5)), return_exceptions=True
        )
        assert [type(error) for error in refused] == [OutOfSpace] * 3
        assert len({id(error) for error in refused}) == 3
        assert "free space" in str(refused[0])
        assert disk.cuts == 1
        assert path.read_bytes() == stored
        assert journal.get("n") == Note(id="n", count=1)
        assert len(journal.history("n")) == 1
        assert heard == [1]
        assert journal.failed is None
        disk.write_error = None
        assert (await journal.append("written", Note(id="n", count=5))).seq == 2

    with_journal(path, fill, disk=disk)
    assert verify(path).sound
    assert opened(path).get("n") == Note(id="n", count=5)


@pytest.mark.parametrize(
    ("write", "sync", "cut"),
    [(None, errno.EIO, None), (None, errno.ENOSPC, None), (errno.EIO, None, None), (errno.ENOSPC, None, errno.EIO)],
    ids=["fsync", "fsync-full", "write", "cut"],
)
def test_after_an_error_that_leaves_the_disk_unknown_nothing_is_written_any_more(tmp_path, write, sync, cut):
    """The batch, those who wait behind it and all later ones are refused; what was committed can still be read."""
    path = tmp_path / "notes.jsonl"
    disk = FailingDisk()

    async def fail(journal: Journal[Note, NoteSummary]) -> None:
        await journal.append("written", Note(id="n", count=1))
        disk.write_error, disk.sync_error, disk.cut_error = write, sync, cut
        disk.hold()
        batch = [asyncio.ensure_future(journal.append("written", Note(id="n", count=2))) for _ in range(2)]
        if write is None:
            await disk.sync_waits()
        behind = asyncio.ensure_future(journal.append("written", Note(id="m")))
        await asyncio.sleep(0)
        disk.let_go()
        refused = await asyncio.gather(*batch, behind, return_exceptions=True)
        assert [type(error) for error in refused] == [Unavailable] * 3
        assert isinstance(journal.failed, Unavailable)
        assert str(path) in str(journal.failed)
        disk.write_error = disk.sync_error = disk.cut_error = None
        calls = disk.writes, disk.syncs
        with pytest.raises(Unavailable, match="restart"):
            await journal.append("written", Note(id="n", count=3))
        assert (disk.writes, disk.syncs) == calls
        assert journal.get("n") == Note(id="n", count=1)
        assert "m" not in journal

    with_journal(path, fail, disk=disk)


_FILLS_UP = """
import asyncio, resource, sys
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from journal_parts import Note, opened
from tunesmith.errors import OutOfSpace

async def main():
    journal = opened(Path(sys.argv[1]))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    count = 0
    try:
        while count < 1000:
            await journal.append("written", Note(id=f"n{count}", text="x" * 100))
            count += 1
    except OutOfSpace as error:
        print("refused", count, error.where == sys.argv[1])
    print("size", Path(sys.argv[1]).stat().st_size)
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    print("seq", (await journal.append("written", Note(id="after"))).seq)
    await journal.close()

asyncio.run(main())
"""


def test_a_real_file_size_limit_is_survived(tmp_path):
    """The kernel's own EFBIG and SIGXFSZ: refused, cut back to whole lines, and writing goes on when the limit is gone."""
    path = tmp_path / "notes.jsonl"
    child = subprocess.run(
        [sys.executable, "-c", _FILLS_UP, path, str(Path(__file__).parent)],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    words = child.stdout.split()
    count = int(words[1])
    assert words[:3:2] == ["refused", "True"]
    assert 20 < count < 100
    assert 9_000 < int(words[4]) <= 10_000
    assert int(words[6]) == count + 1
    assert verify(path).sound
    assert list(opened(path).summaries) == [f"n{n}" for n in range(count)] + ["after"]
