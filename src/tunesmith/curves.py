"""A built-in recipe's run as a result of the finetune door: curves drawn from what its process has printed. Reads run.log.

The log is read from its start each time. Results are few, so that this stays cheaper than keeping curves of every run.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from tunesmith.runner import LogReader
from tunesmith.runs.fold import Event, read_event

Measurement = Literal["step", "epoch"]
_SLACK = 1e-6
# Which curve a metric belongs to.
_CURVES = {
    "loss": "losses",
    "token_accuracy": "accuracies",
    "accuracy": "accuracies",
    "eval_loss": "valid_losses",
    "eval_token_accuracy": "valid_accuracies",
    "eval_accuracy": "valid_accuracies",
}


def draw(log: Path, upto: int | None, measurement: Measurement) -> tuple[int, dict[str, Any]]:
    """The newest step or epoch, and the ``fig_param`` up to a byte of the log; a gap in a curve is None."""
    points: dict[int, dict[str, Any]] = {}
    for event in _metrics(log, upto):
        x = place(event.fields, measurement)
        if x is not None:
            point = points.setdefault(x, {})
            point.update({_CURVES[name]: value for name, value in event.fields.items() if name in _CURVES})
    points = {x: point for x, point in sorted(points.items()) if point}
    figure: dict[str, Any] = {"x_axis": list(points), "x_label": measurement}
    for curve in ("losses", "accuracies", "valid_losses", "valid_accuracies"):
        values = [point.get(curve) for point in points.values()]
        figure[curve] = values if curve == "losses" or any(value is not None for value in values) else []
    return max(points, default=0), figure


def place(fields: dict[str, Any], measurement: Measurement) -> int | None:
    """The step, or the epoch that this belongs to: what is measured in the middle of one counts for its end."""
    value = fields.get(measurement)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return max(1, math.ceil(value - _SLACK))


def _metrics(log: Path, upto: int | None) -> Iterator[Event]:
    reader = LogReader(log)
    while lines := reader.read(at_end=True):
        for line in lines:
            if upto is not None and line.end > upto:
                return
            event = read_event(line)
            if event.kind == "metrics":
                yield event
