"""Carrying one attempt from its start, or from its adoption, to its recorded end.

Decides what an end means for the run. Does not decide which run goes next; see ``scheduler``.
"""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

import anyio
import anyio.to_thread
import msgspec
import structlog

from tunesmith.errors import Conflict, Fault, InvalidInput, OutOfSpace, TooLarge
from tunesmith.files import NO_ROOM, raise_shortage
from tunesmith.paths import AttemptPaths, StatePaths
from tunesmith.records import Clock, Exit, Progress, Run, RunState
from tunesmith.runner import Executor, Launch, LogReader, log_size
from tunesmith.runs.book import RunBook
from tunesmith.runs.live import LiveRun, LiveRuns

_log = structlog.get_logger()
_LAST_LINES = 5
_TAIL_BYTES = 8192
_LONGEST_MESSAGE = 4000
_DISK_RETRY_SECONDS = 1.0
_FIRST_STOP_RETRY_SECONDS = 0.5
_LONGEST_STOP_RETRY_SECONDS = 30.0
PAUSE = "pause"
"""The reason of a stop after which the run can go on."""


class NewestCheckpoint(Protocol):
    """Looks at the run's folder and answers the path of its newest complete checkpoint."""

    async def __call__(self, run: Run) -> str | None: ...


class Supervisor:
    """Starts, adopts, follows and stops attempts; every change of state goes through the book."""

    def __init__(
        self,
        *,
        book: RunBook,
        live: LiveRuns,
        executor: Executor,
        paths: StatePaths,
        clock: Clock,
        stop_grace_seconds: float,
        max_restarts: int,
        newest_checkpoint: NewestCheckpoint,
        in_own_names: Callable[[str], str] = lambda text: text,
    ) -> None:
        """``in_own_names`` replaces paths to uploaded files in a text by what their owners call them."""
        self._book = book
        self._live = live
        self._executor = executor
        self._paths = paths
        self._clock = clock
        self._grace = stop_grace_seconds
        self._max_restarts = max_restarts
        self._newest_checkpoint = newest_checkpoint
        self._in_own_names = in_own_names

    async def start(self, run_id: str, gpus: tuple[str, ...], launch: Launch) -> None:
        """Journal the intent, start the process and see it through.

        Raises:
            Conflict: it is not queued any more.
            OutOfSpace: the disk is full; if the intent is on record already, ``adopt`` queues the run again.
            OSError: descriptors or memory are short; likewise.
        """
        run = self._book.get(run_id)
        run = await self._book.move(run_id, RunState.STARTING, attempt=run.attempt + 1, gpus=gpus)
        try:
            await self._executor.start(self._attempt(run), launch)
        except OSError as error:
            raise_shortage(error)
            if error.errno in NO_ROOM:
                raise OutOfSpace("no room to start a process", where=error.filename) from error
            fault = Fault(message=f"the process could not be started: {error.strerror or error}", where=error.filename)
            await self._record(run_id, RunState.FAILED, error=fault, finished_at=self._clock())
            return
        await self._see_through(run)

    async def adopt(self, run: Run) -> None:
        """Take over a run that an earlier server started."""
        attempt = self._attempt(run)
        if run.state is RunState.STARTING and await self._executor.abandon(attempt, run.id):
            # The intent was journaled, the process never began: nothing is lost by queueing it again.
            await self._book.move(run.id, RunState.QUEUED, gpus=())
            return
        _log.info("run_adopted", run_id=run.id, state=str(run.state))
        await self._see_through(run)

    async def _see_through(self, run: Run) -> None:
        attempt = self._attempt(run)
        live = self._live.get(run)
        assert live is not None  # a run with an attempt under way is not final
        await live.restore(new_attempt=run.state is RunState.STARTING)
        started = await self._executor.started(attempt, run.id)
        if started is None and run.state is RunState.STARTING:
            fault = Fault(message="the process did not begin in time", mend="see start_deadline_seconds and the load")
            await self._record(run.id, RunState.FAILED, error=fault, finished_at=self._clock())
            return
        if run.state is RunState.STARTING:
            run = await self._record(
                run.id,
                RunState.RUNNING,
                process=started and started.program,
                started_at=run.started_at or (started and started.at) or self._clock(),
                log_bytes=live.offset,
            )
        ended = anyio.Event()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(live.follow)
            if run.state is RunState.STOPPING:
                tasks.start_soon(self._stop_process, run, ended.wait)
            exit_ = await self._executor.wait(attempt, run.id)
            live.finish()
            ended.set()
        await self._end(run.id, exit_, live)

    async def stop(self, run_id: str, reason: str) -> None:
        """Stop an attempt under way; returns when the run has ended.

        Raises:
            Conflict: it is already over, already being stopped, or has just left the queue.
        """
        run = await self._book.wait(run_id, lambda run: run.state is not RunState.STARTING)
        if run.state is RunState.QUEUED:
            end = {"stop_reason": reason, "finished_at": self._clock()}
            await self._book.move(run_id, RunState.CANCELLED, only_from=RunState.QUEUED, **end)
            return
        live = self._live.get(run)
        run = await self._book.move(
            run_id, RunState.STOPPING, stop_reason=reason, log_bytes=live.offset if live else run.log_bytes
        )

        async def ended() -> None:
            await self._book.wait(run_id, lambda run: run.state is not RunState.STOPPING)

        await self._stop_process(run, ended)
        await ended()

    async def _stop_process(self, run: Run, ended: Callable[[], Awaitable[object]]) -> None:
        """See to it that the process ends: whatever keeps this from happening, the wish is on record."""
        _log.info("run_stopping", run_id=run.id, grace_seconds=self._grace)
        pause = _FIRST_STOP_RETRY_SECONDS
        while True:
            try:
                await self._executor.stop(self._attempt(run), run.id, grace_seconds=self._grace)
                return
            except Exception:  # noqa: BLE001  # a run that is not stopped now has to be stopped later
                _log.exception("run_not_stopped_yet", run_id=run.id, next_try_seconds=pause)
            with anyio.move_on_after(pause):
                await ended()
                return
            pause = min(2 * pause, _LONGEST_STOP_RETRY_SECONDS)

    async def _end(self, run_id: str, exit_: Exit | None, live: LiveRun) -> None:
        run = self._book.get(run_id)
        state, fault = _meaning(run, exit_)
        checkpoint = await self._checkpoint_of(run)
        may_restart = run.restarts < self._max_restarts and self._paths.run(run_id).config.is_file()
        if _died_with_the_machine(run, state, exit_) and checkpoint is not None and may_restart:
            await self._queue_again(run, checkpoint, exit_, live)
            return
        if state is RunState.LOST and not self._paths.run(run_id).folder.exists():
            fault = Fault(
                message="the folder of the run is gone, and with it the record of how its process ended",
                where=str(self._paths.run(run_id).folder),
                mend="start it again; a run must leave TUNESMITH_RUN_DIR where it is",
            )
        if state is RunState.PAUSED:
            await self._record(run_id, state, exit=exit_, progress=live.progress, log_bytes=live.offset, gpus=())
            return
        if state is RunState.FAILED:
            said = live.progress.error
            if said is None:
                said = await anyio.to_thread.run_sync(_from_last_lines, self._paths, run, exit_)
            fault = self._with_own_names(said)
        try:
            run = await self._record(
                run_id,
                state,
                exit=exit_,
                error=fault,
                progress=msgspec.structs.replace(live.progress, eta_seconds=None),
                finished_at=(exit_ and exit_.at) or self._clock(),
                log_bytes=live.offset,
            )
        except Conflict:
            # Asked to stop in the very moment it ended: the stop was journaled first, so judge again.
            await self._end(run_id, exit_, live)
            return
        _log.info("run_ended", run_id=run_id, state=str(state), exit=exit_ and msgspec.to_builtins(exit_))

    def _with_own_names(self, fault: Fault) -> Fault:
        return msgspec.structs.replace(
            fault,
            message=self._in_own_names(fault.message),
            where=self._in_own_names(fault.where) if fault.where is not None else None,
        )

    async def _checkpoint_of(self, run: Run) -> str | None:
        """The newest one; without one of its own it still has the one that it started from.

        Whatever lies in the folder of the run: its end has to be recorded.
        """
        try:
            return await self._newest_checkpoint(run) or run.resume_from
        except Exception as error:  # noqa: BLE001  # a run may put anything in the place of its checkpoints
            if isinstance(error, OSError):
                raise_shortage(error)
            _log.exception("checkpoints_not_looked_at", run_id=run.id)
            return run.resume_from

    async def _queue_again(self, run: Run, checkpoint: str, exit_: Exit | None, live: LiveRun) -> None:
        """Another attempt from where the newest checkpoint is."""
        _log.warning("run_queued_again", run_id=run.id, restarts=run.restarts + 1, checkpoint=checkpoint)
        await self._record(
            run.id,
            RunState.QUEUED,
            exit=exit_,
            restarts=run.restarts + 1,
            resume_from=checkpoint,
            process=None,
            gpus=(),
            progress=live.progress,
            log_bytes=live.offset,
        )

    async def _record(self, run_id: str, state: RunState, **changes: Any) -> Run:
        """Record what has already happened: a full disk delays it, it cannot be refused.

        What makes the record too large, or what no journal takes, is left out of it.
        """
        while True:
            try:
                return await self._book.move(run_id, state, **changes)
            except (TooLarge, InvalidInput) as error:
                if changes == _lean(changes):
                    raise
                _log.error("run_recorded_without_progress", run_id=run_id, state=str(state), reason=str(error))
                changes = _lean(changes)
            except OutOfSpace:
                _log.warning("record_waits_for_disk_space", run_id=run_id, state=str(state))
                await anyio.sleep(_DISK_RETRY_SECONDS)

    def _attempt(self, run: Run) -> AttemptPaths:
        return self._paths.run(run.id).attempt(run.attempt)


