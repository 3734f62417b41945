"""A built-in recipe's run as a result of the finetune door: curves drawn from what its process has printed. Reads run.log.

A curve has a value at each point that is reported: every so many steps or epochs, and at the end the last. It is the
latest that was measured up to there, so there are no gaps; a curve without a value at the first point is left out.
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, TypeGuard

from tunesmith.runner import LogReader
from tunesmith.runs.fold import read_event

Measurement = Literal["step", "epoch"]
Figure = dict[str, Any]
_SLACK = 1e-6
_MOST_RUNS_KEPT = 32
# Which curve a metric belongs to.
_CURVES = {
    "loss": "losses",
    "token_accuracy": "accuracies",
    "accuracy": "accuracies",
    "eval_loss": "valid_losses",
    "eval_token_accuracy": "valid_accuracies",
    "eval_accuracy": "valid_accuracies",
}
_NAMES = tuple(dict.fromkeys(_CURVES.values()))


class Curves:
    """The curves of one run, read from its log piece by piece."""

    def __init__(self, log: Path, measurement: Measurement, every: int) -> None:
        self._log = log
        self._measurement: Measurement = measurement
        self._every = every
        self.lock = threading.Lock()
        """For who shares this object: held while it is read and drawn."""
        self._begin()

    def _begin(self) -> None:
        self._reported: list[tuple[int, dict[str, float]]] = []
        self._latest: dict[str, float] = {}
        """Of each curve, at the newest point."""
        self.newest = 0
        """The step or epoch that was measured last."""
        self.offset = 0
        """Everything in the log before this byte is in the curves."""

    @property
    def due(self) -> bool:
        """Whether the newest point is one to report."""
        before = self._reported[-1][0] if self._reported else 0
        return self.newest // self._every > before // self._every

    def read(self, upto: int) -> None:
        """Take in the log up to a byte, at which a line ends; from its start if more than that was taken in."""
        if self.offset > upto:
            self._begin()
        reader = LogReader(self._log, self.offset)
        while lines := reader.read(at_end=True):
            for line in lines:
                if line.end > upto:
                    return
                event = read_event(line)
                if event.kind == "metrics":
                    self._take(event.fields)
                self.offset = line.end

    def figure(self, *, is_final: bool) -> Figure:
        """The ``fig_param`` at this byte of the log."""
        newest = [(self.newest, self._latest)] if self.newest and (self.due or is_final) else []
        points = [point for point in self._reported + newest if "losses" in point[1]]
        figure: Figure = {"x_axis": [x for x, _ in points], "x_label": self._measurement}
        for name in _NAMES:
            complete = bool(points) and name in points[0][1]
            figure[name] = [values[name] for _, values in points] if complete else []
        return figure

    def _take(self, fields: dict[str, Any]) -> None:
        x = place(fields, self._measurement)
        values = {_CURVES[name]: value for name, value in fields.items() if name in _CURVES and _is_number(value)}
        if x is None or not values:
            return
        if x < self.newest:
            self._go_back(x)
        elif x > self.newest and self.due:
            self._reported.append((self.newest, dict(self._latest)))
        self.newest = x
        self._latest.update(values)

    def _go_back(self, x: int) -> None:
        """An attempt has begun at an earlier checkpoint: what came after it is measured once more."""
        while self._reported and self._reported[-1][0] >= x:
            self._reported.pop()
        self._latest = dict(self._reported[-1][1]) if self._reported else {}


class CurveBook:
    """The curves of the runs that were asked for last, so that a log is not read from its start for each result."""

    def __init__(self) -> None:
        self._curves: OrderedDict[tuple[Path, Measurement, int], Curves] = OrderedDict()
        self._lock = threading.Lock()
        """Held while it is looked up which there are, and never while a log is read."""

    def draw(
        self, log: Path, measurement: Measurement, every: int, *, upto: int, is_final: bool = False
    ) -> tuple[int, Figure]:
        """The newest step or epoch, and the figure, up to a byte of the log: always the same. From any thread."""
        with self._upto(log, measurement, every, upto) as curves:
            return curves.newest, curves.figure(is_final=is_final)

    def is_due(self, log: Path, measurement: Measurement, every: int, *, upto: int) -> bool:
        """Whether the newest point up to a byte of the log is one to report."""
        with self._upto(log, measurement, every, upto) as curves:
            return curves.due

    @contextmanager
    def _upto(self, log: Path, measurement: Measurement, every: int, upto: int) -> Iterator[Curves]:
        """The curves up to a byte of the log, as long as the block lasts. Only who asks for the same run waits for it."""
        key = (log, measurement, every)
        with self._lock:
            curves = self._curves.pop(key, None) or Curves(log, measurement, every)
            self._curves[key] = curves
            if len(self._curves) > _MOST_RUNS_KEPT:
                self._curves.popitem(last=False)
        with curves.lock:
            curves.read(upto)
            yield curves


def place(fields: dict[str, Any], measurement: Measurement) -> int | None:
    """The step, or the epoch that this belongs to: what is measured in the middle of one counts for its end."""
    value = fields.get(measurement)
    return max(1, math.ceil(value - _SLACK)) if _is_number(value) else None


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
