"""What the preflight may do with a trainer: a step, a scoring and a save, of which nothing is left."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import TrainerState, TrainingArguments

from tunesmith_workers.examples.batches import Batch
from tunesmith_workers.training.plan import Findings, Plan
from tunesmith_workers.training.preflight import Show, preflight
from tunesmith_workers.training.randomness import Randomness
from tunesmith_workers.training.trainer import FineTuner


def try_first(trainer: FineTuner, model: nn.Module, show: Show) -> Findings:
    """One step on the longest rows, one scoring and one save, with nothing left of them but what was measured.

    Raises:
        BadConfig: it cannot fit into memory or onto the disk.
    """
    begun_with = Randomness()
    try:
        trial = TrainerTrial(trainer, model)
        return preflight(trial, trial.plan(), scores=trainer.eval_dataset is not None, show=show)
    finally:
        begun_with.restore()
        trainer.forget_step()


class TrainerTrial:
    """A ``Trial`` of a trainer and its model. From here on, the model is verified."""

    def __init__(self, trainer: FineTuner, model: nn.Module) -> None:
        self._trainer = trainer
        self._model = model
        self._by_length = sorted(trainer.rows, key=lambda row: len(row.input_ids), reverse=True)
        trainer.verify_on(self.batch_of(2, longest=False))

    def plan(self) -> Plan:
        """What the training wants to do. It is known by now in how many parts a batch is computed."""
        trainer, args, state = self._trainer, self._trainer.args, self._trainer.state
        rows, limit = min(args.train_batch_size, len(trainer.rows)), trainer.config.checkpoint.save_total_limit
        saves = saves_in(args, state)
        kept = saves if limit is None else min(saves, limit + 1)
        return Plan(
            rows=rows,
            parts=trainer.acceleration.parts,
            middling_share=self._middling_share(rows),
            accumulation=args.gradient_accumulation_steps,
            steps=state.max_steps - state.global_step,
            trained_parameters=sum(p.numel() for p in self._model.parameters() if p.requires_grad),
            checkpoints=kept + 1,
            folder=Path(args.output_dir or "."),
        )

    def batch_of(self, rows: int, *, longest: bool) -> Batch:
        first = 0 if longest else max(0, (len(self._by_length) - rows) // 2)
        return self._trainer.prepared(self._by_length[first : first + rows])

    def step(self, batch: Batch) -> None:
        self._trainer.training_step(self._model, dict(batch), self._trainer.objective.items(batch))

    @torch.no_grad()
    def score(self, batch: Batch) -> None:
        self._model.eval()
        self._trainer.loss_of(self._model, batch, measures=False)
        self._model.train()

    def save(self, folder: Path) -> None:
        with self._trainer.stop.removing(folder):
            unwrapped: Any = self._trainer.accelerator.unwrap_model(self._model)
            unwrapped.save_pretrained(folder)

    def forget(self) -> None:
        self._model.zero_grad(set_to_none=True)
        self._trainer.forget_step()

    def _middling_share(self, rows: int) -> float:
        """Tokens of a batch of middling rows, of those of the longest batch."""
        middling, longest = (sum(self.batch_of(rows, longest=way)["lengths"]) for way in (False, True))
        return middling / longest


def saves_in(args: TrainingArguments, state: TrainerState) -> int:
    """How many checkpoints a whole training saves, the one at its end included."""
    if args.save_strategy == "steps":
        return -(-state.max_steps // int(args.save_steps))
    return min(state.num_train_epochs, state.max_steps)
