"""All that a training has in hand before it loads any weights: the tokenizer with its template, and the rows.

A preview goes through here as well, so that what it shows is what is trained.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from tunesmith_workers.config import TrainConfig
from tunesmith_workers.examples import Examples, Glance, prepare, prepare_test
from tunesmith_workers.faults import BadConfig
from tunesmith_workers.models import load_config, load_tokenizer, longest_context
from tunesmith_workers.telling import note, tell
from tunesmith_workers.templates import choose_template


class Material(msgspec.Struct, frozen=True, kw_only=True):
    """What is trained on, and how."""

    config: TrainConfig
    """With a ``data.max_length`` that the model can read."""
    tokenizer: Any
    train: Examples
    validation: Examples | None
    test: Examples | None


def get_ready(config: TrainConfig, glance: Glance | None = None) -> Material:
    """Load the tokenizer, then read, render and judge the rows.

    Raises:
        WorkerFault: the config, the rows or the model cannot be used.
    """
    tell("progress", phase="loading_model", part="tokenizer")
    _refuse_adapter(config.base)
    with_weights = glance is None
    tokenizer = load_tokenizer(config.base, with_weights=with_weights)
    choose_template(tokenizer, config.data.chat_template)
    config = _within_context(config, with_weights=with_weights)
    train, validation = prepare(config, tokenizer, glance)
    test = prepare_test(config, tokenizer, glance)
    return Material(config=config, tokenizer=tokenizer, train=train, validation=validation, test=test)


def _refuse_adapter(base: str) -> None:
    if (Path(base) / "adapter_config.json").is_file():
        raise BadConfig(
            "is an adapter, and training starts from a whole model",
            where=f"model.base: {base}",
            mend="train it with lora.merge: true, or name the base model",
        )


def _within_context(config: TrainConfig, *, with_weights: bool) -> TrainConfig:
    longest = longest_context(load_config(config.base, with_weights=with_weights))
    if longest is None or config.data.max_length <= longest:
        return config
    note(f"data.max_length is {longest}, the longest text that the model can read", level="warning")
    return msgspec.structs.replace(config, data=msgspec.structs.replace(config.data, max_length=longest))
