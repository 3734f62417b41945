"""Folding what a process printed into its progress and what it reported. Pure: no files, no clock of its own.

Events come from ``read_event``, which has checked their fields.
"""

from __future__ import annotations

from typing import Any

import msgspec

from tunesmith.contract.events import read_line
from tunesmith.errors import Fault
from tunesmith.records import Progress, ToldWarning
from tunesmith.runner import Line
from tunesmith.runs.fields import MOST_NAMES, checked, finite
from tunesmith.runs.reported import Reported
from tunesmith.runs.time_left import TimeLeft

_MOST_WARNINGS = 10
"""Of each kind."""
_LONGEST_WARNING = 1000
_NOT_METRICS = frozenset({"step", "total_steps", "epoch", "at", "phase", "eta_seconds"})


class Event(msgspec.Struct, frozen=True):
    """One line as followers see it."""

    kind: str
    """``log``, or a kind of the line format."""
    fields: dict[str, Any]
    end: int
    """Byte offset after the line."""
    faults: tuple[str, ...] = ()
    """What of the line was left out."""


def read_event(line: Line) -> Event:
    """What a line says; ``log`` when it is not in the line format."""
    event = read_line(line.content)
    if event is None:
        return Event("log", {"line": line.text, "offset": line.start}, line.end)
    kind, said = event
    fields, faults = checked(kind, said)
    return Event(kind, fields, line.end, faults)


class Fold:
    """The progress of one run and what it reported, advanced event by event."""

    def __init__(self, progress: Progress, reported: Reported | None = None) -> None:
        self.progress = progress
        self.reported = reported
        self._time_left = TimeLeft()

    def take(self, event: Event, now: float) -> None:
        """Advance by one event that was read at unix time ``now``."""
        match event.kind:
            case "progress":
                self._advance(event.fields, now)
            case "metrics":
                self._advance(event.fields, now)
                measured = {name: value for name, value in event.fields.items() if name not in _NOT_METRICS}
                self._update(
                    measured_step=self.progress.step,
                    measured_epoch=self.progress.epoch,
                    metrics=self._with(_numbers(measured)),
                )
            case "checkpoint":
                self._update(ckpt_path=_text(event.fields.get("path")), ckpt_step=event.fields.get("step"))
            case "result":
                self._update(
                    output_path=_text(event.fields.get("model")) or self.progress.output_path,
                    metrics=self._with(_numbers(event.fields.get("metrics"))),
                )
            case "message" if event.fields.get("level") == "error":
                self._update(error=_fault(event.fields))
            case "message" if event.fields.get("level") == "warning":
                self._note(event, now)
        if self.reported is not None:
            self.reported.take(event.kind, event.fields)
        for fault in event.faults:
            self._warn(fault)
        self._update(log_offset=event.end)

    def _advance(self, fields: dict[str, Any], now: float) -> None:
        step, epoch = fields.get("step"), fields.get("epoch")
        total = fields.get("total_steps") or self.progress.total_steps
        told = fields.get("eta_seconds")
        phase = _text(fields.get("phase"))
        self._time_left.take(fields.get("at") or now, phase=phase, step=step, told=told)
        self._update(
            phase=phase or self.progress.phase,
            part=_text(fields.get("part")) if phase else self.progress.part,
            step=step if step is not None else self.progress.step,
            total_steps=total,
            epoch=epoch if epoch is not None else self.progress.epoch,
            eta_seconds=self._eta(total, told),
        )

    def _eta(self, total: int | None, told: float | None) -> float | None:
        """At the speed of the steps so far; before there is a speed, what the process itself expects."""
        for seconds in (self._time_left.seconds(total), told):
            if seconds is not None:
                return seconds
        return self.progress.eta_seconds

    def _with(self, more: dict[str, float]) -> dict[str, float]:
        """The latest metrics with newer ones; names beyond the limit are left out, and that is said once."""
        known = self.progress.metrics
        new = [name for name in more if name not in known]
        room = max(0, MOST_NAMES - len(known))
        if len(new) > room:
            self._warn(f"the run has more than {MOST_NAMES} metrics; the latest values of those beyond are not kept")
            left_out = set(new[room:])
            more = {name: value for name, value in more.items() if name not in left_out}
        return {**known, **more}

    def _warn(self, warning: str) -> None:
        warnings = self.progress.warnings
        if warning not in warnings and len(warnings) < _MOST_WARNINGS:
            self._update(warnings=(*warnings, warning))

    def _note(self, event: Event, now: float) -> None:
        known, text = self.progress.told_warnings, str(_fault(event.fields))[:_LONGEST_WARNING]
        if len(known) < _MOST_WARNINGS and text not in [one.text for one in known]:
            told = ToldWarning(at=event.fields.get("at") or round(now, 3), text=text, log_offset=event.end)
            self._update(told_warnings=(*known, told))

    def _update(self, **changes: Any) -> None:
        self.progress = msgspec.structs.replace(self.progress, **changes)


def _fault(fields: dict[str, Any]) -> Fault:
    return Fault(
        message=_text(fields.get("text")) or "the process told of something without a text",
        where=_text(fields.get("where")),
        mend=_text(fields.get("mend")),
    )


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _numbers(values: object) -> dict[str, float]:
    if not isinstance(values, dict):
        return {}
    return {str(name): number for name, value in values.items() if (number := finite(value)) is not None}
