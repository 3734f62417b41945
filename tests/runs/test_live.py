"""The end of a live run: its log is read to where it ends then, whoever goes on writing to it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import pytest

from tunesmith.paths import RunPaths
from tunesmith.records import Progress
from tunesmith.runs.fold import Event
from tunesmith.runs.live import LiveRun

pytestmark = pytest.mark.anyio

# Another program than the run's: it says something without a pause.
_APPENDS = """
import os, sys
log = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND)
while True:
    os.write(log, b"still here\\n")
"""
LINE = b"0" * 99 + b"\n"


@contextmanager
def somebody_appending(log: Path) -> Iterator[None]:
    process = subprocess.Popen([sys.executable, "-c", _APPENDS, str(log)])
    try:
        yield
    finally:
        process.kill()
        process.wait(timeout=60)


def live_run(folder: Path) -> tuple[LiveRun, list[Event]]:
    heard: list[Event] = []

    async def hear(events: tuple[Event, ...], _before: Progress) -> None:
        heard.extend(events)
        del heard[:-10]

    return LiveRun(RunPaths(folder), hear), heard


async def read(live: LiveRun, upto: int) -> None:
    with anyio.fail_after(60):
        while live.offset < upto:  # noqa: ASYNC110  # reading sends no event to who does not follow
            await anyio.sleep(0.005)


async def test_a_run_ends_though_somebody_else_writes_to_its_log_for_ever(tmp_path):
    """A program that is none of the run's cannot keep its end from being recorded."""
    log = RunPaths(tmp_path).log
    log.write_bytes(b"first\n")
    live, _ = live_run(tmp_path)
    await live.restore(new_attempt=True)
    with somebody_appending(log), anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(live.follow)
            await read(live, 100_000)
            live.finish()


@pytest.mark.parametrize("before", [b"", LINE * 10_000])
async def test_at_the_end_everything_that_is_in_the_log_is_read(tmp_path, before):
    """Several reads' worth, with a last line that has no newline; also when the log was cut and written anew."""
    log = RunPaths(tmp_path).log
    live, heard = live_run(tmp_path)
    log.write_bytes(before)
    await live.restore(new_attempt=True)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(live.follow)
        await read(live, len(before))
        log.write_bytes(LINE * 5_000 + b"last")
        live.finish()
    assert live.offset == len(LINE) * 5_000 + 4
    assert heard[-1].fields["line"] == "last"
