"""Runs the preflight when everything is in place and nothing has begun."""

from __future__ import annotations

import time
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from tunesmith_workers.process.events import emit, emit_message
from tunesmith_workers.training.plan import gib
from tunesmith_workers.training.trainer import FineTuner
from tunesmith_workers.training.trial import try_first


class TryFirst(TrainerCallback):
    """Runs the preflight when everything is in place and nothing has begun, and reports what it found."""

    def __init__(self, trainer: FineTuner) -> None:
        self._trainer = trainer

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **at: Any) -> None:
        if args.world_size > 1:
            emit_message("no preflight: it measures one process, and here are several")
            return
        if state.global_step >= state.max_steps or control.should_training_stop:
            return  # resumed where nothing is left to train, only the model is to be written
        began = time.monotonic()

        def show(part: str) -> None:
            elapsed = round(time.monotonic() - began, 1)
            emit(
                "progress",
                phase="preflight",
                part=part,
                elapsed_seconds=elapsed,
                step=state.global_step,
                total_steps=state.max_steps,
            )

        show("a comparison of the ways to compute a batch")
        found = try_first(self._trainer, at["model"], show)
        left = state.max_steps - state.global_step
        emit_message(
            f"preflight ({time.monotonic() - began:.1f} s): the longest batch takes {gib(found.memory_bytes)} of "
            f"{gib(found.free_memory_bytes)} free memory, a checkpoint {gib(found.checkpoint_bytes)} of "
            f"{gib(found.free_disk_bytes)} free disk, a step about {found.seconds_per_step:.2f} s"
        )
        eta = round(found.seconds_per_step * left, 3)
        emit("progress", phase="training", step=state.global_step, total_steps=state.max_steps, eta_seconds=eta)
