"""Cross entropy and choices of a model over the tokens of the given answers, kept by row. Asks the model for no answer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec
import torch

from tunesmith_workers.evaluation.measured import Measured, perplexity_of, ratio_of
from tunesmith_workers.examples.batches import concatenate, count_trained, rows_of, targets_of, to_device
from tunesmith_workers.examples.rendering import IGNORED, Rendered
from tunesmith_workers.objectives.cross_entropy import cross_entropies
from tunesmith_workers.objectives.trained_logits import TrainedLogits
from tunesmith_workers.process.events import emit_message
from tunesmith_workers.process.faults import BadRows


class TokenScores(msgspec.Struct, frozen=True, kw_only=True):
    """By row of the data."""

    loss: tuple[float, ...]
    """The sum of the cross entropies of its scored tokens."""
    tokens: tuple[int, ...]
    """How many there are; none in a row that was left out."""
    right: tuple[int, ...] | None
    """How many of them the model would have chosen itself; None where that cannot be told."""


def fitting(rendered: Sequence[Rendered], longest: int) -> list[Rendered]:
    """The rows that are not too long, the longest first, so that what does not fit in memory shows at once.

    Raises:
        BadRows: there is none.
    """
    kept = [row for row in rendered if len(row.input_ids) <= longest]
    if not kept:
        raise BadRows(f"every row is longer than {longest} tokens", where="data.max_length", mend="raise it")
    if len(kept) < len(rendered):
        emit_message(f"{len(rendered) - len(kept)} rows longer than data.max_length are left out", level="warning")
    return sorted(kept, key=lambda row: len(row.input_ids), reverse=True)


def score_tokens(
    model: Any,
    rows: Sequence[Rendered],
    places: Mapping[str, int],
    *,
    pad_token: int,
    batch_size: int,
    progress: Callable[[int], None] = lambda _: None,
) -> TokenScores:
    """Score rendered rows.

    Args:
        model: any causal language model of transformers.
        rows: what was rendered of the data; several may be of one row.
        places: which row of the data each ``where`` is.
        pad_token: what shorter rows are filled up with.
        batch_size: how many are scored together.
        progress: told how many rendered rows are done.
    """
    logits = TrainedLogits(model, pad_token)
    score = _score_batch if logits.gathers else _score_by_own_loss
    loss, tokens, right = [0.0] * len(places), [0] * len(places), [0] * len(places)
    for start in range(0, len(rows), batch_size):
        batch = rows[start : start + batch_size]
        with torch.inference_mode():
            found = score(logits, model, batch)
        for row, (row_loss, row_tokens, row_right) in zip(batch, found, strict=True):
            place = places[row.where]
            loss[place] += row_loss
            tokens[place] += row_tokens
            right[place] += row_right
        progress(start + len(batch))
    return TokenScores(loss=tuple(loss), tokens=tuple(tokens), right=tuple(right) if logits.gathers else None)


def token_metrics(names: Sequence[str], scores: TokenScores) -> list[Measured]:
    """The metrics among ``names`` that come from tokens; those that cannot be told are left out, and that is said."""
    if not any(scores.tokens):
        emit_message("no row has a token to score: loss, perplexity and accuracy are left out", level="warning")
        return []
    if scores.right is None and {"accuracy", "token_accuracy"}.intersection(names):
        emit_message(
            "accuracy is left out: what this model would say itself cannot be told from its own loss", level="warning"
        )
    found = []
    for name in names:
        if name == "loss":
            found.append(ratio_of(name, scores.loss, scores.tokens))
        elif name == "perplexity":
            found.append(ratio_of(name, scores.loss, scores.tokens, perplexity_of))
        elif name in ("accuracy", "token_accuracy") and scores.right is not None:
            found.append(ratio_of(name, scores.right, scores.tokens))
    return found


_Found = Iterable[tuple[float, int, int]]
"""Of each row: its summed cross entropy, its scored tokens, and those that the model would have chosen."""


def _score_batch(logits: TrainedLogits, model: Any, rows: Sequence[Rendered]) -> _Found:
    batch = to_device(concatenate(rows), model.device)
    predicted, wanted = logits(model, batch)
    losses = cross_entropies(predicted, wanted).double()
    chosen = predicted.argmax(-1) == wanted
    targets = {**batch, "targets": targets_of(batch)}
    counts = [int((row != IGNORED).sum()) for row in rows_of(targets, "targets")]
    return [
        (float(loss.sum()), count, int(right.sum()))
        for loss, right, count in zip(torch.split(losses, counts), torch.split(chosen, counts), counts, strict=True)
    ]


def _score_by_own_loss(logits: TrainedLogits, model: Any, rows: Sequence[Rendered]) -> _Found:
    """A model's own loss is one number for a batch, so rows are run one by one; it says nothing about choices."""
    found = []
    for row in rows:
        batch = to_device(concatenate([row]), model.device)
        tokens = int(count_trained(batch))
        loss = float(logits.own_outputs(model, batch).loss.double()) * tokens if tokens else 0.0
        found.append((loss, tokens, 0))
    return found
