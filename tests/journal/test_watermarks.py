"""Noting how far journals have come: whatever hinders it passes, and hinders nothing else."""

from __future__ import annotations

import asyncio
import os
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from journal_parts import Note, opened

from tunesmith.journal import WatermarkKeeper, Watermarks, watermarks
from tunesmith.records import utc_now


@contextmanager
def no_descriptors() -> Iterator[None]:
    """This process can open nothing while the block runs."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(path.name) for path in Path("/proc/self/fd").iterdir())
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, before[1]))
    held = []
    try:
        while True:
            held.append(os.open(os.devnull, os.O_RDONLY))
    except OSError:
        yield
    finally:
        for descriptor in held:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@contextmanager
def broken(file: Path) -> Iterator[None]:
    """Somebody's editor has left half of the file."""
    content = file.read_bytes()
    file.write_bytes(content[:20])
    yield
    file.write_bytes(content)


@pytest.fixture(autouse=True)
def no_pause(monkeypatch):
    monkeypatch.setattr(watermarks, "_PAUSE_SECONDS", 0.01)


@pytest.mark.parametrize("hindrance", [lambda _: no_descriptors(), broken], ids=["no descriptors", "broken"])
def test_what_hinders_it_passes(tmp_path, hindrance: Callable, capsys):
    """It is told once for each reason, the task goes on, and what was committed meanwhile is noted afterwards."""
    noted = Watermarks(tmp_path / "journals.json", utc_now)
    told = 0

    async def work() -> None:
        nonlocal told
        journal = opened(tmp_path / "notes.jsonl")
        keeper = asyncio.ensure_future(WatermarkKeeper(noted, [journal]).run())
        while noted.read() is None:  # noqa: ASYNC110  # a file sends no event
            await asyncio.sleep(0.01)
        with hindrance(noted.file):
            await journal.append("written", Note(id="a"))
            while not told:
                await asyncio.sleep(0.01)
                told += capsys.readouterr().out.count("watermarks_not_noted")
            await asyncio.sleep(0.3)  # many tries
            assert not keeper.done()
        while noted.read()["notes.jsonl"].seq != 1:  # a file sends no event
            assert not keeper.done()
            await asyncio.sleep(0.01)
        keeper.cancel()
        await asyncio.wait([keeper])
        await journal.close()

    asyncio.run(asyncio.wait_for(work(), 60))
    assert told + capsys.readouterr().out.count("watermarks_not_noted") <= 3  # to read, to write beside, to rename
