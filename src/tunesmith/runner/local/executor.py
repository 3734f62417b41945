"""The local executor: attempts are processes on this machine, each below a shim that outlives the server.

State is in the attempt's folder only, so a new server finds everything an old one started. This module does not read
logs and does not decide what a run's end means.
"""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import TypeVar

import anyio
import anyio.to_thread
import msgspec
import structlog

from tunesmith.contract import environment
from tunesmith.failpoints import FAILPOINTS
from tunesmith.files import raise_shortage, read_regular, write_atomically
from tunesmith.paths import AttemptPaths
from tunesmith.records import Exit, ProcessIdentity
from tunesmith.runner.executor import Launch, Started
from tunesmith.runner.local import identity
from tunesmith.runner.local.descriptors import AS_INHERITED, ChildDescriptors
from tunesmith.runner.local.environment import inherited

_SHIM = Path(__file__).with_name("shim.py")
_POLL_SECONDS = 0.01
_SCAN_SECONDS = 0.1
_REMNANT_DEADLINE_SECONDS = 5.0
_LARGEST_RECORD = 64 * 1024
# Every process of a run has the first in its environment, wherever it has gone, and the shim has not. The shim has the
# second, in case that the run deletes the record of its process.
_RUN_MARK, _SHIM_MARK = environment.RUN_ID, environment.SHIM_OF

_log = structlog.get_logger()
_T = TypeVar("_T")


class _Process(msgspec.Struct, frozen=True):
    """process.json as the shim writes it; ``abandoned`` when a server took the attempt instead."""

    shim: ProcessIdentity | None = None
    program: ProcessIdentity | None = None
    at: datetime | None = None
    abandoned: bool = False


_decode_process, _decode_exit = msgspec.json.Decoder(_Process).decode, msgspec.json.Decoder(Exit).decode


