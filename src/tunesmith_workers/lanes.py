"""Parts of a batch side by side on a CPU, each on a thread of its own instead of all threads on each operation.

An operation of a small model is over in microseconds, and threads that share it wait for each other thousands of times
in a step. On an idle machine that costs little; with anything else running, each wait may last until the scheduler comes
around, and a step takes ten times as long. Lanes meet once in a step. Results do not depend on which is faster.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

Item = TypeVar("Item")
Result = TypeVar("Result")

_MOST = 4
"""More lanes make parts of a batch too small to keep a thread busy; what is left goes into threads for each."""


class Lanes:
    """A fixed number of threads, each with its share of the machine's."""

    def __init__(self, count: int) -> None:
        self.count = count
        threads = max(1, torch.get_num_threads() // count)
        self._pool = ThreadPoolExecutor(count, "lane", initializer=torch.set_num_threads, initargs=(threads,))

    def map(self, work: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
        """What ``work`` makes of each item, in their order. Raises what it raises."""
        return list(self._pool.map(work, items))


def lanes_for(model: nn.Module) -> Lanes | None:
    """Lanes where they help and change nothing: on a CPU, without dropout, whose random numbers all lanes would share."""
    drops = any(isinstance(module, nn.Dropout) and module.p > 0 for module in model.modules())
    config = getattr(model, "config", None)
    drops = drops or bool(getattr(config, "attention_dropout", 0.0))
    count = min(torch.get_num_threads(), _MOST)
    if drops or count < 2 or next(model.parameters()).device.type != "cpu":
        return None
    return Lanes(count)


def split(batch: Mapping[str, Tensor], count: int) -> list[dict[str, Any]]:
    """The rows of a batch in up to ``count`` parts, padded no further than each part needs.

    Rows come sorted by length, so each part takes every ``count``-th.
    """
    parts = []
    for number in range(min(count, len(batch["input_ids"]))):
        mask = batch["attention_mask"][number::count]
        length = int(mask.sum(1).max())
        parts.append({name: value[number::count, :length] for name, value in batch.items()})
    return parts
