"""LoRA: a small adapter beside the frozen weights of the base model is trained (arXiv:2106.09685)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tunesmith_workers.models.starting_point import shape_of, starting_point
from tunesmith_workers.process.config import Lora, TrainConfig
from tunesmith_workers.process.events import emit_message
from tunesmith_workers.process.faults import BadConfig
from tunesmith_workers.weights.loaded_adapter import load_adapter, refuse_other_kinds, tell_own_shape
from tunesmith_workers.weights.target_modules import ALL_LINEAR, refuse_absent_modules


class LoraWeights:
    """A new adapter, as ``lora`` in the config describes it, or the one that the config starts from, as that one is."""

    trains_all = False

    def in_full_precision(self, config: TrainConfig) -> bool:
        adapter = starting_point(config).adapter
        return adapter is not None and shape_of(adapter).trains_copies

    def check(self, config: TrainConfig) -> None:
        """Refuse target modules of which the model has none, and an adapter that is no LoRA."""
        lora, start = _required(config), starting_point(config)
        if start.adapter is None:
            refuse_absent_modules(lora, start.base)
        else:
            refuse_other_kinds(start.adapter)
            tell_own_shape(start.adapter, lora)

    def attach(self, model: Any, config: TrainConfig, *, fuses: bool) -> Any:
        start = starting_point(config)
        if start.adapter is None:
            adapted = _new_adapter(model, config, fuses=fuses)
        else:
            adapted = load_adapter(model, start.adapter, fuses=fuses)
        adapted.peft_config["default"].base_model_name_or_path = start.base_name  # in checkpoints, too
        if config.training.gradient_checkpointing:
            adapted.enable_input_require_grads()
        return adapted

    def save(self, model: Any, folder: Path, config: TrainConfig) -> str:
        if _required(config).merge:
            model.merge_and_unload().save_pretrained(folder)
            return "model"
        model.save_pretrained(folder)
        return "adapter"


def _new_adapter(model: Any, config: TrainConfig, *, fuses: bool) -> Any:
    from peft import get_peft_model  # noqa: PLC0415  # slow to import, as is all it brings

    from tunesmith_workers.weights.fused_lora import use_fused_layers  # noqa: PLC0415  # likewise

    wanted = _peft_config(_required(config))
    _exclude_misfits(wanted, model, config)
    try:
        return get_peft_model(model, use_fused_layers(wanted) if fuses else wanted)
    except ValueError as error:
        raise _unfit(str(error)) from error


def _peft_config(lora: Lora) -> Any:
    from peft import LoraConfig  # noqa: PLC0415  # slow to import

    return LoraConfig(
        task_type="CAUSAL_LM",
        r=lora.r,
        lora_alpha=lora.lora_alpha,
        lora_dropout=lora.lora_dropout,
        target_modules=ALL_LINEAR if lora.target_modules == (ALL_LINEAR,) else list(lora.target_modules),
    )


def _exclude_misfits(wanted: Any, model: Any, config: TrainConfig) -> None:
    """Leave out of ``all-linear`` what an adapter does not fit; refuse it where it was named."""
    from tunesmith_workers.weights.adaptable import misfits  # noqa: PLC0415  # imports torch

    unfit = misfits(model, wanted)
    if wanted.target_modules == ALL_LINEAR:
        wanted.exclude_modules = unfit or None
        if unfit:
            emit_message(f"{ALL_LINEAR} leaves out {', '.join(unfit)}: an adapter does not fit there")
    elif asked := sorted(set(unfit).intersection(_required(config).target_modules)):
        raise _unfit(f"{', '.join(asked)}: an adapter does not fit there in this model")


def _unfit(text: str) -> BadConfig:
    return BadConfig(text, where="lora.target_modules", mend=f"name layers of this model, or use [{ALL_LINEAR}]")


def _required(config: TrainConfig) -> Lora:
    if config.lora is None:
        raise BadConfig("the section is missing", where="lora", mend="add it, or use the recipe sft")
    return config.lora
