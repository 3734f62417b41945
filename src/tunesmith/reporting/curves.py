"""A built-in recipe's run as a result of the finetune door: curves drawn from what its process has measured.

Read from metrics.jsonl, which is what the fold made of the log, and up to a byte of the log: each line says where it ends there.

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
from typing import Any, Literal, NamedTuple, TypeGuard

import msgspec

from tunesmith.runner import LogReader

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
_decode = msgspec.json.Decoder(dict[str, Any]).decode


class _Measured(NamedTuple):
    """One line of metrics.jsonl."""

    start: int
    end: int
    """Where it lies in metrics.jsonl."""
    log_offset: int
    """Where the line ends that it was made from, in the log."""
    fields: dict[str, Any]


class Curves:
    """The curves of one run, read from its metrics piece by piece."""

    def __init__(self, metrics: Path, measurement: Measurement, every: int) -> None:
        self._metrics = metrics
        self._measurement: Measurement = measurement
        self._every = every
        self.lock = threading.Lock()
        """For who shares this object: held while it is read and drawn."""
        self._first = self._seen = 0
        """From where on metrics.jsonl is of the log as it is now, and up to where that is known."""
        self._newest_log_offset = 0
        self._begin()

    def _begin(self) -> None:
        self._reported: list[tuple[int, dict[str, float]]] = []
        self._latest: dict[str, float] = {}
        """Of each curve, at the newest point."""
        self.newest = 0
        """The step or epoch that was measured last."""
        self._upto = 0
        """Everything that was measured up to this byte of the log is in the curves."""
        self._offset = self._first
        """And everything in metrics.jsonl before this byte."""

    @property
    def due(self) -> bool:
        """Whether the newest point is one to report."""
        before = self._reported[-1][0] if self._reported else 0
        return self.newest // self._every > before // self._every

    def read(self, upto: int) -> None:
        """Take in what was measured up to a byte of the log; from its start if more than that was taken in."""
        if self._is_of_another_log() or self._upto > upto:
            self._begin()
        for line in self._lines(self._offset):
            if line.log_offset > upto:
                break
            self._take(line.fields)
            self._offset = line.end
        self._upto = upto

    def _is_of_another_log(self) -> bool:
        """Whether the log was emptied and written anew since: then its offsets have begun again."""
        begun_again = False
        for line in self._lines(self._seen):
            if line.log_offset < self._newest_log_offset or line.start < self._seen:
                begun_again, self._first = True, line.start
            self._newest_log_offset, self._seen = line.log_offset, line.end
        return begun_again

    def _lines(self, start: int) -> Iterator[_Measured]:
        reader = LogReader(self._metrics, start)
        while lines := reader.read():
            for line in lines:
                try:
                    fields = _decode(line.content)
                except msgspec.DecodeError:
                    continue  # whatever else a program wrote there
                log_offset = fields.get("log_offset")
                if isinstance(log_offset, int):
                    yield _Measured(line.start, line.end, log_offset, fields)

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
    """The curves of the runs that were asked for last, so that metrics are not read from their start for each result."""

    def __init__(self) -> None:
        self._curves: OrderedDict[tuple[Path, Measurement, int], Curves] = OrderedDict()
        self._lock = threading.Lock()
        """Held while it is looked up which there are, and never while metrics are read."""

    def draw(
        self, metrics: Path, measurement: Measurement, every: int, *, upto: int, is_final: bool = False
    ) -> tuple[int, Figure]:
        """The newest step or epoch, and the figure, up to a byte of the log: always the same. From any thread."""
        with self._upto(metrics, measurement, every, upto) as curves:
            return curves.newest, curves.figure(is_final=is_final)

    def is_due(self, metrics: Path, measurement: Measurement, every: int, *, upto: int) -> bool:
        """Whether the newest point up to a byte of the log is one to report."""
        with self._upto(metrics, measurement, every, upto) as curves:
            return curves.due

    @contextmanager
    def _upto(self, metrics: Path, measurement: Measurement, every: int, upto: int) -> Iterator[Curves]:
        """The curves up to a byte of the log, as long as the block lasts. Only who asks for the same run waits for it."""
        key = (metrics, measurement, every)
        with self._lock:
            curves = self._curves.pop(key, None) or Curves(metrics, measurement, every)
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
