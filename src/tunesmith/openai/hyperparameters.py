"""What "auto" becomes, and what a number means to a recipe. Pure: the rule that docs/openai.md tells, and nothing else.

Epochs: three, but at least enough of them to see 100 rows and at most as many as see 25,000: the rule by which OpenAI's own
data preparation tool chose. Batch: the recipe's own, halved while an epoch has fewer than 16 steps, doubled while it has more
than 1,000. Learning rate: the recipe's own times (7e9 / parameters) ** 0.4, between a quarter and five times of it, because
small models want larger steps; times the multiplier, which "auto" makes the square root of how the batch differs from the
recipe's, as the noise of Adam's steps scales.
"""

from __future__ import annotations

import math
from collections.abc import Container, Mapping
from typing import Annotated, Any, Literal

import msgspec

EPOCHS = "training.num_train_epochs"
BATCH = "training.per_device_train_batch_size"
ACCUMULATION = "training.gradient_accumulation_steps"
LEARNING_RATE = "training.learning_rate"
SAVE_STEPS = "checkpoint.save_steps"
LOGGING_STEPS = "training.logging_steps"

_TARGET_EPOCHS, _MOST_EPOCHS = 3, 25
_FEWEST_ROWS_SEEN, _MOST_ROWS_SEEN = 100, 25_000
_FEWEST_STEPS, _MOST_STEPS = 16, 1000
_MOST_AUTO_BATCH = 64
_MOST_TOLD_EPOCHS = 10**9
_USUAL_PARAMETERS, _SIZE_EXPONENT = 7e9, 0.4
_LEAST_FACTOR, _LARGEST_FACTOR = 0.25, 5.0
_DIGITS = 6

Auto = Literal["auto"]


class Requested(msgspec.Struct, frozen=True, kw_only=True):
    """Hyperparameters as a request has them. Those of other methods may be there, too."""

    n_epochs: Annotated[int, msgspec.Meta(ge=1, le=10_000)] | Auto | None = "auto"
    """How often every row is seen."""
    batch_size: Annotated[int, msgspec.Meta(ge=1, le=65_536)] | Auto | None = "auto"
    """Rows of one optimizer step."""
    learning_rate_multiplier: Annotated[float, msgspec.Meta(gt=0, le=1000)] | Auto | None = "auto"
    """Of the learning rate that the recipe and the model's size give."""


class Chosen(msgspec.Struct, frozen=True, kw_only=True):
    """What they have become."""

    n_epochs: int
    batch_size: int
    learning_rate_multiplier: float


class Basis(msgspec.Struct, frozen=True, kw_only=True):
    """What the choice depends on."""

    rows: int
    parameters: int | None
    """Of the base model; None: nobody knows."""
    batch: int
    """Of the recipe, rows of one optimizer step."""
    part: int
    """Of the recipe, rows that are computed at a time: what fits the memory."""
    learning_rate: float
    """Of the recipe."""

    @property
    def model_learning_rate(self) -> float:
        """What a multiplier of 1 stands for."""
        return self.learning_rate * size_factor(self.parameters)


def given(requested: Requested, usual_part: int) -> dict[str, Any]:
    """What the numbers of a request are to the config, by dotted path. The learning rate waits for the model's size.
    ``usual_part`` is how many rows the recipe computes at a time.
    """
    values: dict[str, Any] = {}
    if isinstance(requested.n_epochs, int):
        values[EPOCHS] = requested.n_epochs
    if isinstance(requested.batch_size, int):
        values |= _split(requested.batch_size, usual_part)
    return values


def choose(requested: Requested, basis: Basis, config: Mapping[str, Any], decided: Container[str]) -> dict[str, Any]:
    """What the config is to say, by dotted path. ``config`` has its options as they are; the decided ones stay that way."""
    wanted: dict[str, Any] = {EPOCHS: float(_epochs(basis.rows))}
    if not {BATCH, ACCUMULATION} & {path for path in config if path in decided}:
        wanted |= _split(_batch(basis.rows, basis.batch), basis.part)
    batch = math.prod({**config, **wanted}[path] for path in (BATCH, ACCUMULATION))
    asked = requested.learning_rate_multiplier
    multiplier = math.sqrt(batch / basis.batch) if asked in (None, "auto") else float(asked or 1)
    wanted[LEARNING_RATE] = _rounded(basis.model_learning_rate * multiplier)
    wanted[SAVE_STEPS] = max(1, math.ceil(basis.rows / batch))  # a checkpoint after each epoch
    wanted[LOGGING_STEPS] = 1
    return {path: value for path, value in wanted.items() if path in config and path not in decided}


def chosen_in(config: Mapping[str, Any], basis: Basis) -> Chosen:
    """What a config's options say, in the words of the request."""
    return Chosen(
        n_epochs=max(1, math.ceil(min(config[EPOCHS], _MOST_TOLD_EPOCHS))),
        batch_size=config[BATCH] * config[ACCUMULATION],
        learning_rate_multiplier=_rounded(config[LEARNING_RATE] / basis.model_learning_rate),
    )


def size_factor(parameters: int | None) -> float:
    """How much larger steps a model of this size wants than one of seven billion parameters."""
    if parameters is None:
        return 1.0
    return min(_LARGEST_FACTOR, max(_LEAST_FACTOR, math.pow(_USUAL_PARAMETERS / parameters, _SIZE_EXPONENT)))


def _rounded(number: float) -> float:
    return float(f"{number:.{_DIGITS}g}")


def _epochs(rows: int) -> int:
    rows = max(1, rows)
    if rows * _TARGET_EPOCHS < _FEWEST_ROWS_SEEN:
        return min(_MOST_EPOCHS, _FEWEST_ROWS_SEEN // rows)
    if rows * _TARGET_EPOCHS > _MOST_ROWS_SEEN:
        return max(1, _MOST_ROWS_SEEN // rows)
    return _TARGET_EPOCHS


def _batch(rows: int, usual: int) -> int:
    batch = usual
    while batch > 1 and rows / batch < _FEWEST_STEPS:
        batch //= 2
    while 2 * batch <= max(usual, _MOST_AUTO_BATCH) and rows / batch > _MOST_STEPS:
        batch *= 2
    return batch


def _split(batch: int, usual: int) -> dict[str, int]:
    """A batch as parts that fit the memory as the recipe's own does, and how many of them make a step."""
    part = max(size for size in range(1, min(batch, max(1, usual)) + 1) if batch % size == 0)
    return {BATCH: part, ACCUMULATION: batch // part}
