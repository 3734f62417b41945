"""A reporter with what is on record, and nobody who sends: runs that are over, and what it has offered of them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import msgspec
from callback_parts import opened, until

from tunesmith.callbacks import CallbackService
from tunesmith.journal import Journal
from tunesmith.net.guarded import GuardedClient
from tunesmith.paths import StatePaths
from tunesmith.records import Callback, CallbackEvent, Progress, Run, RunKind, RunState, new_id, utc_now
from tunesmith.reporting.finetune_shape import FinetuneShape
from tunesmith.reporting.openai_events import OpenAIEvents
from tunesmith.reporting.reporter import Reporter
from tunesmith.runs import RunBook, RunSummary

STATES = [f"state#{number}" for number in range(4)]
MEASURED = Progress(step=7, total_steps=7, metrics={"loss": 0.5})


class NotedBook(RunBook):
    """Counts what is read of its runs."""

    reads = 0

    def get(self, run_id: str) -> Run:
        self.reads += 1
        return super().get(run_id)

    def history(self, run_id: str):
        self.reads += 1
        return super().history(run_id)


class Service:
    """A reporter with what is on record, and nobody who sends."""

    def __init__(self, paths: StatePaths, runs: Journal[Run, RunSummary]) -> None:
        self.paths = paths
        self.runs = runs
        self.deliveries = opened(paths.deliveries)
        self.book = NotedBook(runs)
        self.client = GuardedClient(allow_private=True)
        self.callbacks = CallbackService(
            journal=self.deliveries, client=self.client, secret_path=paths.webhook_secret, clock=utc_now
        )
        self.openai_events = OpenAIEvents(self.callbacks, "http://127.0.0.1:1/hook")
        self.reporter = Reporter(self.book, self.callbacks, FinetuneShape(paths, self.book), self.openai_events)

    async def add(self, *events: CallbackEvent, progress: Progress = MEASURED, shape: str = "tunesmith") -> Run:
        """A run that is over, with all its changes of state on record."""
        run = Run(
            id=new_id("run"),
            kind=RunKind.TRAIN,
            recipe="sft",
            state=RunState.QUEUED,
            created_at=utc_now(),
            callback=Callback(url="http://127.0.0.1:1/hook", events=events, shape=shape),
        )
        for state in (RunState.QUEUED, RunState.STARTING, RunState.RUNNING):
            await self.runs.append(str(state), msgspec.structs.replace(run, state=state))
        run = msgspec.structs.replace(run, state=RunState.SUCCEEDED, progress=progress)
        await self.runs.append("succeeded", run)
        return run

    def keys(self, run: Run) -> list[str]:
        return [one.key for one in self.callbacks.page(run.id, limit=100).deliveries[::-1]]


@asynccontextmanager
async def service(folder: Path) -> AsyncIterator[Service]:
    paths = StatePaths(folder)
    paths.create()
    made = Service(paths, Journal.open(paths.runs, Run, RunSummary))
    try:
        yield made
    finally:
        await made.client.aclose()
        await made.deliveries.close()
        await made.runs.close()


@asynccontextmanager
async def reporting(made: Service) -> AsyncIterator[None]:
    """Inside the block the reporter has seen to everything that was left."""
    last = await made.add(CallbackEvent.STATE)  # the newest, and so the one that is looked at last
    async with anyio.create_task_group() as tasks:
        await tasks.start(made.reporter.run)
        await until(lambda: made.keys(last) == STATES)
        yield
        tasks.cancel_scope.cancel()
