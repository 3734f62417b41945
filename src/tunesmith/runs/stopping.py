"""Stopping runs: for good, or so that they can be resumed. Answers when the process has ended."""

from __future__ import annotations

import contextlib

import anyio.to_thread

from tunesmith.errors import Conflict
from tunesmith.records import Clock, Run, RunState
from tunesmith.runs.book import RunBook
from tunesmith.runs.checkpoints import Checkpoints
from tunesmith.runs.configs import RunConfigs
from tunesmith.runs.scheduler import Scheduler
from tunesmith.runs.supervise import PAUSE


class RunStopper:
    """Cancels and pauses runs."""

    def __init__(
        self, *, book: RunBook, scheduler: Scheduler, checkpoints: Checkpoints, configs: RunConfigs, clock: Clock
    ) -> None:
        self._book = book
        self._scheduler = scheduler
        self._checkpoints = checkpoints
        self._configs = configs
        self._clock = clock

    async def cancel(self, run_id: str) -> Run:
        """Stop the run and wait until it has ended; repeating it changes nothing.

        Raises:
            NotFound: no such run.
            Conflict: it already ended otherwise.
            OutOfSpace: the wish could not be written down; the run goes on.
        """
        while not (run := self._book.get(run_id)).state.final:
            with contextlib.suppress(Conflict):  # it has just changed its state: then that one is judged
                await self._cancel_from(run)
        if run.state is not RunState.CANCELLED:
            raise Conflict(f"run {run_id} has already ended: it {run.state}", where="run_id")
        return run

    async def _cancel_from(self, run: Run) -> None:
        if run.state in (RunState.VALIDATING, RunState.QUEUED, RunState.PAUSED):
            end = {"stop_reason": "cancel", "finished_at": self._clock()}
            await self._book.move(run.id, RunState.CANCELLED, only_from=run.state, **end)
        elif run.state is RunState.STOPPING:
            await self._book.wait(run.id, lambda run: run.state is not RunState.STOPPING)
        else:
            await self._scheduler.cancel(run.id, "cancel")

    async def pause(self, run_id: str) -> Run:
        """Stop the run with a checkpoint so that ``requeue`` can resume it; answers when its process has ended.

        Raises:
            NotFound: no such run.
            Conflict: it is not running, has nothing to resume from, or ended before it heard of the pause.
            OutOfSpace: its first checkpoint could not be put on record; the run goes on.
        """
        run = self._book.get(run_id)
        if run.state is RunState.PAUSED:
            return run
        if run.state not in (RunState.STARTING, RunState.RUNNING):
            raise Conflict(f"run {run_id} is {run.state}: only a running one can be paused", where="run_id")
        await self._refuse_pause_without_checkpoint(run)
        await self._scheduler.cancel(run_id, PAUSE)
        run = await self._book.wait(run_id, lambda run: run.state.final or run.state is RunState.PAUSED)
        if run.state is not RunState.PAUSED:
            raise Conflict(f"run {run_id} ended before it could be paused: it {run.state}", where="run_id")
        return run

    async def _refuse_pause_without_checkpoint(self, run: Run) -> None:
        if run.resume_from is not None or await anyio.to_thread.run_sync(self._saves_when_stopped, run):
            return
        # One that was told a moment ago may still be on its way onto the record.
        await self._checkpoints.reconcile(run.id, run.experiment_id)
        if self._checkpoints.newest_of(run.id) is None:
            raise Conflict(
                f"run {run.id} has written no checkpoint, and recipe {run.recipe} writes none when it is asked to stop: "
                "it would begin again from its start",
                where="run_id",
                mend="wait for its first checkpoint, or cancel it; for a function of your own see docs/finetune.md",
            )

    def _saves_when_stopped(self, run: Run) -> bool:
        recipe = self._configs.recipe_of(run)
        return recipe is None or recipe.saves_when_stopped  # without it nobody knows better
