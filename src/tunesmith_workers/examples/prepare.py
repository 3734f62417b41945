"""From data files to what the trainer is fed: rendered rows, cut or dropped by policy, counted, and refused if senseless.

Everything that can be known to be wrong before training is found here, before a model is loaded.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from tunesmith_workers.examples.rendering import IGNORED, Rendered, Renderer, Watch
from tunesmith_workers.examples.rows import Row, read_rows, shapes_of
from tunesmith_workers.process.config import Data, TrainConfig
from tunesmith_workers.process.events import Paced, emit, emit_message, log
from tunesmith_workers.process.faults import BadRows

NEARLY_ALL = 0.995
"""A share of trained tokens from here on means that the mask has no effect."""


class Examples(msgspec.Struct, frozen=True):
    """Rows ready for training, and what happened on the way."""

    rows: list[Rendered]
    tokens: int
    trained_tokens: int
    cut: int
    dropped: int
    ended_by: frozenset[int]
    read: int
    """Rows that the rows come from: a conversation may have become several."""
    split_conversations: int
    hidden_tools: int = 0
    """Conversations whose tools the chat template leaves out."""

    @property
    def share_trained(self) -> float:
        # The first token of a row is never predicted, so it cannot be trained.
        return self.trained_tokens / max(self.tokens - len(self.rows), 1)

    @property
    def longest(self) -> int:
        return max((len(row.input_ids) for row in self.rows), default=0)


class Sample(msgspec.Struct, frozen=True):
    """What a preview does otherwise than a training."""

    read: Callable[[Path], list[Row]]
    """Instead of ``read_rows``: a preview need not read all of a large file."""
    watch: Watch
    """Is shown the training rows."""


def prepare(config: TrainConfig, tokenizer: Any, sample: Sample | None = None) -> tuple[Examples, Examples | None]:
    """The training rows, and the validation rows where the config asks for some.

    Raises:
        BadRows: the data cannot be used; everything that is wrong with the rows is named at once.
        BadConfig: the chat template is missing or cannot be used for training.
    """
    emit("progress", phase="tokenizing")
    read = sample.read if sample else read_rows
    rows = read(config.train_file)
    log(f"data: {len(rows)} rows in {config.train_file} ({shapes_of(rows)})")
    held_out = _validation_rows(config, rows, read)
    train = _examples(rows, config.data, tokenizer, "training", sample.watch if sample else None)
    _refuse_senseless_share(train, config.data)
    if not held_out or config.evaluation.strategy == "never":
        return train, None
    return train, _examples(held_out, config.data, tokenizer, "validation")


def prepare_test(config: TrainConfig, tokenizer: Any, sample: Sample | None = None) -> Examples | None:
    """The rows that the finished model is scored on, where the config names some.

    Raises:
        BadRows: they cannot be used.
    """
    if not config.data.test_file:
        return None
    rows = (sample.read if sample else read_rows)(Path(config.data.test_file))
    return _examples(rows, config.data, tokenizer, "test")


def _validation_rows(config: TrainConfig, rows: list[Row], read: Callable[[Path], list[Row]]) -> list[Row]:
    """Read them, or take them out of ``rows``."""
    if config.data.validation_file:
        return read(Path(config.data.validation_file))
    share = config.evaluation.holdout_share
    if not share:
        return []
    chosen = random.Random(config.training.seed).sample(range(len(rows)), max(1, round(len(rows) * share)))
    if len(chosen) >= len(rows):
        raise BadRows(
            f"holding out {share:.0%} of {len(rows)} rows leaves none to train on",
            where="evaluation.holdout_share",
            mend="lower it or give more rows",
        )
    held_out = [rows[i] for i in sorted(chosen)]
    for i in sorted(chosen, reverse=True):
        del rows[i]
    return held_out


def _examples(rows: list[Row], data: Data, tokenizer: Any, label: str, watch: Watch | None = None) -> Examples:
    renderer = Renderer(tokenizer, data.train_on, watch)
    paced = Paced()
    rendered = renderer.render(
        rows, lambda done: paced.emit("progress", phase="tokenizing", rows=done, total_rows=len(rows))
    )
    _refuse_unended(rendered)
    _refuse_overlong(rendered, data)
    fitting = [(row, fitted(row, data)) for row in rendered]
    kept = [row for _, row in fitting if row is not None]
    cut = sum(after is not None and after is not before for before, after in fitting)
    dropped = len(rendered) - len(kept)
    examples = Examples(
        rows=kept,
        tokens=sum(len(row.input_ids) for row in kept),
        trained_tokens=sum(count_trained(row) for row in kept),
        cut=cut,
        dropped=dropped,
        ended_by=frozenset[int]().union(*(row.ended_by for row in kept)),
        read=len(rows),
        split_conversations=renderer.split_rows,
        hidden_tools=renderer.hidden_tools,
    )
    _tell(examples, label, data)
    if not kept:
        raise BadRows(
            f"no {label} row is left: {dropped} were longer than {data.max_length} tokens",
            where="data.max_length",
            mend="raise it, or cut the rows with data.overlong: truncate",
        )
    return examples


def _tell(examples: Examples, label: str, data: Data) -> None:
    if examples.split_conversations:
        emit_message(
            f"{examples.split_conversations} {label} conversations became one row for each assistant turn: the chat template "
            "renders earlier turns differently once a conversation goes on"
        )
    if examples.hidden_tools:
        emit_message(hidden_tools_warning(examples.hidden_tools, label), level="warning")
    emit_message(
        f"{label}: {len(examples.rows)} rows, {examples.tokens} tokens, {examples.share_trained:.1%} of them trained, "
        f"longest {examples.longest}; {examples.cut} cut to {data.max_length} tokens, {examples.dropped} dropped"
    )


def hidden_tools_warning(count: int, label: str) -> str:
    """What is said of conversations with tools and a template without."""
    return (
        f"{count} {label} conversations have tools, and the chat template does not show them to the model; "
        "data.chat_template names another"
    )


def fitted(row: Rendered, data: Data) -> Rendered | None:
    """The row as it will be trained on: itself, cut, or None where it is dropped."""
    if len(row.input_ids) <= data.max_length:
        return row
    if data.overlong == "drop":
        return None
    cut = Rendered(row.input_ids[: data.max_length], row.labels[: data.max_length], row.where, row.ended_by)
    # A cut may leave nothing but the prompt; a row without any trained token teaches nothing.
    return cut if count_trained(cut) else None


def count_trained(row: Rendered) -> int:
    """How many of its tokens are trained. The first one is never predicted, so it cannot be."""
    return sum(label != IGNORED for label in row.labels[1:])


def _refuse_overlong(rendered: list[Rendered], data: Data) -> None:
    overlong = [row for row in rendered if len(row.input_ids) > data.max_length]
    if data.overlong == "error" and overlong:
        raise BadRows(
            f"{len(overlong)} rows are longer than {data.max_length} tokens, the longest has "
            f"{max(len(row.input_ids) for row in overlong)}",
            where=overlong[0].where,
            mend="raise data.max_length, or set data.overlong to truncate or drop",
        )


def _refuse_unended(rendered: list[Rendered]) -> None:
    unended = [row for row in rendered if row.unended]
    if unended:
        raise BadRows(
            f"in {len(unended)} rows an assistant turn has no end token after it, so the model would never learn to stop",
            where=unended[0].where,
            mend="use a chat template that ends each turn with a special token, such as data.chat_template: chatml",
        )


def _refuse_senseless_share(examples: Examples, data: Data) -> None:
    if examples.trained_tokens == 0:
        raise BadRows(
            "0 % of the tokens are trained: nothing would be learned",
            where="data.train_on",
            mend="give rows with assistant messages that are not excluded by weight 0",
        )
    if data.train_on == "assistant" and examples.share_trained >= NEARLY_ALL:
        raise BadRows(
            f"{examples.share_trained:.1%} of the tokens are trained, so the prompts are missing or not recognised",
            where="data.train_on",
            mend="give rows with prompts, or set data.train_on to all when training on whole texts is meant",
        )
