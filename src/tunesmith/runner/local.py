"""The local executor: attempts are processes on this machine, each below a shim that outlives the server.

State is in the attempt's folder only, so a new server finds everything an old one started. This module does not read
logs and does not decide what a run's end means.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import TypeVar

import anyio
import anyio.to_thread
import msgspec

from tunesmith.failpoints import FAILPOINTS
from tunesmith.files import write_atomically
from tunesmith.paths import AttemptPaths
from tunesmith.records import Exit, ProcessIdentity
from tunesmith.runner import identity
from tunesmith.runner.executor import Launch, Started

_SHIM = Path(__file__).with_name("shim.py")
_POLL_SECONDS = 0.01
_REMNANT_DEADLINE_SECONDS = 5.0

_T = TypeVar("_T")


class _Process(msgspec.Struct, frozen=True):
    """process.json as the shim writes it; ``abandoned`` when a server took the attempt instead."""

    shim: ProcessIdentity | None = None
    program: ProcessIdentity | None = None
    at: datetime | None = None
    abandoned: bool = False


class LocalExecutor:
    """Runs attempts on this machine. Linux only: it relies on pidfds, process groups and /proc."""

    def __init__(self, *, start_deadline_seconds: float) -> None:
        self._start_deadline = start_deadline_seconds
        self._children: dict[Path, subprocess.Popen[bytes]] = {}

    async def start(self, attempt: AttemptPaths, launch: Launch) -> None:
        await anyio.to_thread.run_sync(self._start, attempt, launch)

    def _start(self, attempt: AttemptPaths, launch: Launch) -> None:
        attempt.folder.mkdir(parents=True, exist_ok=True)
        write_atomically(attempt.command, msgspec.json.encode(launch) + b"\n")
        FAILPOINTS.hit("attempt.before_spawn")
        self._children[attempt.folder] = subprocess.Popen(
            [sys.executable, "-I", "-S", str(_SHIM), str(attempt.folder.resolve())],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            cwd="/",
            # A run needs the operator's environment, but not the service's own keys and settings.
            env={name: value for name, value in os.environ.items() if not name.startswith("TUNESMITH_")},
        )
        FAILPOINTS.hit("attempt.after_spawn")

    async def started(self, attempt: AttemptPaths) -> Started | None:
        with anyio.move_on_after(self._start_deadline):
            while True:
                process = _read(attempt.process, _Process)
                if process is not None and process.abandoned:
                    return None
                if process is not None and process.program is not None:
                    return Started(program=process.program, at=process.at)
                if _read(attempt.exit, Exit) is not None:
                    return Started(program=None, at=process.at if process is not None else None)
                if process is not None and process.shim is not None and not identity.is_alive(process.shim):
                    return Started(program=None)  # the shim died on the way: wait() finds that the end is unknown
                await anyio.sleep(_POLL_SECONDS)
        return None if await self.abandon(attempt) else Started(program=None)

    async def abandon(self, attempt: AttemptPaths) -> bool:
        return await anyio.to_thread.run_sync(self._abandon, attempt)

    def _abandon(self, attempt: AttemptPaths) -> bool:
        attempt.folder.mkdir(parents=True, exist_ok=True)
        beside = attempt.folder / f".abandon.{os.getpid()}"
        try:
            beside.write_bytes(msgspec.json.encode({"abandoned": True}) + b"\n")
            attempt.process.hardlink_to(beside)
        except FileExistsError:
            process = _read(attempt.process, _Process)
            return process is not None and process.abandoned
        finally:
            beside.unlink(missing_ok=True)
        return True

    async def wait(self, attempt: AttemptPaths) -> Exit | None:
        process = _read(attempt.process, _Process) or _Process()
        if process.shim is not None:
            await _gone(process.shim)
        child = self._children.pop(attempt.folder, None)
        if child is not None:
            await anyio.to_thread.run_sync(child.wait)
        exit_ = _read(attempt.exit, Exit)
        if exit_ is None and process.program is not None:
            # The shim is gone without a word. The program may go on; how it ends, nobody will know.
            await _gone(process.program)
        return exit_

    async def stop(self, attempt: AttemptPaths, run_id: str, *, grace_seconds: float) -> None:
        process = _read(attempt.process, _Process) or _Process()
        if process.program is not None and identity.signal_group(process.program, signal.SIGTERM):
            with anyio.move_on_after(grace_seconds):
                await _gone(process.program)
            identity.signal_group(process.program, signal.SIGKILL)
        if process.shim is not None:
            with anyio.move_on_after(_REMNANT_DEADLINE_SECONDS):
                await _gone(process.shim)  # it clears what the program left behind
        await anyio.to_thread.run_sync(_sweep, run_id)


def _sweep(run_id: str) -> None:
    until = time.monotonic() + _REMNANT_DEADLINE_SECONDS
    while identity.kill_marked(run_id) and time.monotonic() < until:
        time.sleep(_POLL_SECONDS)


async def _gone(process: ProcessIdentity) -> None:
    """Wait until exactly this process has ended."""
    with identity.opened(process) as descriptor:
        if descriptor is None:
            return
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        loop.add_reader(descriptor, ended.set)
        try:
            await ended.wait()
        finally:
            loop.remove_reader(descriptor)


def _read(path: Path, type_: type[_T]) -> _T | None:
    """A small file that is replaced as a whole: read it or find it missing. Anything unreadable counts as missing."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=type_)
    except (OSError, msgspec.DecodeError):
        return None
