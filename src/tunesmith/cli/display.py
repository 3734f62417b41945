"""Displays of something that goes on: a moving bar on a terminal, one line per event everywhere else.

They are handed events, and know neither runs nor the service.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Mapping
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, Protocol, Self, TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn
from rich.text import Text

from tunesmith.cli.render import duration_text, event_line, metrics_text, number_text, part_text, phase_text, step_text
from tunesmith.records import Progress as RunProgress
from tunesmith.runs.fold import Event as FoldEvent
from tunesmith.runs.fold import Fold

_REFRESH_PER_SECOND = 8
_PROGRESS_EVERY_SECONDS = 5.0
_SHOWN_LOSSES = ("loss", "eval_loss")
_SPEEDS = (("samples_per_second", "samples/s"), ("tokens_per_second", "tokens/s"), ("bytes_per_second", "B/s"))


class Display(AbstractContextManager["Display", None], Protocol):
    """Shows events while it is entered."""

    def take(self, kind: str, fields: Mapping[str, Any]) -> None: ...

    def note(self, text: str) -> None:
        """Something worth a line that is no event."""


def display(label: str = "", *, stream: TextIO | None = None, log_lines: int = 0) -> Display:
    """The right one for a stream (standard output if none is given)."""
    stream = stream or sys.stdout
    return BarDisplay(label, stream, log_lines) if stream.isatty() else LineDisplay(label, stream)


class BarDisplay(Display):
    """Phase, bar, steps, loss, speed and time left; below it the last lines of the log, if wanted."""

    def __init__(self, label: str, stream: TextIO, log_lines: int) -> None:
        self._label = label
        self._fold = Fold(RunProgress())
        self._last_lines: deque[str] = deque(maxlen=log_lines)
        self._speed = ""
        self._bar = Progress(
            TextColumn("{task.fields[phase]}", markup=False, style="bold"),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[facts]}", markup=False),
            expand=True,
        )
        self._task = self._bar.add_task("", total=None, phase=label or "waiting", facts="")
        self._live = Live(
            console=Console(file=stream), get_renderable=self._render, refresh_per_second=_REFRESH_PER_SECOND
        )

    def take(self, kind: str, fields: Mapping[str, Any]) -> None:
        if kind == "log":
            self._last_lines.append(event_line(kind, fields))
            return
        if kind == "state":
            self._bar.update(self._task, phase=self._named(fields["state"]))
            return
        self._fold.take(FoldEvent(kind, dict(fields), 0), time.time())
        if kind == "message":
            self.note(event_line(kind, fields))
        progress = self._fold.progress
        self._speed = speed_text(progress) or self._speed
        self._bar.update(
            self._task,
            total=progress.total_steps,
            completed=progress.step or 0,
            phase=self._named(progress.phase or "running"),
            facts=self._facts(progress),
        )

    def note(self, text: str) -> None:
        self._live.console.print(Text(text))

    def __enter__(self) -> Self:
        self._live.start(refresh=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._live.stop()

    def _named(self, phase: str) -> str:
        return f"{self._label} · {phase_text(phase)}" if self._label else phase_text(phase)

    def _facts(self, progress: RunProgress) -> str:
        losses = [f"{name} {number_text(progress.metrics[name])}" for name in _SHOWN_LOSSES if name in progress.metrics]
        steps = step_text({"step": progress.step, "total_steps": progress.total_steps}).removeprefix("step ")
        eta = f"ETA {duration_text(progress.eta_seconds)}" if progress.eta_seconds is not None else ""
        facts = (part_text(progress.part), steps, *losses, self._speed, eta)
        return "  ".join(fact for fact in facts if fact)

    def _render(self) -> RenderableType:
        return Group(self._bar, *(Text(line, style="dim", no_wrap=True) for line in self._last_lines))


class LineDisplay(Display):
    """A line for every event but the log, and for progress within a part of a phase only now and then."""

    def __init__(self, label: str, stream: TextIO) -> None:
        self._label = f"{label}: " if label else ""
        self._stream = stream
        self._fold = Fold(RunProgress())
        self._progress_at = 0.0

    def take(self, kind: str, fields: Mapping[str, Any]) -> None:
        if kind == "log":
            return
        if kind == "state":
            self.note(fields["state"])
            return
        before = self._doing
        self._fold.take(FoldEvent(kind, dict(fields), 0), time.time())
        progress = self._fold.progress
        if kind == "metrics":
            self.note(_metrics_line(fields, progress))
        elif kind != "progress":
            self.note(event_line(kind, fields))
        elif self._doing != before or time.monotonic() - self._progress_at > _PROGRESS_EVERY_SECONDS:
            self._progress_at = time.monotonic()
            self.note(event_line(kind, fields))

    def note(self, text: str) -> None:
        print(f"{self._label}{text}", file=self._stream, flush=True)

    @property
    def _doing(self) -> tuple[str | None, str | None]:
        return self._fold.progress.phase, self._fold.progress.part

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stream.flush()


def _metrics_line(fields: Mapping[str, Any], progress: RunProgress) -> str:
    if fields.get("step") is None:
        return metrics_text(fields)
    steps = step_text({"step": fields["step"], "total_steps": progress.total_steps})
    eta = f"ETA {duration_text(progress.eta_seconds)}" if progress.eta_seconds is not None else ""
    return "  ".join(part for part in (steps, metrics_text(fields), eta) if part)


def speed_text(progress: RunProgress) -> str:
    """What the process says of its speed; else steps per second, from the time left."""
    for name, unit in _SPEEDS:
        if name in progress.metrics:
            return f"{number_text(progress.metrics[name])} {unit}"
    if not progress.eta_seconds or progress.total_steps is None or progress.step is None:
        return ""
    return f"{(progress.total_steps - progress.step) / progress.eta_seconds:.3g} steps/s"
