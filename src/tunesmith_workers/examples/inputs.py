"""All that a training has in hand before it loads any weights: the tokenizer with its template, and the rows.

A preview goes through here as well, so that what it shows is what is trained.
"""

from __future__ import annotations

from typing import Any

import msgspec

from tunesmith_workers.examples.prepare import Examples, Sample, prepare, prepare_test
from tunesmith_workers.models.chat_templates import choose_template
from tunesmith_workers.models.loading import load_config, load_tokenizer, longest_context
from tunesmith_workers.models.starting_point import starting_point
from tunesmith_workers.process.config import TrainConfig
from tunesmith_workers.process.events import emit, emit_message


class TrainingInputs(msgspec.Struct, frozen=True, kw_only=True):
    """What is trained on, and how."""

    config: TrainConfig
    """With a ``data.max_length`` that the model can read."""
    tokenizer: Any
    train: Examples
    validation: Examples | None
    test: Examples | None


def prepare_inputs(config: TrainConfig, sample: Sample | None = None) -> TrainingInputs:
    """Load the tokenizer, then read, render and judge the rows.

    Raises:
        WorkerFault: the config, the rows or the model cannot be used.
    """
    emit("progress", phase="loading_model", part="tokenizer")
    start, with_weights = starting_point(config), sample is None
    tokenizer = load_tokenizer(start.tokenizer, with_weights=with_weights)
    choose_template(tokenizer, config.data.chat_template)
    config = _within_context(config, start.base, with_weights=with_weights)
    train, validation = prepare(config, tokenizer, sample)
    test = prepare_test(config, tokenizer, sample)
    return TrainingInputs(config=config, tokenizer=tokenizer, train=train, validation=validation, test=test)


def _within_context(config: TrainConfig, base: str, *, with_weights: bool) -> TrainConfig:
    longest = longest_context(load_config(base, with_weights=with_weights))
    if longest is None or config.data.max_length <= longest:
        return config
    emit_message(f"data.max_length is {longest}, the longest text that the model can read", level="warning")
    return msgspec.structs.replace(config, data=msgspec.structs.replace(config.data, max_length=longest))
