"""What every kind of weights is: checked before anything is loaded, attached to the model, and saved at the end."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from tunesmith_workers.process.config import TrainConfig


class Weights(Protocol):
    """What is trained, and how it is written."""

    trains_all: bool
    """Whether the weights of the base model themselves are trained."""

    def in_full_precision(self, config: TrainConfig) -> bool:
        """Whether weights as the base has them are trained, all or some, which small steps would be lost on in sixteen bits."""
        ...

    def check(self, config: TrainConfig) -> None:
        """Refuse a config that cannot fit the model, before rows are read and weights are loaded.

        Raises:
            WorkerFault: it does not fit.
        """
        ...

    def attach(self, model: Any, config: TrainConfig, *, fuses: bool) -> Any:
        """The model to train, made of the loaded base of what the config starts from. With ``fuses``, layers may be fused where that gives the same numbers.

        Raises:
            BadConfig: what the config asks for does not fit this model.
        """
        ...

    def save(self, model: Any, folder: Path, config: TrainConfig) -> str:
        """Write the final model; its kind, ``adapter`` or ``model``, is returned."""
        ...
