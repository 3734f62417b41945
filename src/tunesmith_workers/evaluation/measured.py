"""A metric of one model over rows, kept as sums by row, so that it can be computed for any choice of rows.

Every metric here is a function of sums over rows: a loss is all cross entropies over all tokens, BLEU comes from counts of
n-grams. That is what a bootstrap needs, and it weights rows as the metric itself does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """One metric of one model."""

    name: str
    sums: Numbers
    """(rows, statistics); zeros for a row that is left out."""
    present: NDArray[np.bool_]
    """(rows,): whether the row could be measured."""
    value: Callable[[Numbers], Numbers]
    """From sums over rows, (samples, statistics), to the metric, (samples,); NaN where there is nothing to measure."""
    by_row: tuple[float | None, ...]
    """What each row is worth by itself."""

    @property
    def rows(self) -> int:
        return int(self.present.sum())

    @property
    def overall(self) -> float:
        """The metric over all rows; NaN when none could be measured."""
        return float(self.value(self.sums.sum(axis=0, keepdims=True))[0])


def mean_of(name: str, scores: Sequence[float | None]) -> Measured:
    """A metric that is the mean of what rows are worth; None leaves a row out."""
    values = [0.0 if score is None else score for score in scores]
    counts = [0.0 if score is None else 1.0 for score in scores]
    return ratio_of(name, values, counts)


def ratio_of(
    name: str,
    above: Sequence[float],
    below: Sequence[float],
    finish: Callable[[Numbers], Numbers] = lambda ratio: ratio,
) -> Measured:
    """A metric that is one sum divided by another, such as cross entropies by tokens; ``finish`` makes it what is reported."""
    sums = np.array([above, below], dtype=np.float64).T.reshape(-1, 2)

    def value(totals: Numbers) -> Numbers:
        with np.errstate(divide="ignore", invalid="ignore"):
            return finish(totals[:, 0] / totals[:, 1])

    present = sums[:, 1] > 0
    by_row = value(sums).tolist()
    return Measured(
        name=name,
        sums=sums,
        present=present,
        value=value,
        by_row=tuple(score if there else None for score, there in zip(by_row, present, strict=True)),
    )


def perplexity_of(mean_loss: Numbers) -> Numbers:
    """The exponential of the loss, as large as a float can be at the most."""
    return np.exp(np.minimum(mean_loss, 700.0))
