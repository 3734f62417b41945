"""Reports progress between log lines, and ends a training when it is asked to stop."""

from __future__ import annotations

from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from tunesmith_workers.process.events import Paced, emit
from tunesmith_workers.process.stopping import StopRequest


class Watch(TrainerCallback):
    """Watches every step."""

    def __init__(self, stop: StopRequest) -> None:
        self._stop = stop
        self._paced = Paced()

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:  # noqa: ARG002  # Trainer's signature
        emit("progress", phase="training", step=state.global_step, total_steps=state.max_steps)

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:  # noqa: ARG002  # Trainer's signature
        self._stop.wait_for_checkpoint()  # before, there is nothing to keep

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._paced.emit(
            "progress", phase="training", step=state.global_step, total_steps=state.max_steps, epoch=state.epoch
        )
        if state.global_step >= state.max_steps:
            control.should_log = True  # a curve ends where training does
        if in_any_process(self._stop.asked, args):
            control.should_training_stop = control.should_save = True
            self._stop.asked = True

    def on_substep_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        # Before the first step there is nothing to save; with several processes only whole steps are agreed upon.
        if self._stop.asked and state.global_step and args.world_size == 1:
            control.should_training_stop = control.should_save = True


def in_any_process(here: bool, args: TrainingArguments) -> bool:  # noqa: FBT001  # a vote has one ballot
    """Whether it holds in any process of the group: all must do the same, or some wait for the others forever."""
    if args.world_size == 1:
        return here
    vote = torch.tensor(int(here), device=args.device)
    torch.distributed.all_reduce(vote, torch.distributed.ReduceOp.MAX)
    return bool(vote)
