"""Whether a backend computes what the model itself does: tried on a few sequences before anything is served."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tunesmith_workers.engine.batch import NO_ADAPTER, Backend, Piece

_EXACT = 1e-3
_ROUNDED = 0.05
"""Of the largest logit: what roundings of bfloat16 come to after dozens of layers."""
_LENGTHS = (23, 5, 40)


class Expected:
    """What the model itself says after every token of a few sequences. Made before anything about the model is changed."""

    @torch.inference_mode()
    def __init__(self, model: Any) -> None:
        size = model.get_input_embeddings().num_embeddings
        random = torch.Generator().manual_seed(0)
        self.sequences: list[list[int]] = [
            torch.randint(0, size, (length,), generator=random).tolist() for length in _LENGTHS
        ]
        self.logits: list[Tensor] = [
            model(input_ids=torch.tensor([tokens], device=model.device), use_cache=False).logits[0]
            for tokens in self.sequences
        ]
        self.tolerance = _EXACT if model.dtype == torch.float32 else _ROUNDED


def agrees(backend: Backend, expected: Expected) -> str | None:
    """None when the backend computes what was expected; otherwise what is the matter.

    The sequences begin at different steps, one prompt comes in two pieces, one is copied from another slot, and at the end all
    go on together, token by token.
    """
    try:
        return _compare(backend, expected)
    except Exception as error:  # noqa: BLE001  # a model may do anything with what it does not expect
        return f"{type(error).__name__}: {error}"
    finally:
        for slot in range(min(backend.slots, len(_LENGTHS))):
            backend.drop(slot)


def _compare(backend: Backend, expected: Expected) -> str | None:
    wanted = list(zip(expected.sequences, expected.logits, strict=True))[: backend.slots]
    worst = 0.0

    def step(parts: list[tuple[int, int, int]]) -> None:
        """Of slot, first token and end."""
        nonlocal worst
        pieces = [Piece(slot, start, wanted[slot][0][start:end], NO_ADAPTER, answers=1) for slot, start, end in parts]
        for (slot, _, end), row in zip(parts, backend.step(pieces), strict=True):
            right = wanted[slot][1][end - 1].float()
            worst = max(worst, float((row.float() - right).abs().max() / right.abs().max()))

    halves = [len(tokens) - 3 for tokens, _ in wanted]
    if backend.splits_prompts:
        step([(0, 0, 7)])
        step([(0, 7, halves[0]), *((slot, 0, halves[slot]) for slot in range(1, len(wanted)))])
    else:
        step([(slot, 0, halves[slot]) for slot in range(len(wanted))])
    for ahead in range(3):
        step([(slot, half + ahead, half + ahead + 1) for slot, half in enumerate(halves)])
    if backend.shares_prefixes and len(wanted) > 1:
        backend.copy(0, 1, 9)
        wanted[1] = wanted[0]
        step([(1, 9, halves[0])])
    return None if worst <= expected.tolerance else f"its logits differ by {worst:.2g} of the largest"
