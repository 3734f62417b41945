"""Which run goes next: a durable queue in order of priority and age, and slots on this machine.

The queue is nothing but the runs whose recorded state is ``queued``, so it survives whatever the server does not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import anyio
import anyio.abc
import structlog

from tunesmith.errors import Conflict, OutOfSpace, TunesmithError, Unavailable
from tunesmith.journal import Entry
from tunesmith.records import Run, RunState
from tunesmith.runner import Capacity, Demand, Launch
from tunesmith.runs.book import RunBook
from tunesmith.runs.queue import Place, RunQueue
from tunesmith.runs.supervise import Supervisor

_log = structlog.get_logger()
_RETRY_SECONDS = 2.0
_LONGEST_RETRY_SECONDS = 60.0


class Scheduler:
    """Adopts what is alive, then starts what is queued as slots become free."""

    def __init__(
        self,
        *,
        book: RunBook,
        supervisor: Supervisor,
        capacity: Capacity,
        demand_of: Callable[[Run], Demand],
        launch_of: Callable[[Run, tuple[str, ...]], Launch],
    ) -> None:
        self._book = book
        self._supervisor = supervisor
        self._capacity = capacity
        self._demand_of = demand_of
        self._launch_of = launch_of
        self._wake = asyncio.Event()
        self._queue = RunQueue()
        self._carried: set[str] = set()
        """Runs that a task of ours sees to. One that is queued again waits until that task has let go of its slot."""
        self._tasks: anyio.abc.TaskGroup | None = None

    def committed(self, _entry: Entry, run: Run, _previous: object) -> None:
        """Listen to the journal with this."""
        if run.state is RunState.QUEUED:
            self._enqueue(run)
            self._wake.set()
        else:
            self._queue.remove(run.id)

    def look_again(self) -> None:
        """Something that was in use may be free: start what fits now."""
        self._wake.set()

    @property
    def queue_length(self) -> int:
        return len(self._queue)

    async def run(self, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        """Until cancelled. Reports started once every living run is adopted and before any new one starts.

        Cancelling leaves the processes alone: the next server adopts them.
        """
        try:
            async with anyio.create_task_group() as tasks:
                self._tasks = tasks
                for run in self._book.unfinished():
                    if run.state is RunState.QUEUED:
                        self._enqueue(run)
                    elif run.state.has_process:
                        self._capacity.adopt(run.id, run.gpus)
                        self._carried.add(run.id)
                        tasks.start_soon(self._carry, run.id, self._supervisor.adopt, run)
                task_status.started()
                while True:
                    self._wake.clear()
                    self._start_what_fits(tasks)
                    await self._wake.wait()
        finally:
            self._tasks = None

    async def cancel(self, run_id: str, reason: str) -> None:
        """Stop a run that has left the queue; the stopping goes on when the caller is gone.

        Raises:
            Conflict: it is already over, or already being stopped.
            OutOfSpace, Unavailable: the wish could not be written down, or nobody is there to see to it.
        """
        if self._tasks is None:
            raise Unavailable("the service is not ready to stop runs", mend="try again once it is up")
        outcome: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._tasks.start_soon(self._stop, run_id, reason, outcome)
        await outcome

    async def _stop(self, run_id: str, reason: str, outcome: asyncio.Future[None]) -> None:
        try:
            await self._supervisor.stop(run_id, reason)
        except TunesmithError as error:
            if not outcome.done():
                outcome.set_exception(error)
        except Exception as error:  # noqa: BLE001  # whatever it is, it is for who asked, and must not reach the other runs
            _log.exception("run_not_stopped", run_id=run_id)
            if not outcome.done():
                outcome.set_exception(error)
        finally:
            if not outcome.done():
                outcome.set_result(None)

    def _enqueue(self, run: Run) -> None:
        try:
            demand = self._demand_of(run)
            # One whose GPUs were taken out since it was created waits, and holds nobody back.
            self._queue.add(run, demand, startable=self._capacity.possible(demand))
        except Exception:  # noqa: BLE001  # whatever is wrong with one run, the others go on
            _log.exception("run_not_queued", run_id=run.id)

    def _start_what_fits(self, tasks: anyio.abc.TaskGroup) -> None:
        kinds, passed_over = {False, True}, list[Place]()
        while (place := self._queue.first(kinds)) is not None:
            run = place.run
            if run.id in self._carried:
                self._queue.set_aside(place)
                passed_over.append(place)
                continue
            try:
                gpus = self._capacity.take(run.id, place.demand)
            except Exception:  # noqa: BLE001  # whatever is wrong with one run, the others go on
                _log.exception("run_not_started", run_id=run.id)
                self._queue.set_aside(place)
                passed_over.append(place)
                continue
            if gpus is None:
                # It holds back the later ones of its kind, so that nothing large waits for ever.
                kinds.remove(place.on_gpu)
            else:
                self._queue.remove(run.id)
                self._carried.add(run.id)
                tasks.start_soon(self._carry, run.id, self._begin, run, gpus)
        self._queue.put_back(passed_over)

    async def _begin(self, run: Run, gpus: tuple[str, ...]) -> None:
        await self._supervisor.start(run.id, gpus, self._launch_of(run, gpus))

    async def _carry(self, run_id: str, work: Callable[..., Awaitable[None]], *arguments: object) -> None:
        """Run ``work`` and give the slot back, whatever happens: one run's trouble is not another's."""
        pause = _RETRY_SECONDS
        try:
            while not await self._succeeds(run_id, work, *arguments):
                await anyio.sleep(pause)
                pause = min(2 * pause, _LONGEST_RETRY_SECONDS)
                work, arguments = self._take_up, (run_id,)
        finally:
            self._capacity.release(run_id)
            self._carried.discard(run_id)
            self._queue_again(run_id)
            self._wake.set()

    async def _take_up(self, run_id: str) -> None:
        run = self._book.get(run_id)
        if run.state.has_process:
            await self._supervisor.adopt(run)

    def _queue_again(self, run_id: str) -> None:
        """Back into the queue with one that is recorded as queued."""
        try:
            run = self._book.get(run_id)
        except Exception:  # noqa: BLE001  # its record cannot be read: the others go on
            _log.exception("run_not_looked_at", run_id=run_id)
            return
        if run.state is RunState.QUEUED:
            self._enqueue(run)

    async def _succeeds(self, run_id: str, work: Callable[..., Awaitable[None]], *arguments: object) -> bool:
        """Whether ``work`` ended in a way that need not be taken up again."""
        try:
            await work(*arguments)
        except Conflict:
            _log.debug("run_left_the_queue", run_id=run_id)  # cancelled in the moment it was to start
        except Unavailable as error:
            _log.error("run_not_carried_on", run_id=run_id, reason=str(error))  # only a new server can write again
        except (OutOfSpace, OSError) as error:
            _log.warning("run_waits_for_disk_or_descriptors", run_id=run_id, reason=str(error))
            return False
        except Exception:  # noqa: BLE001  # whatever it is, it must not reach the other runs
            _log.exception("run_taken_up_again", run_id=run_id)
            return False
        return True
