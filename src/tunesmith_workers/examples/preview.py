"""A preview of what a training would see: rows rendered, masked, counted and put into batches by the training's own code.

Nothing here decides how a row is rendered, cut, refused or ordered; see ``inputs``, ``prepare`` and ``batches``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from tunesmith_workers.data.tally import Lengths
from tunesmith_workers.examples.batches import FIRST_BATCHES, in_batches, sha256_of
from tunesmith_workers.examples.inputs import TrainingInputs, prepare_inputs
from tunesmith_workers.examples.order import RowSampler
from tunesmith_workers.examples.prepare import Examples, Sample, count_trained, fitted, hidden_tools_warning
from tunesmith_workers.examples.rendering import IGNORED, Rendered, Span
from tunesmith_workers.examples.rows import Row, read_rows
from tunesmith_workers.models.chat_templates import CHATML
from tunesmith_workers.process.config import Data, TrainConfig, as_config
from tunesmith_workers.process.faults import WorkerFault

_MOST_TOKENS_SHOWN = 4096
"""Of each row; a context of a million tokens helps nobody on a screen."""
_MOST_CHARACTERS_CUT = 2000
_PERCENTILES = (50, 90, 95, 99)


def preview(config: dict[str, Any], *, limit: int, most_rows: int) -> dict[str, Any]:
    """What a preview answers.

    Raises:
        WorkerFault: a training of this config would refuse the rows, the model or the config.
    """
    asked = as_config(TrainConfig, config, "config")
    sampled = _Sampled(limit, most_rows)
    try:
        inputs = prepare_inputs(asked, Sample(sampled.read, sampled.watch))
    except WorkerFault as fault:
        raise _said_of_part(fault, sampled) from fault
    return {
        "complete": sampled.complete,
        "rows": [_shown(inputs.tokenizer, inputs.config.data, *one) for one in sampled.shown],
        "train": {**_totals(inputs.train), "lengths": _lengths(sampled.lengths)},
        "validation": _totals(inputs.validation) if inputs.validation else None,
        "test": _totals(inputs.test) if inputs.test else None,
        "template": _template(inputs),
        "settings": _settings(inputs.config),
        "first_batches_sha256": _first_batches(inputs) if sampled.complete else None,
        "batches_hashed": FIRST_BATCHES,
        "warnings": list(_warnings(asked, inputs, sampled)),
    }


class _Sampled:
    """What is noticed while the rows are made ready."""

    def __init__(self, limit: int, most_rows: int) -> None:
        self.complete = True
        self.shown: list[tuple[Rendered, str, Sequence[Span]]] = []
        self.lengths: list[int] = []
        self._limit = limit
        self._most_rows = most_rows

    def read(self, path: Path) -> list[Row]:
        rows = read_rows(path, self._most_rows + 1)
        if len(rows) > self._most_rows:
            self.complete = False
            rows.pop()
        return rows

    def watch(self, row: Rendered, text: str, spans: Sequence[Span]) -> None:
        self.lengths.append(len(row.input_ids))
        if len(self.shown) < self._limit:
            self.shown.append((row, text, spans))


def _said_of_part(fault: WorkerFault, sampled: _Sampled) -> WorkerFault:
    # The words are the training's own; that they are about a part of the rows only is said beside them.
    if sampled.complete:
        return fault
    beside = "only the first rows were looked at; max_rows looks at more"
    return type(fault)(fault.text, where=fault.where, mend=f"{fault.mend}; {beside}" if fault.mend else beside)


def _shown(tokenizer: Any, data: Data, row: Rendered, text: str, spans: Sequence[Span]) -> dict[str, Any]:
    kept = fitted(row, data)
    ids = (kept or row).input_ids[:_MOST_TOKENS_SHOWN]
    pieces = _pieces(tokenizer, ids, text, spans)
    # The first token is never predicted, so it cannot be trained.
    mask = [place > 0 and label != IGNORED for place, label in enumerate(row.labels[: len(ids)])]
    read = sum(map(len, pieces)) if len(ids) < len(row.input_ids) else len(text)
    return {
        "where": row.where,
        "text": "".join(pieces),
        "token_ids": ids,
        "mask": mask,
        "pieces": pieces,
        "segments": _segments(pieces, mask),
        "length": len(row.input_ids),
        "length_kept": len(kept.input_ids) if kept else 0,
        "trained_tokens": count_trained(kept or row),
        "share_trained": _share(count_trained(kept or row), len((kept or row).input_ids) - 1),
        "cut": kept is not None and kept is not row,
        "dropped": kept is None,
        "tokens_shown": len(ids),
        "not_shown": text[read : read + _MOST_CHARACTERS_CUT],
    }


def _pieces(tokenizer: Any, ids: Sequence[int], text: str, spans: Sequence[Span]) -> list[str]:
    """The text of each token. Of several tokens that make up one character, the first one has it."""
    pieces: list[str] = []
    done = 0
    for place, token in enumerate(ids):
        start, end = spans[place] if place < len(spans) else (done, done)
        if start == end:
            # It stands for nothing in the text: the tokenizer has added it.
            pieces.append(str(tokenizer.convert_ids_to_tokens(token)))
            continue
        pieces.append(text[done:end])
        done = max(done, end)
    return pieces


def _segments(pieces: Sequence[str], mask: Sequence[bool]) -> list[dict[str, Any]]:
    """Tokens side by side that are all trained, or all not, as one text."""
    found: list[dict[str, Any]] = []
    for piece, trained in zip(pieces, mask, strict=True):
        if not found or found[-1]["trained"] != trained:
            found.append({"text": "", "trained": trained, "tokens": 0})
        found[-1]["text"] += piece
        found[-1]["tokens"] += 1
    return found


def _totals(examples: Examples) -> dict[str, Any]:
    return {
        "rows_read": examples.read,
        "rows": len(examples.rows),
        "tokens": examples.tokens,
        "trained_tokens": examples.trained_tokens,
        "share_trained": round(examples.share_trained, 4),
        "longest": examples.longest,
        "cut": examples.cut,
        "dropped": examples.dropped,
        "split_conversations": examples.split_conversations,
    }


def _lengths(lengths: list[int]) -> dict[str, Any]:
    """In tokens, before anything is cut or dropped."""
    found = Lengths()
    found.add(lengths)
    ordered = sorted(lengths)
    percentiles = {f"p{n}": ordered[min(len(ordered) * n // 100, len(ordered) - 1)] for n in _PERCENTILES}
    return {**found.told(), "percentiles": percentiles}


def _template(inputs: TrainingInputs) -> dict[str, Any]:
    template, wanted = inputs.tokenizer.chat_template, inputs.config.data.chat_template
    source = "model" if not wanted else "built-in" if wanted == CHATML else "file"
    digest = hashlib.sha256(template.encode()).hexdigest() if isinstance(template, str) else None
    return {"source": source, "sha256": digest}


def _settings(config: TrainConfig) -> dict[str, Any]:
    """All that decides what the model sees, and in which order."""
    training = config.training
    return {
        **msgspec.to_builtins(config.data),
        "model": config.base,
        "holdout_share": config.evaluation.holdout_share,
        "per_device_train_batch_size": training.per_device_train_batch_size,
        "group_by_length": training.group_by_length,
        "seed": training.seed,
    }


def _first_batches(inputs: TrainingInputs) -> str:
    rows, training = inputs.train.rows, inputs.config.training
    size = training.per_device_train_batch_size
    order = RowSampler(rows, size, training.seed, group_by_length=training.group_by_length)
    return sha256_of(in_batches(rows, order, size))


def _warnings(asked: TrainConfig, inputs: TrainingInputs, sampled: _Sampled) -> list[str]:
    found = []
    longest = inputs.config.data.max_length
    if longest != asked.data.max_length:
        found.append(f"data.max_length is {longest}, the longest text that the model can read")
    if inputs.train.split_conversations:
        found.append(
            f"{inputs.train.split_conversations} conversations become one row for each assistant turn: the chat template "
            "renders earlier turns differently once a conversation goes on"
        )
    if inputs.train.hidden_tools:
        found.append(hidden_tools_warning(inputs.train.hidden_tools, "training"))
    if not sampled.complete:
        found.append("there are more rows than were looked at: max_rows says how many are; a training reads all")
    return found


def _share(part: int, whole: int) -> float:
    return round(part / max(whole, 1), 4)
