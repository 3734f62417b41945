"""The training loop: transformers' Trainer, with our objective, order of rows, checkpoints, and events.

What is trained, and for what, is decided by the caller. Loading, data and saving the final model are in ``run``.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Sampler
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from tunesmith_workers.examples.batches import Batch, in_batches, sha256_of
from tunesmith_workers.examples.inputs import TrainingInputs
from tunesmith_workers.examples.order import RowDataset, RowSampler
from tunesmith_workers.examples.prepare import Examples
from tunesmith_workers.objectives.base import BatchLoss, Objective
from tunesmith_workers.objectives.trained_logits import TrainedLogits
from tunesmith_workers.process.events import emit, emit_message, log
from tunesmith_workers.process.faults import Diverged
from tunesmith_workers.process.stopping import StepDropped, StopRequest
from tunesmith_workers.training.acceleration import Acceleration, StepLoss
from tunesmith_workers.training.checkpoints import Origin, complete, is_complete, metrics_of, prune
from tunesmith_workers.training.counters import TrainedTokens
from tunesmith_workers.training.hooks import refuse_other_hooks
from tunesmith_workers.training.progress import Watch, in_any_process
from tunesmith_workers.training.randomness import StepStart
from tunesmith_workers.training.scoring import score
from tunesmith_workers.training.speed import Speed
from tunesmith_workers.training.verify import verify

_REPLACED = (
    "loss_is_scaled_for_ga",
    "_get_train_sampler",
    "get_batch_samples",
    "_get_num_items_in_batch",
    "training_step",
    "compute_loss",
    "_get_grad_norm",
    "evaluate",
    "log",
    "_save_checkpoint",
    "_save_rng_state",
    "_prepare_inputs",
    "_run_epoch",
)
"""What of Trainer is replaced or called here."""


class FineTuner(Trainer):
    """Trains on rendered rows.

    Raises:
        WorkerFault: this transformers has another Trainer than the one that is known here.
    """

    # The loss is divided by all items of an optimizer step, so Trainer must not divide it again.
    loss_is_scaled_for_ga = True

    def __init__(
        self,
        model: nn.Module,
        args: TrainingArguments,
        *,
        objective: Objective,
        logits: TrainedLogits,
        inputs: TrainingInputs,
        origin: Origin,
        stop: StopRequest,
        acceleration: Acceleration,
        callbacks: list[TrainerCallback],
    ) -> None:
        refuse_other_hooks(FineTuner, Trainer, _REPLACED)
        self.whole_model = model
        self.stop = stop
        self.origin = origin
        self.objective: Objective = objective
        self.acceleration = acceleration
        self.config = inputs.config
        self.rows = inputs.train.rows
        self._logits = logits
        self._verified = False
        self._step_start = StepStart()
        self._measured: list[Mapping[str, Tensor]] = []
        self._speed = Speed()
        self.latest: dict[str, float] = {}
        """The newest value of each metric."""
        super().__init__(
            model=model,
            args=args,
            data_collator=objective.collate,
            train_dataset=RowDataset(self.rows),
            eval_dataset=RowDataset(inputs.validation.rows) if inputs.validation else None,
            processing_class=inputs.tokenizer,
            callbacks=[Watch(stop), self._step_start, TrainedTokens(self._speed), *callbacks],
        )
        self.remove_callback(PrinterCallback)

    def fit(self, resume_from: Path | None) -> None:
        """Train until the end, or until asked to stop; then the last finished step has its checkpoint.

        Raises:
            Diverged: the loss or a gradient is not finite.
        """
        if resume_from is not None:
            self.latest = {name: value for name, value in metrics_of(resume_from).items() if value is not None}
        try:
            self.train(resume_from_checkpoint=str(resume_from) if resume_from else None)
        except StepDropped:
            if self.state.global_step:
                self._step_start.inside_step = True
                self._save_checkpoint(self.model_wrapped, None)

    # Order of rows

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:  # noqa: ARG002  # Trainer's signature
        args, grouped = self.args, self.config.training.group_by_length
        return RowSampler(self.rows, args.train_batch_size, args.seed, group_by_length=grouped)

    def first_batches_sha256(self) -> str:
        """What the first epoch begins with, in all processes together: the same as a preview of this data answers."""
        return sha256_of(in_batches(self.rows, self._get_train_sampler(), self.args.train_batch_size))

    # Loss

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: torch.device) -> tuple[list[Any], Any]:
        batches, items = super().get_batch_samples(epoch_iterator, num_batches, device)
        if batches:
            self.verify_on(batches[0])
        self._speed.rows += sum(len(batch["lengths"]) for batch in batches) * self.args.world_size
        self._speed.tokens += sum(sum(batch["lengths"]) for batch in batches) * self.args.world_size
        self._measured.clear()
        return batches, items

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> Tensor | None:
        if not batch_samples:
            return None
        items = torch.stack([self.objective.items(batch) for batch in batch_samples]).sum().to(device)
        return self.accelerator.gather(items).sum() if self.args.world_size > 1 else items

    def training_step(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        parts = None
        # A group of processes sums its gradients in hooks that only a plain backward pass runs.
        if self.acceleration.parts > 1 and self.args.world_size == 1 and num_items_in_batch is not None:
            items, measures = int(num_items_in_batch), self._logs_after_this_step()
            batch = self._prepare_inputs(inputs)
            compute = self._compute_with(model)
            parts = self.acceleration.gradients(model, compute, batch, items, measures=measures)
        if parts is None:
            return super().training_step(model, inputs, num_items_in_batch)
        self._speed.trained_in_step = items
        self._measured += [part.measured for part in parts]
        return torch.stack([part.loss for part in parts]).sum()

    def compute_loss(
        self,
        model: nn.Module,
        inputs: Mapping[str, Any],
        return_outputs: bool = False,  # noqa: ARG002, FBT001, FBT002  # Trainer's signature
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor:
        batch = self.loss_of(model, inputs, measures=self._logs_after_this_step())
        self._measured.append(batch.measured)
        items = batch.items if num_items_in_batch is None else num_items_in_batch
        self._speed.trained_in_step = int(items)
        # Gradients are averaged over processes, and each has only its share of the items.
        loss: Tensor = batch.total * self.args.world_size / items
        return loss

    def loss_of(self, model: nn.Module, batch: Batch, *, measures: bool) -> BatchLoss:
        """The objective on a batch that lies where the model does."""
        return self.objective.loss(self._logits, model, batch, measures=measures)

    def prepared(self, rows: list[Any]) -> Batch:
        """A batch of these rows, where the model is."""
        batch: Batch = self._prepare_inputs(self.objective.collate(rows))
        return batch

    def verify_on(self, batch: Batch) -> None:
        """Find out once whether the model's own loss is needed, and in which faster ways it may be run."""
        if self._verified:
            return
        self._verified = True
        started = time.monotonic()
        with torch.enable_grad(), self.accelerator.autocast():
            reason = verify(self._logits, self.whole_model, batch, self.acceleration)
        if in_any_process(reason is not None, self.args):
            self.acceleration.use_own_loss(self.whole_model, self._logits)
            self._logits.gathers = False
            reason = reason or "another process found a difference"
            emit_message(f"the model's own loss is used, with logits at every position: {reason}", level="warning")
        self._speed.pause(time.monotonic() - started)

    def forget_step(self) -> None:
        """Drop what a step on trial left that is not to be counted."""
        self._measured.clear()
        self._speed.restart()

    def _compute_with(self, model: nn.Module) -> Any:
        def compute(batch: Batch, items: int, measures: bool) -> StepLoss:  # noqa: FBT001  # sent to another process as it is
            found = self.loss_of(model, batch, measures=measures)
            return StepLoss(found.total / items, found.measured)

        return compute

    def _logs_after_this_step(self) -> bool:
        step = self.state.global_step + 1
        return step == 1 or step % self.args.logging_steps == 0 or step >= self.state.max_steps

    def _run_epoch(self, *given: Any, **named: Any) -> None:
        """Trainer looks for the end after a step, and would do one more when it resumes where nothing is left to train."""
        if self.state.global_step >= self.state.max_steps or self.control.should_training_stop:
            self.control.should_training_stop = True
            return
        super()._run_epoch(*given, **named)  # type: ignore[no-untyped-call]  # Trainer's is untyped

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> float:
        """Stops before the step that would ruin the weights."""
        found = float(super()._get_grad_norm(model, grad_norm=grad_norm))  # type: ignore[no-untyped-call]  # Trainer's is untyped
        if not math.isfinite(found):
            raise Diverged(
                f"the gradient is {found} at step {self.state.global_step + 1}: training has diverged, or a row or "
                "weight is broken",
                where="training.learning_rate",
                mend=f"lower it (now {self.args.learning_rate:g}), add warmup_steps, or start from a complete checkpoint",
            )
        self._speed.steps += 1
        self._speed.trained += self._speed.trained_in_step
        return found

    # Evaluation

    @torch.no_grad()
    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Loss and metrics over the validation rows, weighted by item.

        Stopped on request, it returns a loss that nothing can be worse than.
        """
        metrics = None
        if not in_any_process(self.stop.asked, self.args):
            metrics = self._score(self.get_eval_dataloader(), "eval")
        if metrics is None:
            return {"eval_loss": float("inf")}
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    @torch.no_grad()
    def score_test(self, examples: Examples) -> None:
        """Loss and metrics of the finished model over rows that had no part in training it."""
        self.verify_on(self.prepared(self.rows[:2]))  # not yet done where nothing was left to train
        metrics = self._score(self.get_eval_dataloader(RowDataset(examples.rows)), "test")
        if metrics is not None:
            self.log(metrics)

    def _score(self, loader: Any, name: str) -> dict[str, float] | None:
        started = time.monotonic()
        self.whole_model.eval()
        metrics = score(
            loader,
            lambda batch: self.loss_of(self.whole_model, self._prepare_inputs(dict(batch)), measures=True),
            accelerator=self.accelerator,
            stopped=self._stopped_alone,
        )
        self._speed.pause(time.monotonic() - started)
        return None if metrics is None else {f"{name}_{metric}": value for metric, value in metrics.items()}

    def _stopped_alone(self) -> bool:
        """In a group, only whole scorings are agreed upon."""
        return self.stop.asked and self.args.world_size == 1

    # Events

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "train_runtime" in logs:
            if self.state.global_step > self._initial_global_step:  # else they are those of no step
                self.latest |= logs
            return
        if "loss" in logs:
            for name in self._measured[0] if self._measured else ():
                total = self.accelerator.reduce(torch.stack([part[name] for part in self._measured]).sum(), "sum")
                logs[name] = float(total) / max(self._speed.trained_in_step, 1)
            logs |= self._speed.since_last()
        super().log(logs, start_time)
        self.latest |= logs
        emit("metrics", step=self.state.global_step, total_steps=self.state.max_steps, **logs)

    # Checkpoints

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        started = time.monotonic()
        folder = Path(self.args.output_dir or ".") / f"checkpoint-{self.state.global_step}"
        if not is_complete(folder):
            emit("progress", phase="saving", step=self.state.global_step, total_steps=self.state.max_steps)
            if self.args.should_save:
                shutil.rmtree(folder, ignore_errors=True)  # what a killed process left half-written
            self.accelerator.wait_for_everyone()
            super()._save_checkpoint(model, trial)
            self.accelerator.wait_for_everyone()
            if self.args.should_save:
                self._complete(folder)
        self._speed.pause(time.monotonic() - started)

    def _save_rng_state(self, output_dir: str) -> None:
        if self._step_start.inside_step:
            self._step_start.go_back()
        super()._save_rng_state(output_dir)

    def _complete(self, folder: Path) -> None:
        state, keep = self.state, self.config.checkpoint.save_total_limit
        metrics: dict[str, float | None] = {
            name: value for name, value in self.latest.items() if isinstance(value, int | float)
        }
        complete(
            folder, kind="checkpoint", origin=self.origin, step=state.global_step, epoch=state.epoch, metrics=metrics
        )
        emit("checkpoint", path=str(folder), step=state.global_step, metrics=metrics)
        best = state.best_model_checkpoint
        for path in prune(folder.parent, keep, Path(best) if best else None):
            log(f"removed {path.name} (checkpoint.save_total_limit is {keep})")
