"""How sure a score is, and whether another model is better on the same rows: a paired bootstrap over rows.

Rows are drawn again, as many as there are, with replacement; every metric is computed for each such draw. All models get the
same draws, so that what makes a row hard for all of them cancels out. Percentile intervals; see Efron and Tibshirani, An
Introduction to the Bootstrap (1993), chapters 13 and 16.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import msgspec
import numpy as np

from tunesmith_workers.evaluation.measured import Measured, Numbers
from tunesmith_workers.evaluation.metrics import kind_of

RESAMPLES = 10_000
SEED = 0
_LEVELS = (2.5, 97.5)
_AT_ONCE = 4_000_000
"""Drawn rows that are held in memory together."""


class Interval(msgspec.Struct, frozen=True):
    """Where 95 % of the draws lie."""

    low: float
    high: float


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """One metric of another model, less that of the first model, on the rows that both could be measured on."""

    metric: str
    model: str
    baseline: str
    rows: int
    difference: float | None
    low: float | None = None
    high: float | None = None
    verdict: str


def intervals(measured: Sequence[Measured]) -> list[Interval | None]:
    """Of each metric over the same rows; None where fewer than two rows could be measured."""
    found = _bootstrap([(one.sums, one.value) for one in measured])
    return [interval if one.rows > 1 else None for one, interval in zip(measured, found, strict=True)]


def differences(baseline: str, model: str, first: Sequence[Measured], other: Sequence[Measured]) -> list[Difference]:
    """Of each metric that both models have."""
    by_name = {one.name: one for one in other}
    pairs = [(one, by_name[one.name]) for one in first if one.name in by_name]
    found = _bootstrap([_paired(*pair) for pair in pairs])
    return [_difference(baseline, model, *pair, interval) for pair, interval in zip(pairs, found, strict=True)]


def verdict_of(difference: float, interval: Interval | None, sign: int) -> str:
    """Plain words for a difference; ``sign`` is -1 where lower is better."""
    if interval is None:
        return "too few rows to tell"
    if interval.low <= 0 <= interval.high:
        return f"no clear difference ({_number(interval.low)} to {_number(interval.high)})"
    word = "better" if difference * sign > 0 else "worse"
    near, far = sorted((abs(interval.low), abs(interval.high)))
    return f"{word} by {_number(abs(difference))} ({_number(near)} to {_number(far)})"


def _difference(baseline: str, model: str, one: Measured, two: Measured, interval: Interval | None) -> Difference:
    rows = int((one.present & two.present).sum())
    found = Difference(metric=one.name, model=model, baseline=baseline, rows=rows, difference=None, verdict="")
    kind = kind_of(one.name)
    if kind.needs == "tokens" and not _same_tokens(one, two):
        reason = "cannot be compared: the models split the rows into different tokens"
        return msgspec.structs.replace(found, verdict=reason)
    sums, value = _paired(one, two)
    difference = float(value(sums.sum(axis=0, keepdims=True))[0])
    if not rows or not math.isfinite(difference):
        return msgspec.structs.replace(found, verdict="there is no row that both could be measured on")
    shown = interval if rows > 1 else None
    return msgspec.structs.replace(
        found,
        difference=difference,
        low=shown.low if shown else None,
        high=shown.high if shown else None,
        verdict=verdict_of(difference, shown, kind.sign),
    )


def _same_tokens(one: Measured, two: Measured) -> bool:
    """Whether both scored as many tokens of each row that both could score: a loss is a mean over tokens."""
    both = one.present & two.present
    return bool(np.array_equal(one.sums[both, 1], two.sums[both, 1]))


def _paired(one: Measured, two: Measured) -> tuple[Numbers, Callable[[Numbers], Numbers]]:
    both = (one.present & two.present)[:, None]
    width = one.sums.shape[1]

    def value(sums: Numbers) -> Numbers:
        return two.value(sums[:, width:]) - one.value(sums[:, :width])

    return np.hstack([one.sums * both, two.sums * both]), value


def _bootstrap(groups: Sequence[tuple[Numbers, Callable[[Numbers], Numbers]]]) -> list[Interval | None]:
    if not groups:
        return []
    together = np.hstack([sums for sums, _ in groups])
    drawn = np.concatenate([counts @ together for counts in _draws(len(together))])
    found, column = [], 0
    for sums, value in groups:
        width = sums.shape[1]
        found.append(_interval(value(drawn[:, column : column + width])))
        column += width
    return found


def _draws(rows: int) -> Iterator[Numbers]:
    """How often each row is drawn, (draws, rows), in parts that fit in memory."""
    source = np.random.default_rng(SEED)
    at_once = max(1, min(RESAMPLES, _AT_ONCE // rows))
    for start in range(0, RESAMPLES, at_once):
        draws = min(at_once, RESAMPLES - start)
        chosen = source.integers(rows, size=(draws, rows)) + np.arange(draws)[:, None] * rows
        yield np.bincount(chosen.ravel(), minlength=draws * rows).reshape(draws, rows).astype(np.float64)


def _interval(values: Numbers) -> Interval | None:
    usable = values[np.isfinite(values)]
    if not len(usable):
        return None
    low, high = np.percentile(usable, _LEVELS)
    return Interval(float(low), float(high))


def _number(value: float) -> str:
    """Two digits that matter, never as a power of ten where people can read it otherwise."""
    if value == 0:
        return "0"
    digits = 2 if abs(value) >= 0.01 else 1 - math.floor(math.log10(abs(value)))
    return f"{value:.{min(digits, 6)}f}"
