"""What is served: a model, its tokenizer, and the fastest backend that computes the same as the model does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from tunesmith_workers.engine.adapters import AdapterBank
from tunesmith_workers.engine.batch import Backend
from tunesmith_workers.engine.packed import Packed
from tunesmith_workers.engine.recomputed import Recomputed
from tunesmith_workers.engine.sequential import Sequential
from tunesmith_workers.engine.verify import Expected, agrees
from tunesmith_workers.models.loading import load_tokenizer, longest_context
from tunesmith_workers.models.memory_use import free_memory_now
from tunesmith_workers.models.structure import attention_of, set_attention, text_config
from tunesmith_workers.process.config import DType
from tunesmith_workers.process.events import emit_message
from tunesmith_workers.weights.inference import load_for_inference

_SHARE_OF_FREE_MEMORY = 0.4
_UNKNOWN_MEMORY = 4 * 1024**3
"""Bytes, where the system denies to say."""
_LONGEST_UNKNOWN = 2048
_FEWEST_SLOTS = 4
"""Rather than fewer, the context is shortened."""

Accelerated = Callable[[Any, AdapterBank, int, int], Backend | None]
"""From a model, its adapters, slots and tokens for each slot to a backend made for this hardware, if there is one."""


class Loaded(msgspec.Struct, frozen=True):
    """A model that can be served."""

    model: Any
    tokenizer: Any
    backend: Backend
    bank: AdapterBank
    ends: frozenset[int]
    """Tokens that end an answer."""
    defaults: dict[str, float]
    """Of sampling, as the model's authors set them."""


def load(
    base: str, *, dtype: DType, slots: int, longest: int | None, accelerated: Accelerated = lambda *_: None
) -> Loaded:
    """Load a model, or an adapter on its base as one model.

    Args:
        base: a folder, or a hub id.
        dtype: of the weights; ``auto`` is bfloat16 where that is fast.
        slots: at most so many sequences are computed together.
        longest: tokens of prompt and answer; None: as many as the model can read and memory allows.
        accelerated: makes the backend that is tried first.

    Raises:
        ModelUnavailable: it cannot be loaded.
    """
    tokenizer = load_tokenizer(base)
    model = load_for_inference(base, dtype, "auto").requires_grad_(False)
    bank = AdapterBank()
    context = longest or longest_context(text_config(model)) or _LONGEST_UNKNOWN
    slots, context = _fitting(model, slots, context)
    backend = backend_for(model, bank, slots, context, accelerated)
    own = model.generation_config
    return Loaded(model, tokenizer, backend, bank, ends_of(own, tokenizer), defaults_of(own))


def backend_for(model: Any, bank: AdapterBank, slots: int, context: int, accelerated: Accelerated) -> Backend:
    """The first of accelerated, packed and sequential that computes the same as the model; else recomputed, which is the model."""
    expected = Expected(model)
    before = attention_of(model)
    for name, make in (("accelerated", accelerated), ("packed", Packed), ("sequential", Sequential)):
        try:
            backend = make(model, bank, slots, context)
            fault = agrees(backend, expected) if backend is not None else ""
        except Exception as error:  # noqa: BLE001  # a model may have any shape; what is slower may still work
            backend, fault = None, f"{type(error).__name__}: {error}"
        if backend is not None and fault is None:
            backend.keep_only_own()
            return backend
        set_attention(model, before)
        if fault:
            emit_message(f"{name} computation is not used for this model: {fault}", level="warning")
    return Recomputed(model, bank, slots, context)


def _fitting(model: Any, slots: int, context: int) -> tuple[int, int]:
    """As many slots, and as long ones, as memory allows if all of them are full."""
    config = text_config(model)
    heads = getattr(config, "num_attention_heads", None) or 1
    size = getattr(config, "head_dim", None) or getattr(config, "hidden_size", 0) // heads
    key_heads = getattr(config, "num_key_value_heads", None) or heads
    each = 2 * (getattr(config, "num_hidden_layers", None) or 0) * key_heads * size * model.dtype.itemsize
    if not each:
        return slots, context
    tokens = max(int(_SHARE_OF_FREE_MEMORY * _free_memory()) // each, _FEWEST_SLOTS * 16)
    fewest = min(_FEWEST_SLOTS, slots)
    shortened = min(context, tokens // fewest)
    if shortened < context:
        emit_message(
            f"the context is cut from {context} to {shortened} tokens: there is no memory for more", level="warning"
        )
    return max(fewest, min(slots, tokens // shortened)), shortened


def _free_memory() -> int:
    return free_memory_now() or _UNKNOWN_MEMORY


def ends_of(generation_config: Any, tokenizer: Any) -> frozenset[int]:
    """Tokens that end an answer, by a model's generation config and its tokenizer."""
    named = getattr(generation_config, "eos_token_id", None)
    found = [named] if isinstance(named, int) else list(named or [])
    return frozenset([*found, *([tokenizer.eos_token_id] if tokenizer.eos_token_id is not None else [])])


def defaults_of(generation_config: Any) -> dict[str, float]:
    """What the authors of a model set for sampling."""
    if not getattr(generation_config, "do_sample", False):
        return {}
    found = {name: getattr(generation_config, name, None) for name in ("temperature", "top_p", "top_k")}
    return {name: value for name, value in found.items() if value is not None}
