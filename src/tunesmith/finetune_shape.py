"""What a callback in the shape of the finetune door says: results while a run goes on, and one last message.

A user's function tells its own results, each in a file that a line of the log names. For a built-in recipe they are drawn
from its metrics. When something is offered and how it is sent is not decided here. Before its
last message says where the model is, it is put there.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio.to_thread
import msgspec
import structlog

from tunesmith.callbacks import Occurrence, which
from tunesmith.curves import Measurement, draw, place
from tunesmith.files import raise_shortage
from tunesmith.finetune import LOG, MODEL, publish, show_log
from tunesmith.finetune.result import Result
from tunesmith.paths import StatePaths
from tunesmith.records import Callback, CallbackEvent, Progress, Run, RunState
from tunesmith.runs.fold import Event

_log = structlog.get_logger()

END = "end"
"""The key of a run's one last message, whether it succeeded or not: whichever is offered first is the only one."""

_RESULT_FILE = re.compile(r"results/[0-9]{1,12}\.json")


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """A body, and what it is called within its run."""

    key: str
    kind: CallbackEvent
    body: dict[str, Any]


class FinetuneShape:
    """Messages of all runs whose callback has this shape."""

    def __init__(self, paths: StatePaths) -> None:
        self._paths = paths
        self._due: dict[str, bool] = {}
        """Whether the newest point of a run's curves is one to tell of, once it is complete."""

    async def results(
        self, run: Run, callback: Callback, events: tuple[Event, ...], before: Progress
    ) -> AsyncIterator[Message]:
        """Those that follow from what a run's process printed; ``before`` is its progress before that."""
        measurement = _measurement(callback)
        newest = place({"step": before.measured_step, "epoch": before.measured_epoch}, measurement)
        read, due = before.log_offset, self._due.get(run.id)
        for event in events:
            file = event.fields.get("finetune") if event.kind == "result" else None
            if isinstance(file, str) and _RESULT_FILE.fullmatch(file):
                message = await self._told(run, callback, file, event)
                if message is not None:
                    yield message
            now = place(event.fields, measurement) if event.kind == "metrics" else None
            if (callback.every_steps or callback.every_epochs) and now is not None and now > (newest or 0):
                # Validation is measured last, so a point is complete when the next one begins.
                if newest is not None and due is None:  # an earlier server has seen this point
                    due = await self._was_due(run, callback, newest, read)
                if newest is not None and due:
                    yield _message(run, callback, f"result@{newest}", await self._drawn(run, callback, read))
                due = _crosses(callback, newest, now)
                newest = now
            read = event.end
        if due is not None:  # and not before: whoever could not keep a message asks for all of them again
            self._due[run.id] = due

    async def end(self, run: Run, callback: Callback) -> Message:
        """The last message of a run that is over."""
        self._due.pop(run.id, None)
        if run.state is RunState.SUCCEEDED:
            return _message(run, callback, END, await self._drawn(run, callback, None, await self._published(run)))
        error = str(run.error) if run.error is not None else f"the run was {run.state}"
        body = {"task_id": callback.task_id or run.id, "status": "fail", "error": error}
        return Message(key=END, kind=CallbackEvent.FINAL, body=body)

    async def _told(self, run: Run, callback: Callback, file: str, event: Event) -> Message | None:
        path = self._paths.run(run.id).folder / file
        try:
            result = msgspec.json.decode(await anyio.to_thread.run_sync(path.read_bytes), type=Result)
        except (OSError, msgspec.DecodeError) as error:
            if isinstance(error, OSError):
                raise_shortage(error)
            # Only a line that the worker did not print names such a file.
            _log.warning("result_not_told", run_id=run.id, file=file, reason=str(error))
            return None
        key = END if event.fields.get("is_final") is True else f"result@{event.end}"
        return _message(run, callback, key, msgspec.to_builtins(result))

    async def _published(self, run: Run) -> str:
        """Where the finished model is: in the place that the door has promised, or if that cannot be, where it was made."""
        paths = self._paths.run(run.id)
        made = run.progress.output_path or str(paths.output.resolve())
        if run.finetuned_place is None:
            return made
        place = Path(run.finetuned_place)
        try:
            await anyio.to_thread.run_sync(show_log, paths.log.resolve(), place)
            await anyio.to_thread.run_sync(publish, Path(made), place)
        except OSError as error:
            raise_shortage(error)
            _log.error("model_not_published", run_id=run.id, place=str(place), reason=str(error))
            return made
        return str(place / MODEL)

    async def _was_due(self, run: Run, callback: Callback, newest: int, upto: int) -> bool:
        log = self._paths.run(run.id).log
        _, figure = await anyio.to_thread.run_sync(draw, log, upto, _measurement(callback))
        earlier = [x for x in figure["x_axis"] if x < newest]
        return _crosses(callback, earlier[-1] if earlier else None, newest)

    async def _drawn(self, run: Run, callback: Callback, upto: int | None, model: str | None = None) -> dict[str, Any]:
        paths = self._paths.run(run.id)
        idx, figure = await anyio.to_thread.run_sync(draw, paths.log, upto, _measurement(callback))
        place = Path(run.finetuned_place) if run.finetuned_place else None
        return {
            "is_final": upto is None,
            "idx": idx,
            "fig_param": figure,
            "test_accuracy": _test_accuracy(run) if upto is None else None,
            "output_model_path": model or str(place / MODEL if place else paths.output.resolve()),
            "output_log_path": str(place / LOG if place else paths.log.resolve()),
        }


def _test_accuracy(run: Run) -> float | None:
    measured = run.progress.metrics
    return measured.get("test_accuracy", measured.get("test_token_accuracy"))


def _message(run: Run, callback: Callback, key: str, result: dict[str, Any]) -> Message:
    body = {"task_id": callback.task_id or run.id, "status": "success", **result}
    return Message(key=key, kind=CallbackEvent.FINAL if key == END else CallbackEvent.METRICS, body=body)


def _measurement(callback: Callback) -> Measurement:
    return "step" if callback.every_steps else "epoch"


def _crosses(callback: Callback, before: int | None, now: int) -> bool:
    by_steps = callback.every_steps is not None
    return which(
        msgspec.structs.replace(callback, events=(CallbackEvent.METRICS,)),
        Occurrence(
            kind=CallbackEvent.METRICS,
            step=now if by_steps else None,
            epoch=None if by_steps else now,
            previous_step=before,
            previous_epoch=before,
        ),
    )
