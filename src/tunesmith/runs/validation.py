"""Runs whose files have to be looked at before they may wait for a slot: ``validating`` becomes ``queued``, or ``failed``.

What is looked for, and what of the config depends on what is found, is for the door that asked for it to say. A server that
ends in the middle of it leaves the run as it is, and the next one begins the look anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import anyio
import anyio.abc
import anyio.to_thread
import msgspec
import structlog

from tunesmith.errors import Conflict, Fault, NotFound, TunesmithError
from tunesmith.files import sync_folder, write_atomically
from tunesmith.journal import Entry
from tunesmith.paths import RunPaths, StatePaths
from tunesmith.recipes import Origin, to_yaml
from tunesmith.records import Clock, Run, RunState
from tunesmith.runs.book import RunBook
from tunesmith.runs.configs import RunConfig, RunConfigs

_log = structlog.get_logger()
_RETRY_SECONDS = 5.0


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What came of the look."""

    fault: Fault | None = None
    """Why the run cannot be started."""
    values: Mapping[str, Any] = {}
    """What is decided of its config by what was found, by dotted path."""
    labels: Mapping[str, str] = {}
    """What its door keeps with it from now on."""
    warnings: tuple[str, ...] = ()
    """What goes otherwise than it was asked for."""


Judge = Callable[[Run, RunConfig], Awaitable[Verdict]]
"""Looks at what a run names; waits as long as that takes."""


class Validator:
    """Has the files of runs looked at, and moves the runs on."""

    def __init__(self, *, book: RunBook, configs: RunConfigs, paths: StatePaths, clock: Clock, judge: Judge) -> None:
        self._book = book
        self._configs = configs
        self._paths = paths
        self._clock = clock
        self._judge = judge
        self._waiting: list[str] = []
        self._wake = asyncio.Event()

    def committed(self, _entry: Entry, run: Run, _previous: object) -> None:
        """Listen to the journal with this."""
        if run.state is RunState.VALIDATING:
            self._waiting.append(run.id)
            self._wake.set()

    async def run(self, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        """Until cancelled: see to the runs that come, and first to those that an earlier server has left."""
        self._waiting = [run.id for run in self._book.unfinished() if run.state is RunState.VALIDATING]
        task_status.started()
        async with anyio.create_task_group() as tasks:
            while True:
                self._wake.clear()
                while self._waiting:
                    tasks.start_soon(self._patiently, self._waiting.pop(0))
                await self._wake.wait()

    async def _patiently(self, run_id: str) -> None:
        while True:
            try:
                await self._validate(run_id)
                return
            except Conflict:
                return  # cancelled meanwhile
            except (TunesmithError, OSError) as error:
                _log.warning("run_not_validated_yet", run_id=run_id, reason=str(error))
            except Exception:  # noqa: BLE001  # whatever it is, it must not reach the other runs
                _log.exception("run_not_validated_yet", run_id=run_id)
            await anyio.sleep(_RETRY_SECONDS)

    async def _validate(self, run_id: str) -> None:
        run = self._book.get(run_id)
        if run.state is not RunState.VALIDATING:
            return
        try:
            config = await self._configs.of(run_id)
            verdict = await self._judge(run, config)
        except NotFound as error:  # its config, or a file that somebody has deleted by hand
            verdict = Verdict(fault=Fault(message=error.message, where=error.where, mend=error.mend))
        if verdict.fault is not None:
            end = {"error": verdict.fault, "finished_at": self._clock()}
            await self._book.move(run_id, RunState.FAILED, only_from=RunState.VALIDATING, **end)
            return
        if verdict.values:
            await anyio.to_thread.run_sync(_rewrite, self._paths.run(run_id), config, verdict.values)
        labels, warnings = {**run.labels, **verdict.labels}, (*run.warnings, *verdict.warnings)
        changes = {"labels": labels, "warnings": warnings}
        await self._book.move(run_id, RunState.QUEUED, only_from=RunState.VALIDATING, **changes)


def _rewrite(paths: RunPaths, config: RunConfig, values: Mapping[str, Any]) -> None:
    """The config with these values in it. No process reads it before the run is queued.

    The config first: a server that ends between the two leaves values that nobody has decided, and the next look finds the
    same ones. The other way round it would take the recipe's own for decided.
    """
    for path, value in values.items():
        *sections, name = path.split(".")
        section = config.config
        for one in sections:
            section = section.setdefault(one, {})
        section[name] = value
    origins = {**config.origins, **dict.fromkeys(values, Origin.SERVICE)}
    kept = {path: origin for path, origin in origins.items() if origin is not Origin.RECIPE}
    write_atomically(paths.config, to_yaml(config.config))
    write_atomically(paths.origins, msgspec.json.encode(kept) + b"\n")
    sync_folder(paths.folder)
