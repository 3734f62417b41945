"""``sft``: trains all weights of a model. Started by recipes/sft/run.sh."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tunesmith_workers.config import TrainConfig, read_arguments
from tunesmith_workers.faults import run_and_exit
from tunesmith_workers.stopping import StopRequest


class FullTraining:
    """Trains every weight."""

    trains_weights = True

    def __init__(self) -> None:
        self._stored_dtype: Any = None

    def attach(self, model: Any, config: TrainConfig) -> Any:  # noqa: ARG002  # the protocol's signature
        self._stored_dtype = _stored_dtype(model)
        return model

    def save(self, model: Any, folder: Path, config: TrainConfig) -> str:  # noqa: ARG002  # the protocol's signature
        # Trained in float32, but written as the base was: twice the size would say no more.
        model.to(self._stored_dtype).save_pretrained(folder)
        return "model"


def _stored_dtype(model: Any) -> Any:
    import torch  # noqa: PLC0415  # seconds of imports, inside what reports faults

    from tunesmith_workers.models import load_config  # noqa: PLC0415  # likewise

    stored = getattr(load_config(model.name_or_path), "dtype", None)
    return stored if isinstance(stored, torch.dtype) else model.dtype


def main() -> None:
    stop = StopRequest().listen()
    config, folders = read_arguments(TrainConfig)
    # Seconds of imports, inside what reports faults.
    from tunesmith_workers.memory import keep_freed_memory  # noqa: PLC0415
    from tunesmith_workers.models import device  # noqa: PLC0415
    from tunesmith_workers.training import train  # noqa: PLC0415

    if device() == "cpu" and config.training.accelerate == "auto":
        keep_freed_memory()
    train(FullTraining(), config, folders, stop)


if __name__ == "__main__":
    run_and_exit(main)
