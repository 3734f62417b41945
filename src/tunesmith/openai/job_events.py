"""What happened to a job, newest first: its states as they were journaled, what it measured step by step, and its warnings.

Nothing is kept for it: states, and what went otherwise than it was asked for, come from the run's history, warnings that its
process told from its progress, and measurements from its metrics.jsonl, read from its end as far as a page needs. An event's id says where it comes from, so the same event has the same id for ever.
"""

from __future__ import annotations

import heapq
import math
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec

from tunesmith.errors import InvalidInput
from tunesmith.files import open_regular
from tunesmith.openai.ids import job_id
from tunesmith.openai.labels import RESOLVED, json_label, name_of_model
from tunesmith.records import Run, RunState, ToldWarning

_BLOCK = 64 * 1024
_LONGEST_LINE = 1024 * 1024
_NOT_MEASURED = ("at", "log_offset", "step", "total_steps", "epoch")
_NAMES = {
    "loss": "train_loss",
    "token_accuracy": "train_mean_token_accuracy",
    "eval_loss": "full_valid_loss",
    "eval_token_accuracy": "full_valid_mean_token_accuracy",
}
"""What OpenAI calls our metrics. All validation rows are scored each time, so both of its names for that are the same."""

_decode_line = msgspec.json.Decoder(dict[str, Any]).decode


