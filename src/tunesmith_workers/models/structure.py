"""What a loaded model says about itself: its attention, its layers, and whether it drops values at random."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn


def attention_of(model: Any) -> str:
    """The attention implementation that a loaded model has."""
    found: str = model.config._attn_implementation  # noqa: SLF001  # has no public name
    return found


def set_attention(model: Any, attention: str) -> str:
    """Have the model attend in this way from now on, and return the way before."""
    before = attention_of(model)
    model.config._attn_implementation = attention  # noqa: SLF001  # set_attn_implementation refuses what can be changed back only here
    return before


def text_config(model: nn.Module) -> Any:
    """The config of the language model, which may be a part of a larger one."""
    config: Any = getattr(model, "config", None)
    return config.get_text_config() if hasattr(config, "get_text_config") else config


def sees_by_position(model: nn.Module, longest: int) -> str | None:
    """Why a token's place in its sequence does not decide alone what it attends to, and how it is turned, in sequences of up to
    ``longest`` tokens; None where it does. Then sequences can be computed side by side, whatever their lengths.
    """
    config = text_config(model)
    rope = getattr(config, "rope_parameters", None) or {}
    turned = _rope_types(rope) - _BY_POSITION
    if turned and longest > _turned_alike(config, rope, turned):
        return f"{', '.join(sorted(turned))} rotations depend on how long a sequence is"
    for name in ("sliding_window", "attention_chunk_size"):
        size = getattr(config, name, None)
        if isinstance(size, int) and size < longest:
            return f"{name} of {size} tokens is shorter than the context"
    return None


_BY_POSITION = frozenset({"default", "linear", "llama3", "yarn", "proportional"})


def _turned_alike(config: Any, rope: dict[str, Any], types: set[str]) -> int:
    """Up to how long a sequence is turned as every shorter one."""
    named = rope.get("original_max_position_embeddings") or getattr(config, "original_max_position_embeddings", None)
    if named is None and types == {"dynamic"}:
        named = getattr(config, "max_position_embeddings", None)
    return named or 0


def _rope_types(parameters: Any) -> set[str]:
    """All that a config names: for the whole model, or for each kind of layer."""
    if not isinstance(parameters, dict):
        return set()
    below = set[str]().union(*(_rope_types(value) for value in parameters.values()))
    named = parameters.get("rope_type")
    return below | {named} if isinstance(named, str) else below


def layers_of(model: nn.Module) -> int | None:
    """How many layers there are, each of which should attend once."""
    return getattr(text_config(model), "num_hidden_layers", None)


def pad_token_for(model: Any, pad_token: int) -> int:
    """A token to pad with: the tokenizer's, or 0 where the model has no embedding of that one. What pads is never attended to."""
    embeddings = model.get_input_embeddings()
    known = getattr(embeddings, "num_embeddings", None)
    return pad_token if known is None or pad_token < known else 0


def drops(model: nn.Module) -> bool:
    """Whether any part of the model says that it changes values at random while training.

    Parts that drop by a function keep how much in an attribute of their own. What draws random numbers without saying so
    is seen when the model is run (``training.verify``).
    """
    return any(_is_random(name, value) for module in model.modules() for name, value in _settings(module))


def _settings(module: nn.Module) -> Iterator[tuple[str, Any]]:
    if isinstance(module, nn.modules.dropout._DropoutNd):  # noqa: SLF001  # has no public name
        yield "dropout", module.p
    yield from vars(module).items()


def _is_random(name: str, value: Any) -> bool:
    named = any(part in name for part in ("drop", "jitter"))
    return named and isinstance(value, int | float) and not isinstance(value, bool) and value > 0
