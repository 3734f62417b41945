"""The training loop: transformers' Trainer, with our loss, order of rows, checkpoints, and words.

What is trained is decided by the caller. Loading, data and saving the final model are in ``training``.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Sampler
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from tunesmith_workers.batch_parts import BatchParts
from tunesmith_workers.batches import Padding, RowDataset, RowSampler, in_batches, sha256_of
from tunesmith_workers.checkpoints import Origin, complete, is_complete, metrics_of, prune
from tunesmith_workers.examples import Examples
from tunesmith_workers.faults import Diverged
from tunesmith_workers.hooks import refuse_other_hooks
from tunesmith_workers.lanes import Patience, split
from tunesmith_workers.loss import TrainedTokenLoss, count_trained
from tunesmith_workers.preflight import Findings, Plan, Show, preflight
from tunesmith_workers.randomness import Randomness, StepStart
from tunesmith_workers.speed import Speed
from tunesmith_workers.stopping import StepDropped, StopRequest
from tunesmith_workers.telling import Paced, log, note, tell
from tunesmith_workers.verify import short_rows, verify

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

    # The loss is divided by all trained tokens of an optimizer step, so Trainer must not divide it again.
    loss_is_scaled_for_ga = True

    def __init__(
        self,
        model: nn.Module,
        args: TrainingArguments,
        *,
        train: Examples,
        validation: Examples | None,
        tokenizer: Any,
        origin: Origin,
        stop: StopRequest,
        lanes: int | None,
        side_by_side: bool,
        group_by_length: bool,
        save_total_limit: int | None,
        callbacks: list[TrainerCallback],
    ) -> None:
        refuse_other_hooks(FineTuner, Trainer, _REPLACED)
        self._whole_model = model
        self._stop = stop
        self.origin = origin
        self._lane_count = lanes
        self._parts: BatchParts | None = None
        self._seconds_per_token = 0.0
        """In one thread, of a forward and a backward pass, as far as it is known before the first one."""
        self._side_by_side = side_by_side
        self._keep = save_total_limit
        self._group_by_length = group_by_length
        self._token_loss = TrainedTokenLoss(model)
        self._verified = False
        self._step_start = StepStart()
        self._correct: list[Tensor] = []
        self._speed = Speed()
        self.latest: dict[str, float] = {}
        """The newest value of each metric."""
        super().__init__(
            model=model,
            args=args,
            data_collator=Padding(tokenizer.pad_token_id),
            train_dataset=RowDataset(train.rows),
            eval_dataset=RowDataset(validation.rows) if validation else None,
            processing_class=tokenizer,
            callbacks=[_Watch(stop), self._step_start, *callbacks],
        )
        self.remove_callback(PrinterCallback)
        self._rows = train.rows

    # Trying it first

    def try_first(self, model: nn.Module, show: Show) -> Findings:
        """One step on the longest rows, one scoring and one save, with nothing left of them but what was measured."""
        args, state = self.args, self.state
        begun_with = Randomness()
        on_trial = _Trial(self, model)  # knows then in how many parts a batch is computed
        saves = saves_in(args, state)
        kept = saves if self._keep is None else min(saves, self._keep + 1)
        plan = Plan(
            rows=min(args.train_batch_size, len(self._rows)),
            parts=self._lane_count or 1,
            middling_share=on_trial.middling_share(min(args.train_batch_size, len(self._rows))),
            accumulation=args.gradient_accumulation_steps,
            steps=state.max_steps - state.global_step,
            trained_parameters=sum(p.numel() for p in model.parameters() if p.requires_grad),
            checkpoints=kept + 1,
            folder=Path(args.output_dir or "."),
        )
        try:
            return preflight(on_trial, plan, scores=self.eval_dataset is not None, show=show)
        finally:
            begun_with.restore()
            self._speed.restart()

    # Order of rows

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:  # noqa: ARG002  # Trainer's signature
        return RowSampler(self._rows, self.args.train_batch_size, self.args.seed, group_by_length=self._group_by_length)

    def first_batches_sha256(self) -> str:
        """What the first epoch begins with, in all processes together: the same as a preview of this data answers."""
        padding: Any = self.data_collator
        return sha256_of(in_batches(self._rows, self._get_train_sampler(), self.args.train_batch_size, padding))

    # Loss

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: torch.device) -> tuple[list[Any], Any]:
        batches, items = super().get_batch_samples(epoch_iterator, num_batches, device)
        if batches:
            self._verify_on(batches[0])
        self._speed.rows += sum(len(batch["input_ids"]) for batch in batches) * self.args.world_size
        self._speed.tokens += sum(int(batch["attention_mask"].sum()) for batch in batches) * self.args.world_size
        self._correct.clear()
        return batches, items

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> Tensor | None:
        if not batch_samples:
            return None
        trained = torch.stack([count_trained(batch["labels"]) for batch in batch_samples]).sum().to(device)
        return self.accelerator.gather(trained).sum() if self.args.world_size > 1 else trained

    def training_step(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        # A group of processes sums its gradients in hooks that only a plain backward pass runs.
        fit = self.args.world_size == 1 and self._token_loss.gathers
        parts = self._parts_of(model) if fit and num_items_in_batch is not None else None
        if parts is None or num_items_in_batch is None:
            return super().training_step(model, inputs, num_items_in_batch)
        trained, counts = int(num_items_in_batch), self._logs_after_this_step()
        self._speed.trained_in_step = trained
        batches = split(self._prepare_inputs(inputs), parts.count)
        tokens = [batch["input_ids"].numel() for batch in batches]
        results = parts.add_gradients([(batch, trained, counts) for batch in batches], tokens)
        self._correct += [torch.tensor(correct) for _, correct in results if correct is not None]
        return torch.tensor(sum(loss for loss, _ in results))

    def _parts_of(self, model: nn.Module) -> BatchParts | None:
        """Workers are forked when they are first needed, if there are to be any: they see what there is at that moment."""
        if self._parts is None and self._lane_count is not None:
            model.train()
            parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]

            def work(request: tuple[Mapping[str, Tensor], int, bool]) -> tuple[Any, Sequence[Tensor | None]]:
                part, trained, counts = request
                batch = self._token_loss(model, part, count_correct=counts)
                loss = batch.total / trained
                correct = None if batch.correct is None else int(batch.correct)
                return (float(loss.detach()), correct), torch.autograd.grad(loss, parameters, allow_unused=True)

            try:
                self._parts = BatchParts(
                    self._lane_count,
                    work,
                    parameters,
                    patience=Patience(self._seconds_per_token),
                    stop_asked=lambda: self._stop.asked,
                )
            except OSError as error:
                note(f"batches are computed in one process, as no other could be started: {error}", level="warning")
                self._lane_count = None
        return self._parts

    def end_workers(self) -> None:
        """Training is over: what they hold in memory is needed elsewhere."""
        if self._parts is not None:
            self._parts.close()
            self._parts = None

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

    def _run_epoch(self, *given: Any, **named: Any) -> None:
        """Trainer looks for the last step after a step, and would do one more when it resumes from the last one."""
        if self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True
            return
        super()._run_epoch(*given, **named)  # type: ignore[no-untyped-call]  # Trainer's is untyped

    def compute_loss(
        self,
        model: nn.Module,
        inputs: Mapping[str, Tensor],
        return_outputs: bool = False,  # noqa: ARG002, FBT001, FBT002  # Trainer's signature
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor:
        batch = self._token_loss(model, inputs, count_correct=self._logs_after_this_step())
        if batch.correct is not None:
            self._correct.append(batch.correct)
        trained = batch.trained if num_items_in_batch is None else num_items_in_batch
        self._speed.trained_in_step = int(trained)
        # Gradients are averaged over processes, and each has only its share of the tokens.
        loss: Tensor = batch.total * self.args.world_size / trained
        return loss

    def _verify_on(self, batch: Mapping[str, Tensor]) -> None:
        """Find out once in which of the faster ways this model may be run."""
        if self._verified:
            return
        self._verified = True
        started = time.monotonic()
        with torch.enable_grad(), self.accelerator.autocast():
            found = verify(self._token_loss, self._whole_model, batch, fastest=self._side_by_side)
        if _anyone(found.own_loss is not None, self.args):
            self._token_loss.pad(self._whole_model)
            self._token_loss.gathers = False
            reason = found.own_loss or "another process found a difference"
            note(f"the model's own loss is used, with logits at every position: {reason}", level="warning")
        if found.attention is not None:
            note(f"sdpa attention is used: {found.attention}")
        if self._side_by_side:
            packed = "rows lie side by side, and what all of a batch begin with stands once"
            note(packed if self._token_loss.packs else f"rows are padded to one length: {found.padded}")
        if self._lane_count is not None and (found.whole or not self._token_loss.gathers):
            self._lane_count = None
            note(f"batches are computed in one process: {found.whole or 'the own loss of the model is used'}")
        taken = time.monotonic() - started
        self._speed.pause(taken)
        # What was compared on these rows took longer than once forward and back.
        self._seconds_per_token = taken * torch.get_num_threads() / short_rows(batch)["input_ids"].numel()

    def _logs_after_this_step(self) -> bool:
        step = self.state.global_step + 1
        return step == 1 or step % self.args.logging_steps == 0 or step >= self.state.max_steps

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
        """Loss and token accuracy over the validation rows, weighted by token.

        Stopped on request, it returns a loss that nothing can be worse than.
        """
        if _anyone(self._stop.asked, self.args):
            return {"eval_loss": float("inf")}
        metrics = self._score(self.get_eval_dataloader(), "eval")
        if metrics is None:
            return {"eval_loss": float("inf")}
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    @torch.no_grad()
    def score_test(self, examples: Examples) -> None:
        """Loss and token accuracy of the finished model over rows that had no part in training it."""
        # Not yet done where nothing was left to train.
        self._verify_on(self._prepare_inputs(self.data_collator(self._rows[:2])))  # type: ignore[arg-type]  # it is our Padding
        metrics = self._score(self.get_eval_dataloader(RowDataset(examples.rows)), "test")
        if metrics is not None:
            self.log(metrics)

    def _score(self, loader: DataLoader[Any], name: str) -> dict[str, float] | None:
        """None when it was asked to stop in the middle."""
        self._whole_model.eval()
        totals = torch.zeros(3, dtype=torch.float64, device=self.args.device)
        paced, started = Paced(), time.monotonic()
        for number, batch in enumerate(loader, start=1):
            with self.accelerator.autocast():
                result = self._token_loss(self._whole_model, self._prepare_inputs(batch), count_correct=True)
            correct = math.nan if result.correct is None else float(result.correct)
            totals += torch.tensor([float(result.total), correct, result.trained], device=totals.device)
            paced.tell("progress", phase="evaluating", batch=number, total_batches=len(loader))
            if self._asked_to_stop() and self.args.world_size == 1:
                return None
        self._speed.pause(time.monotonic() - started)
        loss, correct, trained = self.accelerator.reduce(totals, "sum").tolist()
        metrics = {f"{name}_loss": loss / max(trained, 1)}
        if not math.isnan(correct):  # else it could not be measured
            metrics[f"{name}_token_accuracy"] = correct / max(trained, 1)
        return metrics

    def _asked_to_stop(self) -> bool:
        return self._stop.asked

    # Words

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "train_runtime" in logs:
            if self.state.global_step > self._initial_global_step:  # else they are those of no step
                self.latest |= logs
            return
        if "loss" in logs:
            if self._correct:
                correct = self.accelerator.reduce(torch.stack(self._correct).sum(), "sum")
                logs["token_accuracy"] = float(correct) / max(self._speed.trained_in_step, 1)
            logs |= self._speed.since_last()
        super().log(logs, start_time)
        self.latest |= logs
        tell("metrics", step=self.state.global_step, total_steps=self.state.max_steps, **logs)

    # Checkpoints

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        started = time.monotonic()
        folder = Path(self.args.output_dir or ".") / f"checkpoint-{self.state.global_step}"
        if not is_complete(folder):
            tell("progress", phase="saving", step=self.state.global_step, total_steps=self.state.max_steps)
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
        metrics: dict[str, float | None] = {
            name: value for name, value in self.latest.items() if isinstance(value, int | float)
        }
        complete(
            folder,
            kind="checkpoint",
            origin=self.origin,
            step=self.state.global_step,
            epoch=self.state.epoch,
            metrics=metrics,
        )
        tell("checkpoint", path=str(folder), step=self.state.global_step, metrics=metrics)
        best = self.state.best_model_checkpoint
        for path in prune(folder.parent, self._keep, Path(best) if best else None):
            log(f"removed {path.name} (checkpoint.save_total_limit is {self._keep})")


def saves_in(args: TrainingArguments, state: TrainerState) -> int:
    """How many checkpoints a whole training saves, the one at its end included."""
    if args.save_strategy == "steps":
        return -(-state.max_steps // int(args.save_steps))
    return min(state.num_train_epochs, state.max_steps)


class _Trial:
    """What the preflight may do with a trainer."""

    def __init__(self, trainer: FineTuner, model: nn.Module) -> None:
        self._trainer = trainer
        self._model = model
        self._by_length = sorted(trainer._rows, key=lambda row: len(row.input_ids), reverse=True)  # noqa: SLF001  # one module, two halves
        trainer._verify_on(self.batch_of(2, longest=False))  # noqa: SLF001  # likewise

    def batch_of(self, rows: int, *, longest: bool) -> Mapping[str, Tensor]:
        first = 0 if longest else max(0, (len(self._by_length) - rows) // 2)
        batch: Mapping[str, Tensor] = self._trainer._prepare_inputs(  # noqa: SLF001  # Trainer has no public name for it
            self._trainer.data_collator(self._by_length[first : first + rows])  # type: ignore[arg-type]  # it is our Padding
        )
        return batch

    def middling_share(self, rows: int) -> float:
        """Tokens of a batch of middling rows, of those of the longest batch."""
        middling, longest = (int(self.batch_of(rows, longest=way)["attention_mask"].sum()) for way in (False, True))
        return middling / longest

    def step(self, batch: Mapping[str, Tensor]) -> None:
        self._trainer.training_step(self._model, dict(batch), count_trained(batch["labels"]))

    @torch.no_grad()
    def score(self, batch: Mapping[str, Tensor]) -> None:
        self._model.eval()
        self._trainer._token_loss(self._model, batch)  # noqa: SLF001  # one module, two halves
        self._model.train()

    def save(self, folder: Path) -> None:
        with self._trainer._stop.removing(folder):  # noqa: SLF001  # likewise
            self._trainer.accelerator.unwrap_model(self._model).save_pretrained(folder)

    def forget(self) -> None:
        self._model.zero_grad(set_to_none=True)
        self._trainer._correct.clear()  # noqa: SLF001  # likewise


class _Watch(TrainerCallback):
    """Tells progress between log lines, and ends training when asked to."""

    def __init__(self, stop: StopRequest) -> None:
        self._stop = stop
        self._paced = Paced()

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:  # noqa: ARG002  # Trainer's signature
        tell("progress", phase="training", step=state.global_step, total_steps=state.max_steps)

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:  # noqa: ARG002  # Trainer's signature
        self._stop.wait_for_checkpoint()  # before, there is nothing to keep

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._paced.tell(
            "progress", phase="training", step=state.global_step, total_steps=state.max_steps, epoch=state.epoch
        )
        if state.global_step >= state.max_steps:
            control.should_log = True  # a curve ends where training does
        if _anyone(self._stop.asked, args):
            control.should_training_stop = control.should_save = True
            self._stop.asked = True

    def on_substep_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        # Before the first step there is nothing to save; with several processes only whole steps are agreed upon.
        if self._stop.asked and state.global_step and args.world_size == 1:
            control.should_training_stop = control.should_save = True


def _anyone(here: bool, args: TrainingArguments) -> bool:  # noqa: FBT001  # a vote has one ballot
    """Whether it holds in any process of the group: all must do the same, or some wait for the others forever."""
    if args.world_size == 1:
        return here
    vote = torch.tensor(int(here), device=args.device)
    torch.distributed.all_reduce(vote, torch.distributed.ReduceOp.MAX)
    return bool(vote)
