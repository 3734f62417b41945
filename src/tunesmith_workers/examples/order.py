"""Which rows come together, and in which order: a function of seed and epoch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import Dataset, Sampler

from tunesmith_workers.examples.rendering import Rendered

_BATCHES_SORTED_TOGETHER = 32
"""Rows are sorted by length within so many batches: rows of a batch are alike, and still a fresh mix in every epoch."""


class RowDataset(Dataset[Rendered]):
    """The rows, as torch wants them."""

    def __init__(self, rows: Sequence[Rendered]) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Rendered:
        return self._rows[index]


class RowSampler(Sampler[int]):
    """A shuffled order of rows, with those of similar length in one batch when ``group_by_length``."""

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
