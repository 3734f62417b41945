"""The loss and the metrics of a model over batches, weighted by item."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import torch

from tunesmith_workers.examples.batches import Batch
from tunesmith_workers.objectives.base import BatchLoss
from tunesmith_workers.process.events import Paced


def score(
    batches: Any, loss_of: Callable[[Batch], BatchLoss], *, accelerator: Any, stopped: Callable[[], bool]
) -> dict[str, float] | None:
    """``loss`` and each metric that could be measured in every batch; None when it was stopped in the middle.

    ``batches`` is a data loader. Where several processes score, each has its share of them.
    """
    sums: Counter[str] = Counter()
    seen: Counter[str] = Counter()
    paced, count = Paced(), len(batches)
    for number, batch in enumerate(batches, start=1):
        with accelerator.autocast():
            found = loss_of(batch)
        sums.update({"loss": float(found.total), "items": found.items})
        sums.update({name: float(value) for name, value in found.measured.items()})
        seen.update(found.measured.keys())
        paced.emit("progress", phase="evaluating", batch=number, total_batches=count)
        if stopped():
            return None
    measured = ["loss", *sorted(name for name, times in seen.items() if times == count)]
    return _means(sums, measured, accelerator)


def _means(sums: Counter[str], names: Sequence[str], accelerator: Any) -> dict[str, float]:
    totals = torch.tensor([float(sums[name]) for name in ("items", *names)], dtype=torch.float64)
    items, *values = accelerator.reduce(totals.to(accelerator.device), "sum").tolist()
    return {name: value / max(items, 1) for name, value in zip(names, values, strict=True)}
