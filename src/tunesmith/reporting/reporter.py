"""Tells callbacks, and the endpoint in the settings, what happens to runs: the bridge between runs and callbacks.

What is offered has a key made from what is on disk (the number of a change of state, a step, a checkpoint's path), so
offering it again after a crash adds nothing. How deliveries are sent is not decided here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import anyio
import anyio.abc
import anyio.lowlevel
import msgspec
import structlog

from tunesmith.callbacks import CallbackService, Occurrence, which
from tunesmith.errors import InvalidInput, OutOfSpace, TooLarge, TunesmithError
from tunesmith.files import SHORTAGE
from tunesmith.journal import Entry
from tunesmith.records import BodySource, Callback, CallbackEvent, Progress, Run, RunState
from tunesmith.reporting.finetune_shape import END, FinetuneShape
from tunesmith.reporting.openai_events import OpenAIEvents, ended_at, event_of, job_id_of, type_of_end
from tunesmith.runs import RunBook, RunSummary
from tunesmith.runs.fold import Event

_log = structlog.get_logger()
_RETRY_SECONDS = 1.0
_TROUBLE_SECONDS = 60.0
_LATEST_UNIX_SECONDS = 2**37
_FINAL = "final"
_RUNS_PER_TURN = 100
"""So many runs are looked at before others get their turn. Looking takes microseconds; there may be a million runs."""
_COPIES_AT_ONCE = 4
"""Models that are copied to the finetuned folder, which may be on another file system. Other runs are told of meanwhile."""
_NOT_METRICS = ("step", "total_steps", "epoch", "at")


async def nothing_to_settle(_run_id: str) -> None:
    """For where nothing is made of a run once it is over."""


class Reporter:
    """Offers states, metrics, checkpoints and the end of every run that names a callback; of every other, its end."""

    def __init__(
        self,
        book: RunBook,
        callbacks: CallbackService,
        shape: FinetuneShape,
        openai_events: OpenAIEvents,
        settled: Callable[[str], Awaitable[None]] = nothing_to_settle,
    ) -> None:
        """``settled`` waits until whoever is told of the end of a job finds all that belongs to it."""
        self._book = book
        self._settled = settled
        self._finetune = shape
        self._openai_events = openai_events
        self._callbacks = callbacks
        self._changed: dict[str, None] = {}
        """Runs whose states have to be looked at, in order."""
        self._wake = asyncio.Event()
        self._locks: dict[str, asyncio.Lock] = {}
        self._copies = anyio.CapacityLimiter(_COPIES_AT_ONCE)

    def committed(self, _entry: Entry, run: Run, _previous: object) -> None:
        """Listen to the run journal with this."""
        if run.webhook or run.callback is not None:
            self._changed[run.id] = None
            self._wake.set()

    async def run(self, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        """Until cancelled: offer changes of state as they are recorded, and first those that an earlier server left."""
        task_status.started()
        await self._look_back()
        async with anyio.create_task_group() as tasks:
            while True:
                while self._changed:
                    run_id = next(iter(self._changed))
                    del self._changed[run_id]
                    if self._is_succeeded_job(run_id):
                        tasks.start_soon(self._once_settled, run_id)
                        continue
                    await self._patiently(run_id, self._tell_webhook)
                    if self._may_publish(run_id):
                        tasks.start_soon(self._beside, run_id)
                    else:
                        await self._patiently(run_id, self._tell_callback)
                    await anyio.lowlevel.checkpoint()  # where nothing was left to offer, nothing was waited for
                self._wake.clear()
                await self._wake.wait()

    def _is_succeeded_job(self, run_id: str) -> bool:
        summary = self._book.summary_of(run_id)
        return summary.state is RunState.SUCCEEDED and summary.labels.openai_job is not None

    async def _once_settled(self, run_id: str) -> None:
        await self._settled(run_id)
        await self._patiently(run_id, self._tell_webhook)
        await self._patiently(run_id, self._tell_callback)

    def _may_publish(self, run_id: str) -> bool:
        """Whether telling its end may mean to copy a model first."""
        summary = self._book.summary_of(run_id)
        return summary.state.final and summary.callback is not None and summary.callback.shape == "finetune"

    async def _beside(self, run_id: str) -> None:
        async with self._copies:
            await self._patiently(run_id, self._tell_callback)

    async def _look_back(self) -> None:
        """Note every run of which an earlier server may have left something to offer."""
        for number, (run_id, summary) in enumerate(self._book.told_of().items(), start=1):
            if not (self._webhook_is_told(run_id, summary) and self._callback_is_told(run_id, summary)):
                self._changed[run_id] = None
            if number % _RUNS_PER_TURN == 0:
                await anyio.lowlevel.checkpoint()

    async def _patiently(self, run_id: str, tell: Callable[[str], Awaitable[None]]) -> None:
        while True:
            try:
                await tell(run_id)
                return
            except OutOfSpace:
                await anyio.sleep(_RETRY_SECONDS)
            except TunesmithError as error:
                _log.error("callback_not_offered", run_id=run_id, reason=str(error))
                return
            except Exception as error:  # noqa: BLE001  # whatever it is, it must not reach the other runs
                passes = isinstance(error, OSError) and error.errno in SHORTAGE
                _log.exception("callback_not_offered_yet", run_id=run_id)
                seconds = _RETRY_SECONDS if passes else _TROUBLE_SECONDS
                asyncio.get_running_loop().call_later(seconds, self._look_again, run_id)
                return

    def _look_again(self, run_id: str) -> None:
        self._changed[run_id] = None
        self._wake.set()

    def _webhook_is_told(self, run_id: str, summary: RunSummary) -> bool:
        """Whether nothing is left to offer. Reads nothing."""
        event_type = type_of_end(summary.kind, summary.state) if summary.webhook else None
        return event_type is None or self._openai_events.settled(run_id, event_type)

    async def _tell_webhook(self, run_id: str) -> None:
        if self._webhook_is_told(run_id, self._book.summary_of(run_id)):
            return
        run = self._book.get(run_id)
        event_type = type_of_end(run.kind, run.state)
        assert event_type is not None
        await self._openai_events.offer(run.id, event_type, job_id_of(run.id), ended_at(run))

    def _callback_is_told(self, run_id: str, summary: RunSummary) -> bool:
        """Whether nothing is left to offer, as far as can be said without reading: what is wanted last is offered last."""
        callback = summary.callback
        if callback is None:
            return True
        if CallbackEvent.FINAL in callback.events:
            return self._callbacks.offered(run_id, END if callback.shape == "finetune" else _FINAL)
        if not summary.state.final:
            return False
        if callback.shape == "finetune":
            return True  # its results are offered as they are read from the log
        if CallbackEvent.STATE in callback.events:
            return self._callbacks.offered(run_id, _state_key(self._book.changes_of(run_id) - 1))
        return CallbackEvent.METRICS not in callback.events

    async def _tell_callback(self, run_id: str) -> None:
        if self._book.summary_of(run_id).callback is not None:
            await self._offer_states(self._book.get(run_id))

    async def heard(self, run_id: str, events: tuple[Event, ...], before: Progress) -> None:
        """Offer what the run's process printed; ``before`` is its progress before these events.

        Raises:
            OutOfSpace: they have to be offered again.
        """
        run = self._book.get(run_id)
        if run.callback is None:
            return
        await self._offer_states(run)
        if run.callback.shape == "openai":
            return
        if run.callback.shape == "finetune":
            async for message in self._finetune.results(run, run.callback, events, before):
                await self._send(run, run.callback, message.kind, message.key, message.source)
            return
        step, epoch = before.measured_step, before.measured_epoch
        for event in events:
            if event.kind == "checkpoint":
                key = f"checkpoint@{event.fields.get('path')}"
                await self._offer(run, Occurrence(kind=CallbackEvent.CHECKPOINT), key, event.fields)
            elif event.kind == "metrics" and isinstance(event.fields.get("step"), int):
                now = event.fields
                occurrence = Occurrence(
                    kind=CallbackEvent.METRICS,
                    step=now["step"],
                    epoch=now.get("epoch"),
                    previous_step=step,
                    previous_epoch=epoch,
                )
                step, epoch = now["step"], now.get("epoch", epoch)
                await self._offer(run, occurrence, f"metrics@{step}", _measured(now))

    async def _offer_states(self, run: Run) -> None:
        callback = run.callback
        assert callback is not None
        async with self._locks.setdefault(run.id, asyncio.Lock()):
            if callback.shape == "openai":
                await self._offer_job_event(run, callback)
            elif _needs_history(callback):
                await self._offer_history(run.id, callback)
            elif run.state.final:
                await self._offer_last_metrics(run)
        if run.state.final:
            self._locks.pop(run.id, None)

    async def _offer_history(self, run_id: str, callback: Callback) -> None:
        for number, (entry, then) in enumerate(self._book.history(run_id)):
            if callback.shape == "finetune":
                if then.state.final:
                    await self._offer_end(then, callback, entry)
                continue
            if then.state.final:
                await self._offer_last_metrics(then)
            await self._offer_state(then, entry, number)
            if then.state.final:
                await self._offer_final(then, entry)

    async def _offer_state(self, run: Run, entry: Entry, number: int) -> None:
        fields = {"status": run.state, "change": entry.event, "attempt": run.attempt, "at": entry.at}
        await self._offer(run, Occurrence(kind=CallbackEvent.STATE), _state_key(number), fields)

    async def _offer_last_metrics(self, run: Run) -> None:
        progress = run.progress
        if progress.step is None or not progress.metrics:
            return
        last = Occurrence(kind=CallbackEvent.METRICS, step=progress.step, epoch=progress.epoch, last=True)
        fields = {"step": progress.step, "total_steps": progress.total_steps, "epoch": progress.epoch}
        await self._offer(run, last, f"metrics@{progress.step}", _measured({**fields, **progress.metrics}))

    async def _offer_final(self, run: Run, entry: Entry) -> None:
        fields = {
            "at": entry.at,
            "status": run.state,
            "exit": run.exit,
            "error": run.error,
            "metrics": run.progress.metrics,
            "output_path": run.progress.output_path,
            "ckpt_path": run.progress.ckpt_path,
        }
        await self._offer(run, Occurrence(kind=CallbackEvent.FINAL), _FINAL, fields)

    async def _offer_job_event(self, run: Run, callback: Callback) -> None:
        event_type = type_of_end(run.kind, run.state)
        if event_type is not None and not self._callbacks.offered(run.id, _FINAL):
            body = event_of(run.id, _FINAL, event_type, job_id_of(run.id), ended_at(run))
            await self._send(run, callback, CallbackEvent.FINAL, _FINAL, body, at=ended_at(run))

    async def _offer_end(self, run: Run, callback: Callback, entry: Entry) -> None:
        """A function's final result was offered when it was read, and then there is nothing to add."""
        if not self._callbacks.offered(run.id, END):
            message = await self._finetune.end(run, callback)
            await self._send(run, callback, message.kind, message.key, message.source, at=entry.at)

    async def _offer(self, run: Run, occurrence: Occurrence, key: str, fields: dict[str, Any]) -> None:
        # Each by its own key: a server may have died between any two of those that follow from one change.
        callback: Callback | None = run.callback
        if callback is None or not which(callback, occurrence) or self._callbacks.offered(run.id, key):
            return
        told = {name: value for name, value in fields.items() if name != "at"}
        data = msgspec.to_builtins({"run_id": run.id, "experiment_id": run.experiment_id, **told})
        await self._send(run, callback, occurrence.kind, key, data, at=_moment(fields.get("at")))

    async def _send(
        self,
        run: Run,
        callback: Callback,
        kind: CallbackEvent,
        key: str,
        body: dict[str, Any] | BodySource,
        *,
        at: datetime | None = None,
    ) -> None:
        if kind not in callback.events:
            return
        try:
            await self._callbacks.offer(run.id, callback, kind, key, body, at=at)
        except (InvalidInput, TooLarge) as error:
            # What a process printed cannot be sent as it is; the others are not kept waiting for it.
            _log.warning("callback_not_offered", run_id=run.id, key=key, reason=str(error))


def _needs_history(callback: Callback) -> bool:
    """Whether more is wanted of changes of state than the last metrics, which the newest record tells."""
    wanted = {CallbackEvent.STATE, CallbackEvent.FINAL} & set(callback.events)
    return callback.shape == "finetune" or bool(wanted)


def _state_key(number: int) -> str:
    return f"state#{number}"


def _measured(fields: dict[str, Any]) -> dict[str, Any]:
    metrics = {name: value for name, value in fields.items() if name not in _NOT_METRICS}
    return {**{name: fields.get(name) for name in _NOT_METRICS}, "metrics": metrics}


def _moment(at: object) -> datetime | None:
    """When it happened: a time of ours, or unix seconds as a process printed them."""
    if isinstance(at, datetime):
        return at
    if isinstance(at, int | float) and not isinstance(at, bool) and 0 <= at < _LATEST_UNIX_SECONDS:
        return datetime.fromtimestamp(at, UTC)
    return None
