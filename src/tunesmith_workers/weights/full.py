"""Full fine-tuning: every weight is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tunesmith_workers.process.config import TrainConfig


class FullWeights:
    """All weights of the base model."""

    trains_all = True

    def __init__(self) -> None:
        self._stored_dtype: Any = None

    def check(self, config: TrainConfig) -> None:
        """Every model has weights."""

    def attach(self, model: Any, config: TrainConfig, *, fuses: bool) -> Any:  # noqa: ARG002  # the protocol's signature
        self._stored_dtype = _stored_dtype(model)
        return model

    def save(self, model: Any, folder: Path, config: TrainConfig) -> str:  # noqa: ARG002  # the protocol's signature
        # Trained in float32, but written as the base was: twice the size would say no more.
        model.to(self._stored_dtype).save_pretrained(folder)
        return "model"


def _stored_dtype(model: Any) -> Any:
    import torch  # noqa: PLC0415  # seconds of imports, inside what reports faults

    from tunesmith_workers.models.loading import load_config  # noqa: PLC0415  # likewise

    stored = getattr(load_config(model.name_or_path), "dtype", None)
    return stored if isinstance(stored, torch.dtype) else model.dtype
