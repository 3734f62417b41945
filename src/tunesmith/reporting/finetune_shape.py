"""What a callback in the shape of the finetune door says: results while a run goes on, and one last message.

A user's function tells its own results, each in a file that a line of the log names. For a built-in recipe they are drawn
from its metrics. A result holds the curves since the start, so what goes on record is only what it is made of; it is made
when it is sent, with the same bytes every time. When something is offered and how it is sent is not decided here. Before
its last message says where the model is, it is put there.
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
from tunesmith.errors import InvalidInput
from tunesmith.files import raise_shortage, read_regular
from tunesmith.finetune import LOG, MODEL, PUBLISH_TO, publish, show_log
from tunesmith.finetune.result import Result, decode_result
from tunesmith.finetune.results import MOST_RESULT_BYTES
from tunesmith.paths import StatePaths
from tunesmith.records import BodySource, Callback, CallbackEvent, Delivery, Progress, Run, RunState
from tunesmith.reporting.curves import CurveBook, Measurement, place
from tunesmith.runs import RunBook
from tunesmith.runs.fold import Event

_log = structlog.get_logger()

END = "end"
"""The key of a run's one last message, whether it succeeded or not: whichever is offered first is the only one."""

_RESULT_FILE = re.compile(r"results/[0-9]{1,12}\.json")


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """What a body is made of, and what it is called within its run."""

    key: str
    kind: CallbackEvent
    source: BodySource


class FinetuneShape:
    """Messages of all runs whose callback has this shape."""

    def __init__(self, paths: StatePaths, book: RunBook) -> None:
        self._paths = paths
        self._book = book
        self._curves = CurveBook()
        self._due: dict[str, bool] = {}
        """Whether the newest point of a run's curves is one to tell of, once it is complete."""

    def body_of(self, delivery: Delivery) -> bytes:
        """What is sent: the same every time. Blocks on the disk; from any thread.

        Raises:
            OSError, InvalidInput: what it is made of is not there any more.
        """
        source = delivery.source
        assert source is not None
        if source.result_file is not None:
            result = self._result(delivery.subject_id, source.result_file)
            return msgspec.json.encode({**source.fields, **msgspec.to_builtins(result)})
        if source.log_upto is not None:
            callback = self._book.get(delivery.subject_id).callback
            assert callback is not None
            metrics, is_final = self._paths.run(delivery.subject_id).metrics, delivery.key == END
            measurement, every = _measurement(callback), _every(callback)
            idx, figure = self._curves.draw(metrics, measurement, every, upto=source.log_upto, is_final=is_final)
            return msgspec.json.encode({**source.fields, "idx": idx, "fig_param": figure})
        return msgspec.json.encode(source.fields)

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
                    due = await self._was_due(run, callback, read)
                if newest is not None and due:
                    yield _message(run, callback, f"result@{newest}", self._stands(run), log_upto=read)
                due = _crosses(callback, newest, now)
                newest = now
            read = event.end
        if due is not None:  # and not before: whoever could not keep a message asks for all of them again
            self._due[run.id] = due

    async def end(self, run: Run, callback: Callback) -> Message:
        """The last message of a run that is over."""
        self._due.pop(run.id, None)
        if run.state is RunState.SUCCEEDED:
            end = {**self._stands(run), "is_final": True, "output_model_path": await self._published(run)}
            end["test_accuracy"] = _test_accuracy(run)
            return _message(run, callback, END, end, log_upto=run.progress.log_offset)
        error = str(run.error) if run.error is not None else f"the run was {run.state}"
        body = {"task_id": callback.task_id or run.id, "status": "fail", "error": error}
        return Message(key=END, kind=CallbackEvent.FINAL, source=BodySource(fields=body))

    async def _told(self, run: Run, callback: Callback, file: str, event: Event) -> Message | None:
        try:
            await anyio.to_thread.run_sync(self._result, run.id, file)
        except (OSError, InvalidInput) as error:
            if isinstance(error, OSError):
                raise_shortage(error)
            # Only a line that the worker did not print names such a file.
            _log.warning("result_not_told", run_id=run.id, file=file, reason=str(error))
            return None
        key = END if event.fields.get("is_final") is True else f"result@{event.end}"
        return _message(run, callback, key, {}, result_file=file)

    def _result(self, run_id: str, file: str) -> Result:
        path = self._paths.run(run_id).folder / file
        try:
            return decode_result(read_regular(path, MOST_RESULT_BYTES))
        except msgspec.DecodeError as error:
            raise InvalidInput(f"is not a result: {error}", where=str(path), mend="start the task again") from error

    async def _published(self, run: Run) -> str:
        """Where the finished model is: in the place that the door has promised, or if that cannot be, where it was made."""
        paths = self._paths.run(run.id)
        made = run.progress.output_path or str(paths.output.resolve())
        if PUBLISH_TO not in run.labels:
            return made
        place = Path(run.labels[PUBLISH_TO])
        try:
            await anyio.to_thread.run_sync(show_log, paths.log.resolve(), place)
            await anyio.to_thread.run_sync(publish, Path(made), place)
        except OSError as error:
            raise_shortage(error)
            _log.error("model_not_published", run_id=run.id, place=str(place), reason=str(error))
            return made
        return str(place / MODEL)

    async def _was_due(self, run: Run, callback: Callback, upto: int) -> bool:
        metrics, measurement, every = self._paths.run(run.id).metrics, _measurement(callback), _every(callback)
        return await anyio.to_thread.run_sync(lambda: self._curves.is_due(metrics, measurement, every, upto=upto))

    def _stands(self, run: Run) -> dict[str, Any]:
        """What a result says besides its curves, while the run goes on."""
        paths = self._paths.run(run.id)
        place = Path(run.labels[PUBLISH_TO]) if PUBLISH_TO in run.labels else None
        return {
            "is_final": False,
            "test_accuracy": None,
            "output_model_path": str(place / MODEL if place else paths.output.resolve()),
            "output_log_path": str(place / LOG if place else paths.log.resolve()),
        }


def _test_accuracy(run: Run) -> float | None:
    measured = run.progress.metrics
    return measured.get("test_accuracy", measured.get("test_token_accuracy"))


def _message(
    run: Run,
    callback: Callback,
    key: str,
    fields: dict[str, Any],
    *,
    result_file: str | None = None,
    log_upto: int | None = None,
) -> Message:
    fields = {"task_id": callback.task_id or run.id, "status": "success", **fields}
    source = BodySource(fields=fields, result_file=result_file, log_upto=log_upto)
    return Message(key=key, kind=CallbackEvent.FINAL if key == END else CallbackEvent.METRICS, source=source)


def _measurement(callback: Callback) -> Measurement:
    return "step" if callback.every_steps else "epoch"


def _every(callback: Callback) -> int:
    return callback.every_steps or callback.every_epochs or 1


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