def _lean(changes: Mapping[str, Any]) -> dict[str, Any]:
    """The changes with as much of what the process printed as fits any record."""
    lean = dict(changes)
    progress, error = changes.get("progress"), changes.get("error")
    if progress is not None:
        lean["progress"] = Progress(
            step=progress.step,
            total_steps=progress.total_steps,
            epoch=progress.epoch,
            log_offset=progress.log_offset,
            warnings=("its metrics and paths did not fit its record: they are in its log only",),
        )
    if error is not None:
        message: str = error.message[:_LONGEST_MESSAGE].encode(errors="replace").decode()
        lean["error"] = Fault(message=message, mend="read its log")
    return lean


def _meaning(run: Run, exit_: Exit | None) -> tuple[RunState, Fault | None]:
    """What the end of the process is for the run."""
    if exit_ is None:
        return RunState.LOST, Fault(
            message="the process is gone and nobody recorded how it ended",
            mend="look at the end of its log; start it again if it did not finish",
        )
    if run.state is RunState.STOPPING and run.stop_reason == PAUSE:
        # A run that was done before it heard of the pause has nothing left to resume with.
        return (RunState.SUCCEEDED if exit_.code == 0 else RunState.PAUSED), None
    if run.state is RunState.STOPPING:
        return RunState.CANCELLED, None
    return (RunState.SUCCEEDED if exit_.code == 0 else RunState.FAILED), None


def _died_with_the_machine(run: Run, state: RunState, exit_: Exit | None) -> bool:
    """Whether it was not the program that failed: its end is unknown, or nobody of us sent that SIGKILL."""
    if run.state is RunState.STOPPING:
        return False
    return state is RunState.LOST or (exit_ is not None and exit_.signal == signal.SIGKILL)


def _from_last_lines(paths: StatePaths, run: Run, exit_: Exit | None) -> Fault:
    """An error for a program that ended badly without reporting one."""
    log = paths.run(run.id).log
    try:
        lines = LogReader(log, max(0, log_size(log) - _TAIL_BYTES)).read(at_end=True)
    except OSError as error:
        raise_shortage(error)
        lines = []
    said = [line.text.rpartition("\r")[2].strip() for line in lines]
    last = "\n".join([text for text in said if text][-_LAST_LINES:])
    how = f"was ended by signal {exit_.signal}" if exit_ and exit_.signal else f"exited with {exit_ and exit_.code}"
    return Fault(
        message=f"the process {how}" + (f"; it last said:\n{last}" if last else ""),
        where=str(log),
        mend=f"read its log: tunesmith logs {run.id}",
    )
