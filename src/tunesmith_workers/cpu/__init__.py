"""What makes training and serving fast on a CPU, behind two calls: ``accelerate`` and ``decoder_for``. Nothing else is imported
from here.

On a CPU the operations of a small model are short, and what surrounds them costs more than they do: padding, copies in
float32, threads that wait for each other. All of it is left out where the model is seen to give the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tunesmith_workers.engine.adapters import AdapterBank
    from tunesmith_workers.engine.batch import Backend
    from tunesmith_workers.process.config import TrainConfig
    from tunesmith_workers.training.acceleration import Acceleration

__all__ = ["accelerate", "decoder_for"]


def accelerate(
    config: TrainConfig, *, trains_all: bool, stop_asked: Callable[[], bool] = lambda: False
) -> Acceleration | None:
    """The acceleration of this config on this machine; None where it has an accelerator, or the config wants none.

    ``trains_all`` is whether all weights are trained: forked workers hold gradients of their own, which is little for an
    adapter and much for a whole model.
    """
    # Seconds of imports, inside what reports faults.
    from tunesmith_workers.models.precision import device  # noqa: PLC0415
    from tunesmith_workers.process.allocator import keep_freed_memory  # noqa: PLC0415

    if config.training.accelerate == "off" or device() != "cpu":
        return None
    from tunesmith_workers.cpu.acceleration import CpuAcceleration  # noqa: PLC0415  # likewise

    keep_freed_memory()
    return CpuAcceleration(
        rows=config.training.per_device_train_batch_size,
        chooses_attention=config.model.attention == "auto",
        forks=not trains_all and not config.training.gradient_checkpointing,
        stop_asked=stop_asked,
    )


def decoder_for(model: Any, bank: AdapterBank, slots: int, longest: int) -> Backend | None:
    """What computes the engine's steps fastest for this model, on a CPU; None where there is nothing for it.

    Takes the model, its adapters, how many sequences are computed together, and how many tokens each may have.
    """
    from tunesmith_workers.cpu.decoder import llama_decoder  # noqa: PLC0415  # imports torch
    from tunesmith_workers.process.allocator import keep_freed_memory  # noqa: PLC0415  # likewise

    if model.device.type != "cpu":
        return None
    keep_freed_memory()
    return llama_decoder(model, bank, slots, longest)
