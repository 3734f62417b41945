"""``lora``: trains a small adapter beside the frozen weights of a model. Started by recipes/lora/run.sh."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tunesmith_workers.config import Lora, TrainConfig, read_arguments
from tunesmith_workers.faults import BadConfig, run_and_exit
from tunesmith_workers.stopping import StopRequest
from tunesmith_workers.target_modules import ALL_LINEAR, refuse_absent_modules
from tunesmith_workers.telling import log, note


class LowRankTraining:
    """Trains an adapter."""

    trains_weights = False

    def attach(self, model: Any, config: TrainConfig) -> Any:
        from peft import LoraConfig, get_peft_model  # noqa: PLC0415  # slow to import, as is all it brings

        from tunesmith_workers.adaptable import misfits  # noqa: PLC0415  # likewise
        from tunesmith_workers.frozen import quicken_norms  # noqa: PLC0415  # likewise
        from tunesmith_workers.fused_lora import order_weights, use_fused_layers  # noqa: PLC0415  # likewise
        from tunesmith_workers.memory_use import free_memory_now  # noqa: PLC0415  # likewise
        from tunesmith_workers.models import device  # noqa: PLC0415  # likewise

        lora = _required(config)
        wanted = LoraConfig(
            task_type="CAUSAL_LM",
            r=lora.r,
            lora_alpha=lora.lora_alpha,
            lora_dropout=lora.lora_dropout,
            target_modules=ALL_LINEAR if lora.target_modules == (ALL_LINEAR,) else list(lora.target_modules),
        )
        unfit = misfits(model, wanted)
        if wanted.target_modules == ALL_LINEAR:
            wanted.exclude_modules = unfit or None
            if unfit:
                note(f"{ALL_LINEAR} leaves out {', '.join(unfit)}: an adapter does not fit there")
        elif asked := sorted(set(unfit).intersection(lora.target_modules)):
            raise _unfit(f"{', '.join(asked)}: an adapter does not fit there in this model")
        accelerates = device() == "cpu" and config.training.accelerate == "auto"
        try:
            adapted = get_peft_model(
                model, use_fused_layers(wanted) if config.training.accelerate == "auto" else wanted
            )
        except ValueError as error:
            raise _unfit(str(error)) from error
        if config.training.gradient_checkpointing:
            adapted.enable_input_require_grads()
        if accelerates:
            norms, ordered = quicken_norms(adapted), order_weights(adapted, free_memory_now() or 0)
            log(f"frozen weights: {norms} norms in fewer steps, {'in' if ordered else 'not in'} the order of products")
        return adapted

    def save(self, model: Any, folder: Path, config: TrainConfig) -> str:
        if _required(config).merge:
            model.merge_and_unload().save_pretrained(folder)
            return "model"
        # The name it was asked for by, not the place in a cache that it was loaded from.
        folder_or_id = Path(config.base)
        base = str(folder_or_id.absolute()) if folder_or_id.is_dir() else config.base
        model.peft_config["default"].base_model_name_or_path = base
        model.save_pretrained(folder)
        return "adapter"


def _unfit(text: str) -> BadConfig:
    return BadConfig(text, where="lora.target_modules", mend=f"name layers of this model, or use [{ALL_LINEAR}]")


def _required(config: TrainConfig) -> Lora:
    if config.lora is None:
        raise BadConfig("the section is missing", where="lora", mend="add it, or use the recipe sft")
    return config.lora


def main() -> None:
    stop = StopRequest().listen()
    config, folders = read_arguments(TrainConfig)
    # Seconds of imports, inside what reports faults.
    from tunesmith_workers.memory import keep_freed_memory  # noqa: PLC0415
    from tunesmith_workers.models import device  # noqa: PLC0415
    from tunesmith_workers.training import train  # noqa: PLC0415

    if device() == "cpu" and config.training.accelerate == "auto":
        keep_freed_memory()
    refuse_absent_modules(_required(config), config.base)
    train(LowRankTraining(), config, folders, stop)


if __name__ == "__main__":
    run_and_exit(main)
