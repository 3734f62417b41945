"""Adds an adapter to the weights of its base, in float32, and makes sure that nothing else has changed.

Where the adapter and its base come from is said in adapter_config.json. What is saved is decided in ``merge``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import msgspec
import torch
from peft import PeftModel
from torch import Tensor

from tunesmith_workers.models.hub import local_folder
from tunesmith_workers.models.loading import explained, load_config, load_model
from tunesmith_workers.models.precision import device
from tunesmith_workers.models.starting_point import base_of
from tunesmith_workers.process.faults import BadConfig, Inexact, ModelUnavailable

_CONFIG = "adapter_config.json"


class Merged(msgspec.Struct, frozen=True):
    """A whole model, and how far it is from base and adapter."""

    model: Any
    max_abs_diff: float
    """The largest difference of any logit of any prompt."""
    logits: list[Tensor]
    """Of base and adapter, for each prompt: (tokens, vocabulary), float32, on the CPU."""


def is_adapter(reference: str) -> bool:
    """Whether a model reference leads to an adapter. Raises ModelUnavailable."""
    return (local_folder(reference) / _CONFIG).is_file()


def base_of_adapter(reference: str) -> str:
    """The model that an adapter belongs to.

    Raises:
        BadConfig: it is no adapter, or one of another adapter.
        ModelUnavailable: it, or its base, is not there, or it has no safe weights.
    """
    folder = local_folder(reference)
    if not is_adapter(reference):
        raise BadConfig(
            f"{reference} is a whole model, and there is nothing to merge", where="model.base", mend="name an adapter"
        )
    if not (folder / "adapter_model.safetensors").is_file():
        raise ModelUnavailable(
            "the adapter has no weights in safetensors", where=str(folder), mend="save it with safetensors"
        )
    base = base_of(folder / _CONFIG)
    if is_adapter(base):
        raise BadConfig(
            f"the base of this adapter, {base}, is an adapter itself", where="model.base", mend="merge that one first"
        )
    return base


def merge_adapter(reference: str, base: str, prompts: Sequence[Sequence[int]], tolerance: float) -> Merged:
    """The base with the adapter added in, as a model in float32.

    Raises:
        ModelUnavailable: the adapter or its base cannot be loaded.
        BadConfig: it is of a kind that cannot be merged.
        Inexact: the merged model differs by more than ``tolerance`` in a logit of one of the prompts.
    """
    model = load_model(base, torch.float32, None)
    with explained(reference, "adapter"):
        adapted = PeftModel.from_pretrained(model, local_folder(reference)).float().eval().to(device())
    before = logits_of(adapted, prompts)
    try:
        merged: Any = adapted.merge_and_unload(safe_merge=True)
    except (AttributeError, NotImplementedError, ValueError) as error:
        raise BadConfig(
            f"this adapter cannot be merged: {error}", where="model.base", mend="serve it with its base instead"
        ) from error
    diff = max_difference(before, logits_of(merged, prompts))
    refuse_inexact(diff, tolerance, "the merged model")
    return Merged(merged, diff, before)


def logits_of(model: Any, prompts: Sequence[Sequence[int]]) -> list[Tensor]:
    """Of each prompt alone: (tokens, vocabulary), float32, on the CPU."""
    found = []
    with torch.inference_mode():
        for prompt in prompts:
            ids = torch.tensor([list(prompt)], device=model.device)
            found.append(model(input_ids=ids, use_cache=False).logits[0].float().cpu())
    return found


def max_difference(one: Sequence[Tensor], other: Sequence[Tensor]) -> float:
    """The largest absolute difference; infinite where one of them is not finite."""
    largest = max(float((a - b).abs().max()) for a, b in zip(one, other, strict=True))
    return float("inf") if math.isnan(largest) else largest


def refuse_inexact(diff: float, tolerance: float, what: str) -> None:
    """Raises Inexact."""
    if diff > tolerance:
        raise Inexact(
            f"{what} differs from the model by {diff:.3g} in a logit, and may by {tolerance:g}",
            where="export.tolerance",
            mend="nothing was kept; raise it if so much does not matter, and report the model if it is more than rounding",
        )


def stored_dtype(base: str) -> torch.dtype:
    """The type that a model's weights are stored in, as its config says; float32 where it does not."""
    found = getattr(load_config(base), "dtype", None)
    return found if isinstance(found, torch.dtype) else torch.float32
