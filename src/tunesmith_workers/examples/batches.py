"""How rows become tensors: one after the other, without padding. Who feeds a model pads them, or packs them.

The rows of a batch are never separated again from how they are kept here, so no row is padded, cut and unpadded.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate, islice
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from tunesmith_workers.examples.rendering import IGNORED, Rendered

Batch = Mapping[str, Any]
"""``input_ids`` and ``labels`` of all rows, each (tokens,), and ``lengths``, how many tokens each row has."""

FIRST_BATCHES = 4
"""So many batches are compared to know that a preview and a training see the same."""


def concatenate(rows: Sequence[Rendered]) -> dict[str, Any]:
    """A batch of these rows."""
    return {
        "input_ids": torch.tensor([token for row in rows for token in row.input_ids], dtype=torch.long),
        "labels": torch.tensor([label for row in rows for label in row.labels], dtype=torch.long),
        "lengths": tuple(len(row.input_ids) for row in rows),
    }


def to_device(batch: Batch, device: Any) -> dict[str, Any]:
    """The batch with its tensors on ``device``."""
    return {name: value.to(device) if isinstance(value, Tensor) else value for name, value in batch.items()}


def rows_of(batch: Batch, name: str = "input_ids") -> list[Tensor]:
    """The rows of one tensor of a batch, each (length,)."""
    return list(torch.split(batch[name], batch["lengths"]))


def take(batch: Batch, chosen: slice) -> dict[str, Any]:
    """Some rows of a batch, as a batch. Whatever it holds has to be by token, or by row.

    Raises:
        ValueError: it holds something else.
    """
    return {name: _taken(batch, name, chosen) for name in batch}


def _taken(batch: Batch, name: str, chosen: slice) -> Any:
    value, lengths = batch[name], batch["lengths"]
    if isinstance(value, Tensor) and len(value) == sum(lengths):
        return torch.cat(rows_of(batch, name)[chosen])
    if len(value) == len(lengths):
        return value[chosen]
    raise ValueError(f"{name} has {len(value)} entries, for {len(lengths)} rows of {sum(lengths)} tokens")


def targets_of(batch: Batch) -> Tensor:
    """What the model should say at each position, (tokens,): the label of the row's next token, or ``IGNORED``."""
    targets: Tensor = batch["labels"].roll(-1)
    targets[[end - 1 for end in accumulate(batch["lengths"])]] = IGNORED
    return targets


def count_trained(batch: Batch) -> Tensor:
    """How many positions of a batch contribute to the loss."""
    return (targets_of(batch) != IGNORED).sum()


def pad(batch: Batch, pad_token: int) -> dict[str, Tensor]:
    """``input_ids``, ``attention_mask`` and ``labels``, each (rows, longest row), padded on the right."""
    ids = rows_of(batch)
    return {
        "input_ids": pad_sequence(ids, batch_first=True, padding_value=pad_token),
        "attention_mask": pad_sequence([torch.ones_like(row) for row in ids], batch_first=True),
        "labels": pad_sequence(rows_of(batch, "labels"), batch_first=True, padding_value=IGNORED),
    }


def in_batches(rows: Sequence[Rendered], order: Iterable[int], batch_size: int) -> Iterator[dict[str, Any]]:
    """The batches that a data loader makes of ``rows`` in this order."""
    positions = iter(order)
    while chosen := list(islice(positions, batch_size)):
        yield concatenate([rows[i] for i in chosen])


def sha256_of(batches: Iterable[Batch]) -> str:
    """One hash over the tokens, labels and lengths of the first FIRST_BATCHES of them."""
    found = hashlib.sha256()
    for batch in islice(batches, FIRST_BATCHES):
        found.update(f"{batch['lengths']}\n".encode())
        for name in ("input_ids", "labels"):
            found.update(batch[name].cpu().contiguous().numpy().tobytes())
    return found.hexdigest()
