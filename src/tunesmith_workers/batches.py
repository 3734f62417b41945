"""Which rows come together, in which order, and how they become tensors. The order is a function of seed and epoch."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice

import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from tunesmith_workers.rendering import IGNORED, Rendered

_BATCHES_SORTED_TOGETHER = 32
"""Rows are sorted by length within so many batches: less padding, and still a fresh mix in every epoch."""


FIRST_BATCHES = 4
"""So many batches are compared to know that a preview and a training see the same."""


def in_batches(
    rows: Sequence[Rendered], order: Iterable[int], batch_size: int, padding: Padding
) -> Iterator[dict[str, Tensor]]:
    """The batches that a data loader makes of ``rows`` in this order."""
    positions = iter(order)
    while chosen := list(islice(positions, batch_size)):
        yield padding([rows[i] for i in chosen])


def sha256_of(batches: Iterable[Mapping[str, Tensor]]) -> str:
    """One hash over ``input_ids`` and ``labels`` of the first FIRST_BATCHES of them, shapes included."""
    found = hashlib.sha256()
    for batch in islice(batches, FIRST_BATCHES):
        for name in ("input_ids", "labels"):
            values = batch[name].cpu()
            found.update(f"{name} {tuple(values.shape)} {values.dtype}\n".encode())
            found.update(values.contiguous().numpy().tobytes())
    return found.hexdigest()


class RowDataset(Dataset[Rendered]):
    """The rows, as torch wants them."""

    def __init__(self, rows: Sequence[Rendered]) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Rendered:
        return self._rows[index]


class RowSampler(Sampler[int]):
    """A shuffled order of rows, with those of similar length side by side when ``group_by_length``."""

    def __init__(self, rows: Sequence[Rendered], batch_size: int, seed: int, *, group_by_length: bool) -> None:
        self._lengths = [len(row.input_ids) for row in rows]
        self._batch_size = batch_size
        self._seed = seed
        self._group_by_length = group_by_length
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self._lengths)

    def __iter__(self) -> Iterator[int]:
        source = torch.Generator().manual_seed(self._seed * 1_000_003 + self._epoch)
        order: list[int] = torch.randperm(len(self), generator=source).tolist()
        return iter(self._grouped(order, source) if self._group_by_length else order)

    def _grouped(self, order: list[int], source: torch.Generator) -> list[int]:
        size = self._batch_size * _BATCHES_SORTED_TOGETHER
        batches: list[list[int]] = []
        for start in range(0, len(order), size):
            block = sorted(order[start : start + size], key=self._lengths.__getitem__, reverse=True)
            batches += [block[i : i + self._batch_size] for i in range(0, len(block), self._batch_size)]
        # Only the last batch may be short, wherever it ends up: a short one in the middle would shift all that follow.
        short = [batch for batch in batches if len(batch) < self._batch_size]
        full = [batch for batch in batches if len(batch) == self._batch_size]
        mixed = [full[i] for i in torch.randperm(len(full), generator=source).tolist()]
        return [index for batch in mixed + short for index in batch]


class Padding:
    """Puts rows into tensors of one length, padded on the right."""

    def __init__(self, pad_token: int) -> None:
        self._pad_token = pad_token

    def __call__(self, rows: Sequence[Rendered]) -> dict[str, Tensor]:
        """``input_ids``, ``attention_mask`` and ``labels``, each (len(rows), longest row)."""
        length = max(len(row.input_ids) for row in rows)
        return {
            "input_ids": _padded([row.input_ids for row in rows], length, self._pad_token),
            "attention_mask": _padded([[1] * len(row.input_ids) for row in rows], length, 0),
            "labels": _padded([row.labels for row in rows], length, IGNORED),
        }


def _padded(values: Sequence[Sequence[int]], length: int, filler: int) -> Tensor:
    return torch.tensor([[*row, *[filler] * (length - len(row))] for row in values], dtype=torch.long)