class LocalExecutor:
    """Runs attempts on this machine. Linux only: it relies on pidfds, process groups and /proc."""

    def __init__(
        self,
        *,
        start_deadline_seconds: float,
        stop_grace_seconds: float = 30.0,
        variables: Sequence[str] = (),
        descriptors: ChildDescriptors = AS_INHERITED,
    ) -> None:
        """
        Args:
            start_deadline_seconds: how long a run may take to start.
            stop_grace_seconds: what a process gets that outlived its attempt, between being asked and being killed.
            variables: those of the server that runs are given beside the ordinary ones; see ``environment``.
            descriptors: how many files a run may open.
        """
        self._descriptors = descriptors
        self._start_deadline = start_deadline_seconds
        self._grace = stop_grace_seconds
        self._variables = tuple(variables)
        self._children: dict[Path, subprocess.Popen[bytes]] = {}

    async def start(self, attempt: AttemptPaths, launch: Launch) -> None:
        run_id = launch.env[_RUN_MARK]
        if not await _clear(run_id, self._grace):
            raise OSError(errno.EBUSY, "processes of an earlier attempt do not end, not even when they are killed")
        await anyio.to_thread.run_sync(self._start, attempt, launch, run_id)

    def _start(self, attempt: AttemptPaths, launch: Launch, run_id: str) -> None:
        attempt.folder.mkdir(parents=True, exist_ok=True)
        write_atomically(attempt.command, msgspec.json.encode(launch) + b"\n")
        FAILPOINTS.hit("attempt.before_spawn")
        self._children[attempt.folder] = subprocess.Popen(
            self._descriptors.limited([sys.executable, "-I", "-S", str(_SHIM), str(attempt.folder.resolve())]),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            cwd="/",
            env=inherited(self._variables) | {_SHIM_MARK: run_id},
        )
        FAILPOINTS.hit("attempt.after_spawn")

    async def started(self, attempt: AttemptPaths, run_id: str) -> Started | None:
        with anyio.move_on_after(self._start_deadline):
            while True:
                process = _read(attempt.process, _decode_process)
                if process is not None and process.abandoned:
                    return None
                if process is not None and process.program is not None:
                    return Started(program=process.program, at=process.at)
                if _read(attempt.exit, _decode_exit) is not None:
                    return Started(program=None, at=process.at if process is not None else None)
                if process is not None and process.shim is not None and not identity.is_alive(process.shim):
                    return Started(program=None)  # the shim died on the way: wait() finds that the end is unknown
                if process is None and not attempt.folder.is_dir():
                    return await self._without_folder(run_id)
                await anyio.sleep(_POLL_SECONDS)
        return None if await self.abandon(attempt, run_id) else await self._without_folder(run_id)

    async def _without_folder(self, run_id: str) -> Started:
        """What began, and has deleted what was on record of it: known by its marks, or gone already."""
        while True:
            programs = await anyio.to_thread.run_sync(identity.marked, _RUN_MARK, run_id)
            if programs or not await anyio.to_thread.run_sync(identity.marked, _SHIM_MARK, run_id):
                return Started(program=programs[0] if programs else None)
            await anyio.sleep(_SCAN_SECONDS)

    async def abandon(self, attempt: AttemptPaths, run_id: str) -> bool:
        return await anyio.to_thread.run_sync(self._abandon, attempt, run_id)

    def _abandon(self, attempt: AttemptPaths, run_id: str) -> bool:
        if not attempt.folder.parent.parent.exists() or identity.marked(_RUN_MARK, run_id):
            return False  # the folder was there before any attempt: whoever deleted it has begun
        attempt.folder.mkdir(parents=True, exist_ok=True)
        beside = attempt.folder / f".abandon.{os.getpid()}"
        try:
            beside.write_bytes(msgspec.json.encode({"abandoned": True}) + b"\n")
            attempt.process.hardlink_to(beside)
        except FileExistsError:
            process = _read(attempt.process, _decode_process)
            return process is not None and process.abandoned
        finally:
            beside.unlink(missing_ok=True)
        if _leaves(run_id):
            return True
        attempt.process.unlink(missing_ok=True)
        return False

    async def wait(self, attempt: AttemptPaths, run_id: str) -> Exit | None:
        process = _read(attempt.process, _decode_process) or _Process()
        if process.shim is not None:
            await _gone(process.shim)
        for shim in await anyio.to_thread.run_sync(identity.marked, _SHIM_MARK, run_id):
            await _gone(shim)
        child = self._children.pop(attempt.folder, None)
        if child is not None:
            await anyio.to_thread.run_sync(child.wait)
        exit_ = _read(attempt.exit, _decode_exit)
        if exit_ is None:
            # The shim is gone without a word. The program may go on; how it ends, nobody will know.
            if process.program is not None:
                await _gone(process.program)
            while not await _clear(run_id, self._grace):
                _log.warning("processes_do_not_end", run_id=run_id)
        return exit_

    async def stop(self, attempt: AttemptPaths, run_id: str, *, grace_seconds: float) -> None:
        until = time.monotonic() + grace_seconds
        process = _read(attempt.process, _decode_process) or _Process()
        if process.program is not None and identity.signal_group(process.program, signal.SIGTERM):
            with anyio.move_on_after(grace_seconds):
                await _gone(process.program)
            identity.signal_group(process.program, signal.SIGKILL)
        if process.shim is not None:
            with anyio.move_on_after(_REMNANT_DEADLINE_SECONDS):
                await _gone(process.shim)  # it clears what the program left behind
        await _clear(run_id, max(0.0, until - time.monotonic()))


async def _clear(run_id: str, grace_seconds: float) -> bool:
    """End everything that carries the run's mark: each is asked once, and killed after the grace period.

    Answers whether all of it is gone: a process that waits for a disk or a driver cannot be killed until that answers.
    """
    asked: set[ProcessIdentity] = set()
    until = time.monotonic() + grace_seconds
    while left := set(await anyio.to_thread.run_sync(identity.marked, _RUN_MARK, run_id)):
        now = time.monotonic()
        if now > until + _REMNANT_DEADLINE_SECONDS:
            return False
        for process in left if now >= until else left - asked:
            identity.signal_one(process, signal.SIGKILL if now >= until else signal.SIGTERM)
        asked |= left
        await anyio.sleep(_POLL_SECONDS if now >= until else _SCAN_SECONDS)
    return True


def _leaves(run_id: str) -> bool:
    """Whether the shim of an attempt that was taken from it goes without having started anything. Blocks until it is clear.

    One that finds the attempt taken goes at once. One that stays had taken it before, and its record was deleted.
    """
    until = time.monotonic() + _REMNANT_DEADLINE_SECONDS
    while identity.marked(_SHIM_MARK, run_id) and time.monotonic() < until:
        if identity.marked(_RUN_MARK, run_id):
            return False
        time.sleep(_POLL_SECONDS)
    return not identity.marked(_RUN_MARK, run_id)


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


def _read(path: Path, decode: Callable[[bytes], _T]) -> _T | None:
    """A small file that is replaced as a whole: read it or find it missing. Anything unreadable counts as missing.

    Raises OSError when descriptors or memory are short.
    """
    try:
        return decode(read_regular(path, _LARGEST_RECORD))
    except OSError as error:
        raise_shortage(error)
        return None
    except msgspec.DecodeError:
        return None
