"""Full fine-tuning: every weight is trained. An adapter that it starts from is added into the weights first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tunesmith_workers.models.starting_point import starting_point
from tunesmith_workers.process.config import TrainConfig
from tunesmith_workers.process.faults import BadConfig
from tunesmith_workers.weights.loaded_adapter import load_adapter, refuse_other_kinds


class FullWeights:
    """All weights of the base model."""

    trains_all = True

    def __init__(self) -> None:
        self._stored_dtype: Any = None

    def in_full_precision(self, config: TrainConfig) -> bool:  # noqa: ARG002  # the protocol's signature
        return True

    def check(self, config: TrainConfig) -> None:
        """Every model has weights; an adapter must be one that can be added in."""
        adapter = starting_point(config).adapter
        if adapter is not None:
            refuse_other_kinds(adapter)

    def attach(self, model: Any, config: TrainConfig, *, fuses: bool) -> Any:  # noqa: ARG002  # the protocol's signature
        self._stored_dtype = _stored_dtype(model)
        adapter = starting_point(config).adapter
        return model if adapter is None else _added(model, adapter)

    def save(self, model: Any, folder: Path, config: TrainConfig) -> str:  # noqa: ARG002  # the protocol's signature
        # Trained in float32, but written as the base was: twice the size would say no more.
        model.to(self._stored_dtype).save_pretrained(folder)
        return "model"


def _added(model: Any, adapter: Path) -> Any:
    """The model with the adapter in its weights, all of which are trained that were before."""
    from tunesmith_workers.models.spot_check import agree  # noqa: PLC0415  # imports torch

    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    adapted = load_adapter(model, adapter, fuses=False).eval()
    before = _logits(adapted)
    whole = adapted.merge_and_unload(safe_merge=True)
    if not agree(_logits(whole), before):
        raise BadConfig(
            f"the adapter {adapter} cannot be added into the weights of its base: the model would say something else",
            where="model.base",
            mend="train it further as an adapter, with the recipe lora",
        )
    for name, parameter in whole.named_parameters():
        parameter.requires_grad_(name in trained)
    return whole.train()


def _logits(model: Any) -> Any:
    """Of a few tokens that every vocabulary has."""
    import torch  # noqa: PLC0415  # seconds of imports, inside what reports faults

    with torch.no_grad():
        return model(input_ids=torch.arange(8, device=model.device)[None], use_cache=False).logits


def _stored_dtype(model: Any) -> Any:
    import torch  # noqa: PLC0415  # seconds of imports, inside what reports faults

    from tunesmith_workers.models.loading import load_config  # noqa: PLC0415  # likewise

    stored = getattr(load_config(model.name_or_path), "dtype", None)
    return stored if isinstance(stored, torch.dtype) else model.dtype
