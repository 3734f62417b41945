"""Puts the output of runs where their doors have promised it, once they have succeeded; also after a restart in between.

What is promised is a label of the run. What came of it is a receipt in the run's folder. How files are put there is in
``tunesmith.publish``.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol

import anyio
import anyio.abc
import anyio.to_thread
import structlog

from tunesmith.errors import Conflict, Fault, InvalidInput
from tunesmith.files import NO_ROOM, SHORTAGE
from tunesmith.paths import StatePaths
from tunesmith.publish import is_published, publish_file, publish_folder
from tunesmith.publishing.receipt import Receipt, read_receipt, write_receipt
from tunesmith.records import PUBLISH_FILE, PUBLISH_TO, Clock, Run, RunState

_log = structlog.get_logger()
_COPIES_AT_ONCE = 4
_RETRY_SECONDS = 30.0


class Runs(Protocol):
    """The runs on record."""

    def get(self, run_id: str) -> Run: ...
    def unfinished(self) -> list[Run]: ...
    def with_promised_output(self) -> list[str]: ...


class Publisher:
    """Publishes the output of runs."""

    def __init__(self, runs: Runs, paths: StatePaths, clock: Clock) -> None:
        self._runs = runs
        self._paths = paths
        self._clock = clock
        self._due: dict[str, asyncio.Event] = {}
        """Runs that succeeded and are not published yet, in order; the event is set when they are."""
        self._new: dict[str, None] = {}
        self._promising: list[Path] = []
        self._wake = asyncio.Event()
        self._copies = anyio.CapacityLimiter(_COPIES_AT_ONCE)

    def committed(self, _entry: object, run: Run, _previous: object) -> None:
        """Listen to the run journal with this."""
        if run.state is RunState.SUCCEEDED and PUBLISH_TO in run.labels:
            self._note(run.id)

    def _note(self, run_id: str) -> None:
        if run_id not in self._due:
            self._due[run_id] = asyncio.Event()
            self._new[run_id] = None
            self._wake.set()

    @asynccontextmanager
    async def promising(self, target: Path, where: str) -> AsyncIterator[None]:
        """While a run is created whose output is to be at ``target``: nobody else is promised the same place.

        Args:
            target: a folder, or a file for runs with ``PUBLISH_FILE``; links in it have been followed.
            where: the field of the request that names it.

        Raises:
            Conflict: there is something already, or it is promised to another run that has not ended.
            InvalidInput: nothing can be written there.
        """
        for place, whose in self._promised():
            if place.is_relative_to(target) or target.is_relative_to(place):
                raise Conflict(
                    f"{whose} is to put its output at {place}", where=where, mend="name another folder, or wait for it"
                )
        self._promising.append(target)
        try:
            await anyio.to_thread.run_sync(_refuse_taken, target, where)
            yield
        finally:
            self._promising.remove(target)

    def _promised(self) -> Iterator[tuple[Path, str]]:
        yield from ((place, "a run that is being created") for place in self._promising)
        for run in [*self._runs.unfinished(), *map(self._runs.get, self._due)]:
            if PUBLISH_TO in run.labels:
                yield Path(run.labels[PUBLISH_TO]), f"run {run.id}"

    async def receipts(self, runs: list[Run]) -> dict[str, Receipt]:
        """What came of those that were promised somewhere, by run. One that is not in it is not published yet."""
        promised = [run.id for run in runs if PUBLISH_TO in run.labels and run.id not in self._due]
        found = await anyio.to_thread.run_sync(self._read, promised) if promised else {}
        return {run_id: receipt for run_id, receipt in found.items() if receipt is not None}

    def _read(self, run_ids: list[str]) -> dict[str, Receipt | None]:
        return {run_id: read_receipt(self._paths.run(run_id).published) for run_id in run_ids}

    async def wait(self, run: Run) -> Receipt | None:
        """What came of a run that has succeeded, as soon as it is known; None where nothing was promised."""
        if PUBLISH_TO not in run.labels:
            return None
        receipt = (await self.receipts([run])).get(run.id)
        if receipt is None:
            if run.id not in self._due:  # an earlier server left it, and this one has only begun to look back
                self._note(run.id)
            await self._due[run.id].wait()
            receipt = (await self.receipts([run])).get(run.id)
        return receipt

    async def run(self, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        """Until cancelled: publish what is due, and first what an earlier server left."""
        task_status.started()
        await self._look_back()
        async with anyio.create_task_group() as tasks:
            while True:
                while self._new:
                    run_id = next(iter(self._new))
                    del self._new[run_id]
                    tasks.start_soon(self._publish, run_id)
                self._wake.clear()
                await self._wake.wait()

    async def _look_back(self) -> None:
        promised = self._runs.with_promised_output()
        found = await anyio.to_thread.run_sync(self._read, promised)
        for run_id in promised:
            if found[run_id] is None:
                self._note(run_id)

    async def _publish(self, run_id: str) -> None:
        while True:
            try:
                async with self._copies:
                    await anyio.to_thread.run_sync(self._put, run_id)
                break
            except OSError as shortage:
                _log.warning("output_not_published_yet", run_id=run_id, reason=str(shortage))
            except Exception:  # noqa: BLE001  # whatever it is, it must not reach the other runs
                _log.exception("output_not_published_yet", run_id=run_id)
            await anyio.sleep(_RETRY_SECONDS)
        self._due.pop(run_id).set()

    def _put(self, run_id: str) -> None:
        """Publish it and write the receipt. Raises OSError where it is worth another try."""
        run, paths = self._runs.get(run_id), self._paths.run(run_id)
        target, file = Path(run.labels[PUBLISH_TO]), run.labels.get(PUBLISH_FILE)
        output = paths.output / file if file else Path(run.progress.output_path or paths.output)
        beside = target.with_name(f".{run_id}.partial")  # not made of its name, which may be as long as names may be
        error: Fault | None = None
        try:
            (publish_file if file else publish_folder)(output, target, beside)
        except Exception as failure:  # what will not pass is told of by the receipt
            if isinstance(failure, OSError) and failure.errno in NO_ROOM | SHORTAGE:
                raise
            if not _is_there(output, target):
                error = _fault(failure, output, target)
                _log.error("output_not_published", run_id=run_id, to=str(target), reason=str(failure))
        if not paths.folder.is_dir():
            _log.error("run_folder_missing", run_id=run_id)
            return
        write_receipt(paths.published, Receipt(to=str(target), at=self._clock(), error=error))


def _is_there(output: Path, target: Path) -> bool:
    """Whether a server before this one has put it there, and died before it could say so."""
    try:
        return is_published(output, target)
    except OSError:
        return False


def _fault(failure: Exception, output: Path, target: Path) -> Fault:
    taken = isinstance(failure, OSError) and failure.errno in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR)
    reason = getattr(failure, "strerror", None) or str(failure)
    return Fault(
        message=f"the output could not be put at {target}: " + ("something else is there by now" if taken else reason),
        where=str(target),
        mend=f"copy it from {output}, where it is kept",
    )


def _refuse_taken(target: Path, where: str) -> None:
    """Refuse a place that has something in it, or that cannot be written to. Blocks on the disk.

    Raises:
        Conflict: there is a file, or a folder that is not empty.
        InvalidInput: nothing can be written there.
    """
    try:
        taken = any(target.iterdir()) if target.is_dir() else os.path.lexists(target)
    except OSError as error:
        raise InvalidInput(f"{target} cannot be read: {error.strerror}", where=where, mend="name a folder") from error
    if taken:
        raise Conflict(
            f"there is something at {target} already, and nothing is ever written over",
            where=where,
            mend="name a folder that is empty or not there yet",
        )
    there = next(one for one in target.parents if one.is_dir())
    if not os.access(there, os.W_OK | os.X_OK):
        raise InvalidInput(f"{there} cannot be written to", where=where, mend="name a folder elsewhere")
