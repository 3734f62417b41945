"""What every training program begins and ends with: the config and the request to stop, and training on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from tunesmith_workers.process.config import Folders, TrainConfig, read_arguments
from tunesmith_workers.process.stopping import StopRequest
from tunesmith_workers.weights.base import Weights

if TYPE_CHECKING:  # imports torch
    from tunesmith_workers.objectives.base import Objective


class Started(msgspec.Struct, frozen=True):
    """What a training program was started with."""

    config: TrainConfig
    folders: Folders
    stop: StopRequest


def start() -> Started:
    """Listen for the request to stop, and read the config on the command line.

    Raises:
        BadConfig: naming the key.
    """
    stop = StopRequest().listen()
    config, folders = read_arguments(TrainConfig)
    return Started(config, folders, stop)


def run(weights: Weights, objective: Objective, started: Started) -> None:
    """Train in the fastest way that this machine has.

    Raises:
        WorkerFault: the config, the rows or the model cannot be used, or training diverged.
        SystemExit: it was asked to stop, and has saved what there was.
    """
    # Seconds of imports, which a wrong config need not wait for.
    from tunesmith_workers.cpu import accelerate  # noqa: PLC0415
    from tunesmith_workers.training.run import train  # noqa: PLC0415

    config, stop = started.config, started.stop
    acceleration = accelerate(config, trains_all=weights.trains_all, stop_asked=lambda: stop.asked)
    train(weights, objective, config, started.folders, stop, acceleration)
