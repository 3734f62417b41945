"""Runs an ONNX file in onnxruntime beside the model it was made of: prompts alone, padded together, and token by token.

What is told is the largest difference of any logit, and how many of the model's own greedy tokens the file would say as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor

from tunesmith_workers.export.merging import max_difference
from tunesmith_workers.export.onnx_graph import takes_positions

_CONTINUED = 16
"""So many tokens each prompt is continued by."""


class Agreement(msgspec.Struct, frozen=True):
    """How far file and model agree."""

    max_abs_diff: float
    greedy_agreement: float
    """The share of the model's greedy tokens that the file gives as well, from 0 to 1."""


class OnnxModel:
    """A file in onnxruntime, asked as the model is."""

    def __init__(self, file: Path, *, takes_positions: bool) -> None:
        self._session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
        self._takes_positions = takes_positions
        self._cache = [one for one in self._session.get_inputs() if one.name.startswith("past_key_values.")]

    def __call__(
        self, ids: Tensor, mask: Tensor, past: Sequence[NDArray[Any]] | None
    ) -> tuple[Tensor, list[NDArray[Any]]]:
        """Logits of (batch, new) tokens, and the cache with them. ``mask`` is (batch, past + new); without a past, nothing is cached."""
        feed: dict[str, Any] = {"input_ids": ids.numpy(), "attention_mask": mask.numpy()}
        if self._takes_positions:
            feed["position_ids"] = positions_of(mask)[:, -ids.shape[1] :].numpy()
        feed |= {
            one.name: given
            for one, given in zip(self._cache, past or [self._empty(one, len(ids)) for one in self._cache], strict=True)
        }
        logits, *cache = self._session.run(None, feed)
        return torch.from_numpy(np.asarray(logits)), [np.asarray(one) for one in cache]

    @staticmethod
    def _empty(one: Any, batch: int) -> NDArray[Any]:
        _, heads, _, size = one.shape
        return np.zeros((batch, heads, 0, size), dtype=np.float32)


def compare(file: Path, model: Any, prompts: Sequence[Sequence[int]], *, has_cache: bool) -> Agreement:
    """Compare a file with the model, which is on the CPU in float32."""
    exported = OnnxModel(file, takes_positions=takes_positions(model))
    diffs = []
    for group in [[prompt] for prompt in prompts] + [list(prompts)]:
        ids, mask = _left_padded(group)
        ours, theirs = _logits(model, ids, mask), exported(ids, mask, None)[0]
        real = mask.bool()
        diffs.append(max_difference([ours[real]], [theirs[real]]))
    same = total = 0
    for prompt in prompts:
        diff, agreed = _continued(exported, model, prompt, has_cache=has_cache)
        diffs.append(diff)
        same, total = same + agreed, total + _CONTINUED
    return Agreement(max(diffs), same / total)


def _continued(exported: OnnxModel, model: Any, prompt: Sequence[int], *, has_cache: bool) -> tuple[float, int]:
    """The largest difference while the model's own greedy tokens are read one by one, and how many the file would say as well."""
    ids = torch.tensor([list(prompt)])
    with torch.inference_mode():
        every = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            min_new_tokens=_CONTINUED,
            max_new_tokens=_CONTINUED,
            repetition_penalty=1.0,
        )
    start = ids.shape[1]
    every = every[:, : start + _CONTINUED].clone()
    ours = _logits(model, every, torch.ones_like(every))[0, start - 1 : -1]
    theirs, past, read = [], None, 0
    for end in range(start, start + _CONTINUED):
        logits, cache = exported(every[:, read:end], torch.ones_like(every[:, :end]), past)
        theirs.append(logits[0, -1])
        past, read = (cache, end) if has_cache else (None, 0)
    found = torch.stack(theirs)
    return max_difference([ours], [found]), int((found.argmax(-1) == ours.argmax(-1)).sum())


def _logits(model: Any, ids: Tensor, mask: Tensor) -> Tensor:
    positions = {"position_ids": positions_of(mask)} if takes_positions(model) else {}
    with torch.inference_mode():
        logits: Tensor = model(input_ids=ids, attention_mask=mask, use_cache=False, **positions).logits
    return logits.float()


def positions_of(mask: Tensor) -> Tensor:
    """Each token's position, padding on the left not counted."""
    return (mask.cumsum(-1) - 1).clamp(min=0)


def _left_padded(prompts: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    longest = max(map(len, prompts))
    ids = torch.tensor([[0] * (longest - len(prompt)) + list(prompt) for prompt in prompts])
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    return ids, mask