class JobEvent(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened to a job."""

    id: str
    at: float
    """Unix seconds."""
    level: Literal["info", "warn", "error"] = "info"
    message: str
    type: Literal["message", "metrics"] = "message"
    data: dict[str, Any] = {}


class _Place(NamedTuple):
    """Where an event stands among all of its job; later ones are larger."""

    at: float
    kind: int
    """Of the same moment: measurements, then warnings of the process, states, and what is noticed with them."""
    number: int
    """The byte of run.log that a measurement or warning ends at; the change of state; which of the things noticed."""


_MEASURED, _TOLD, _STATE, _NOTICED = range(4)


Change = tuple[datetime, Run]
_Event = tuple[_Place, JobEvent]


def newest_events(
    run: Run, changes: Sequence[Change], warnings: Sequence[ToldWarning], metrics: Path, *, after: str | None
) -> Iterator[JobEvent]:
    """The events before the one with the id ``after``, newest first. Reads the file as it goes on; blocks.

    ``warnings`` are those that its process has told.

    Raises:
        InvalidInput: ``after`` is no event of this job.
    """
    known = [list(_states(run, changes)), list(_noticed(run, changes)), [_told(run, one) for one in warnings]]
    before = _place_of(after, run, {event.id: place for events in known for place, event in events}, metrics)
    measured = ((place, _of_metrics(run, line)) for place, line in _measurements(metrics))
    newest = (sorted(events, key=lambda one: one[0], reverse=True) for events in known)
    for place, event in heapq.merge(*newest, measured, key=lambda one: one[0], reverse=True):
        if before is None or place < before:
            yield event


def _states(run: Run, changes: Sequence[Change]) -> Iterator[_Event]:
    before, latest = None, 0.0
    for number, (at, then) in enumerate(changes):
        level, message = _said(then, before)
        latest = max(latest, at.timestamp())  # the clock may have been set back
        place = _Place(latest, _STATE, number)
        yield place, JobEvent(id=f"{_prefix(run)}-s{number}", at=place.at, level=level, message=message)
        before = then


def _noticed(run: Run, changes: Sequence[Change]) -> Iterator[_Event]:
    """What goes otherwise than it was asked for: the record only ever gains some."""
    number = 0
    for at, then in changes:
        for warning in then.warnings[number:]:
            place = _Place(at.timestamp(), _NOTICED, number)
            yield place, JobEvent(id=f"{_prefix(run)}-n{number}", at=place.at, level="warn", message=warning)
            number += 1


def _told(run: Run, warning: ToldWarning) -> _Event:
    place = _Place(warning.at, _TOLD, warning.log_offset)
    return place, JobEvent(id=f"{_prefix(run)}-w{place.number}", at=place.at, level="warn", message=warning.text)


def _place_of(after: str | None, run: Run, known: Mapping[str, _Place], metrics: Path) -> _Place | None:
    if after is None or after in known:
        return known.get(after or "")
    prefix, _, last = after.rpartition("-")
    kind, number = last[:1], last[1:]
    if prefix == _prefix(run) and kind == "m" and number.isdecimal() and len(number) < 20:
        found = (place for place, _ in _measurements(metrics) if place.number <= int(number))
        place = next(found, None)
        if place is not None and place.number == int(number):
            return place
    raise InvalidInput(
        "is no event of this job", where="after", mend="give the id of the last event of the page before"
    )


def _measurements(metrics: Path) -> Iterator[tuple[_Place, dict[str, Any]]]:
    """The last one first, and none later than the one after it: the clock may have been set back."""
    earliest = math.inf
    for line in lines_from_end(metrics):
        earliest = min(earliest, line["at"])
        yield _Place(earliest, _MEASURED, line["log_offset"]), line


def _prefix(run: Run) -> str:
    return job_id(run.id).replace("ftjob-", "ftevent-")


def _said(then: Run, before: Run | None) -> tuple[Literal["info", "warn", "error"], str]:
    state = then.state
    if before is None:
        looks = ". Validating its files" if state is RunState.VALIDATING else ""
        return "info", f"Created fine-tuning job: {job_id(then.id)}{looks}"
    if state is RunState.QUEUED:
        return _said_of_queued(then, before)
    if state is RunState.SUCCEEDED:
        return "info", f"The job has successfully completed. New fine-tuned model created: {name_of_model(then)}"
    if state in (RunState.FAILED, RunState.LOST):
        return "error", f"The job failed: {then.error or 'its process is gone, and how it ended cannot be known'}"
    if state is RunState.STOPPING:
        return "info", f"The job is asked to stop: {then.stop_reason}"
    return "info", _MESSAGES[state]


_MESSAGES = {
    RunState.STARTING: "The job is starting",
    RunState.RUNNING: "Fine-tuning job started",
    RunState.PAUSED: "The job is paused; a checkpoint holds where it was",
    RunState.CANCELLED: "The job was cancelled",
}


def _said_of_queued(then: Run, before: Run) -> tuple[Literal["info", "warn"], str]:
    if before.state is RunState.VALIDATING:
        resolved = json_label(then, RESOLVED) or {}
        numbers = ", ".join(f"{name}: {value}" for name, value in resolved.items())
        return "info", "Files validated, moving job to queued state" + (f" ({numbers})" if numbers else "")
    if before.state is RunState.PAUSED:
        return "info", "The job is resumed: it is queued again"
    return "warn", "The process of the job died with the machine: it is queued again, from its newest checkpoint"


def _of_metrics(run: Run, line: Mapping[str, Any]) -> JobEvent:
    step, total = line.get("step"), line.get("total_steps")
    measured = measured_in(line)
    shown = ", ".join(f"{name}={value:.4g}" for name, value in measured.items() if name in _SHOWN)
    data = {"step": step, "total_steps": total, **measured}
    message = f"Step {step}/{total}: {shown}" if shown else f"Step {step}/{total}"
    return JobEvent(
        id=f"{_prefix(run)}-m{line['log_offset']}", at=line["at"], message=message, type="metrics", data=data
    )


_SHOWN = ("train_loss", "valid_loss", "train_mean_token_accuracy")


def measured_in(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Metrics under OpenAI's names, where it has one; the others under their own."""
    found = {
        _NAMES.get(name, name): value
        for name, value in metrics.items()
        if name not in _NOT_MEASURED and isinstance(value, int | float) and not isinstance(value, bool)
    }
    for name in ("full_valid_loss", "full_valid_mean_token_accuracy"):
        if name in found:
            found[name.removeprefix("full_")] = found[name]
    return found


def measured_at(metrics: Path, steps: Collection[int]) -> dict[int, dict[str, float]]:
    """What was measured at these steps, under OpenAI's names: a checkpoint may be written before its rows are scored. Blocks."""
    found: dict[int, dict[str, float]] = {}
    for line in lines_from_end(metrics):
        step = line.get("step")
        if isinstance(step, int) and step in steps:
            found[step] = {**measured_in(line), **found.get(step, {})}
        elif steps and isinstance(step, int) and step < min(steps):
            break
    return found


def lines_from_end(path: Path) -> Iterator[dict[str, Any]]:
    """The measurements in a metrics.jsonl, the last one first. None of a file that is not there; broken lines are left out."""
    try:
        descriptor = open_regular(path)
    except OSError:
        return
    with os.fdopen(descriptor, "rb") as file:
        place, rest = file.seek(0, os.SEEK_END), b""
        while place > 0:
            size = min(_BLOCK, place)
            place -= size
            file.seek(place)
            head, *lines = (file.read(size) + rest).split(b"\n")
            yield from filter(None, map(_line, reversed(lines)))
            rest = head if len(head) < _LONGEST_LINE else b""
        yield from filter(None, [_line(rest)])


def _line(text: bytes) -> dict[str, Any] | None:
    try:
        line = _decode_line(text)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    usable = isinstance(line.get("at"), int | float) and isinstance(line.get("log_offset"), int)
    return line if usable else None
