"""Loads tokenizers and models: safetensors only, and never code that comes with a model."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from tunesmith_workers.models.hub import local_folder
from tunesmith_workers.process.config import Attention
from tunesmith_workers.process.faults import ModelUnavailable


def named_attention(wanted: Attention) -> str | None:
    """The attention implementation that was asked for; None for what transformers chooses."""
    return None if wanted == "auto" else wanted


def load_tokenizer(base: str, *, with_weights: bool = True) -> Any:
    """Load the tokenizer, able to pad. From the hub, the weights come along unless told otherwise.

    Raises:
        ModelUnavailable: there is none.
    """
    with explained(base, "tokenizer"):
        tokenizer = AutoTokenizer.from_pretrained(
            local_folder(base, with_weights=with_weights), trust_remote_code=False
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_config(base: str, *, with_weights: bool = True) -> Any:
    """Load the model's config. From the hub, the weights come along unless told otherwise.

    Raises:
        ModelUnavailable: there is none.
    """
    with explained(base, "config"):
        return AutoConfig.from_pretrained(local_folder(base, with_weights=with_weights), trust_remote_code=False)


def load_model(base: str, dtype: torch.dtype, attention: str | None) -> Any:
    """Load a causal language model from safetensors. Without ``attention``: sdpa where the model can, eager otherwise.

    Raises:
        ModelUnavailable: it is missing, incomplete, needs code of its own, or the hub cannot be reached.
    """
    with explained(base, "model"):
        return AutoModelForCausalLM.from_pretrained(
            local_folder(base),
            dtype=dtype,
            attn_implementation=attention,
            use_safetensors=True,
            trust_remote_code=False,
        )


def load_generation_config(base: str) -> Any:
    """The model's generation defaults; plain ones where it has none."""
    try:
        return GenerationConfig.from_pretrained(local_folder(base))
    except (OSError, ValueError):
        return GenerationConfig()  # type: ignore[no-untyped-call]  # transformers leaves it untyped


def longest_context(config: Any) -> int | None:
    """How many tokens the model can read at once, where its config says so."""
    found = getattr(config, "max_position_embeddings", None)
    return found if isinstance(found, int) and found > 0 else None


@contextlib.contextmanager
def explained(base: str, part: str) -> Iterator[None]:
    """Have what libraries raise while ``part`` of a model is loaded raised as a ModelUnavailable."""
    try:
        yield
    except (OSError, ValueError, ImportError, KeyError, StrictDataclassError) as error:
        raise _fault(base, part, error) from error


def _fault(base: str, part: str, error: Exception) -> ModelUnavailable:
    text = " ".join(str(error).split())
    mend = "check that the folder holds config.json, the tokenizer's files and *.safetensors"
    if "attention implementation" in text or "attn_implementation" in text:
        mend = "set model.attention to auto, or to eager, which every model has"
    elif "trust_remote_code" in text or "custom code" in text:
        mend = "models that need code of their own are not run; choose an architecture that transformers knows"
    return ModelUnavailable(f"the {part} cannot be loaded: {text[:400]}", where=base, mend=mend)
