"""Puts a LoRA adapter that was trained before on its base, ready to be trained further or to be added in.

All of its shape is its own: ranks, strengths, modules, dropout, and the modules it has whole. What is new about a LoRA is in
``lora``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tunesmith_workers.models.loading import explained
from tunesmith_workers.models.starting_point import shape_of
from tunesmith_workers.process.config import Lora
from tunesmith_workers.process.events import emit_message
from tunesmith_workers.process.faults import BadConfig

_WHERE = "model.base"
_NAME = "default"
_MOST_NAMED = 3


def refuse_other_kinds(adapter: Path) -> None:
    """Only LoRA of language models goes on. Raises BadConfig, and ModelUnavailable where it does not say what it is."""
    shape = shape_of(adapter)
    if shape.peft_type != "LORA" or shape.task_type not in (None, "CAUSAL_LM"):
        kind = f"{shape.peft_type} for {shape.task_type}" if shape.task_type else str(shape.peft_type)
        raise BadConfig(
            f"{adapter} is an adapter of the kind {kind}, and training goes on from LoRA for CAUSAL_LM only",
            where=_WHERE,
            mend="name another adapter, or a whole model",
        )


def tell_own_shape(adapter: Path, lora: Lora) -> None:
    """Warn of what the config says otherwise. It cannot be known here whether that was asked for or is a default."""
    shape = shape_of(adapter)
    pairs: list[tuple[str, object, object]] = [
        ("r", shape.r, lora.r),
        ("lora_alpha", shape.lora_alpha, lora.lora_alpha),
        ("lora_dropout", shape.lora_dropout, lora.lora_dropout),
    ]
    named = shape.target_modules
    if isinstance(named, tuple) and lora.target_modules != ("all-linear",):
        pairs.append(("target_modules", sorted(named), sorted(lora.target_modules)))
    other = [f"{name} {_short(own)}, not {_short(given)}" for name, own, given in pairs if own not in (None, given)]
    if other:
        emit_message(f"the adapter's own shape is kept: {'; '.join(other)}", level="warning", where="lora")


def load_adapter(model: Any, adapter: Path, *, fuses: bool) -> Any:
    """The model with the adapter on it, whose weights are trained in float32. With ``fuses``, its layers are fused.

    Raises:
        BadConfig: it is of another kind, or does not fit this model.
        ModelUnavailable: it cannot be read.
    """
    from peft import LoraConfig, get_peft_model  # noqa: PLC0415  # slow to import, as is all it brings

    from tunesmith_workers.weights.fused_lora import use_fused_layers  # noqa: PLC0415  # likewise

    refuse_other_kinds(adapter)
    with explained(str(adapter), "adapter"):
        own = LoraConfig.from_pretrained(str(adapter))
    own.inference_mode, own.task_type = False, "CAUSAL_LM"  # saved adapters say that they are not trained
    own.base_model_name_or_path = model.name_or_path
    try:
        adapted: Any = get_peft_model(model, use_fused_layers(own) if fuses else own, adapter_name=_NAME)
        found = adapted.load_adapter(str(adapter), _NAME, is_trainable=True)
    except (ValueError, RuntimeError) as error:
        raise _unfit(adapter, " ".join(str(error).split())[:400]) from error
    _refuse_partly(adapter, "it has no weights for", found.missing_keys)
    _refuse_partly(adapter, "the model has no place for its", found.unexpected_keys)
    return adapted


def _refuse_partly(adapter: Path, what: str, names: list[str]) -> None:
    if names:
        more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
        raise _unfit(adapter, f"{what} {', '.join(names[:_MOST_NAMED])}{more}")


def _unfit(adapter: Path, text: str) -> BadConfig:
    return BadConfig(
        f"the adapter {adapter} does not fit its base: {text}",
        where=_WHERE,
        mend="check base_model_name_or_path in its adapter_config.json",
    )


def _short(value: object) -> str:
    if isinstance(value, list):
        return f"[{', '.join(value)}]"
    return f"{value:g}" if isinstance(value, int | float) else str(value)
