"""The story of a training run, the same for ``sft`` and ``lora``: read, check, load, train, save, say.

They differ in which parameters they train and in how the final model is written; both are handed in.
"""

from __future__ import annotations

import logging
import math
import warnings
from pathlib import Path
from typing import Any, Protocol

import msgspec
import torch
import transformers
from huggingface_hub.utils.tqdm import disable_progress_bars
from transformers import EarlyStoppingCallback, TrainerCallback, TrainingArguments

from tunesmith_workers.batches import FIRST_BATCHES
from tunesmith_workers.checkpoints import complete, origin_of, refuse_misfit
from tunesmith_workers.config import Folders, TrainConfig
from tunesmith_workers.examples import Examples
from tunesmith_workers.faults import BadConfig, explain
from tunesmith_workers.lanes import lanes_for
from tunesmith_workers.material import get_ready
from tunesmith_workers.models import (
    Precision,
    attention_for,
    attention_of,
    device,
    load_generation_config,
    load_model,
    named_attention,
    precision_for,
)
from tunesmith_workers.preflight import TryFirst
from tunesmith_workers.stopping import StopRequest
from tunesmith_workers.telling import log, note, tell
from tunesmith_workers.trainer import FineTuner


class Method(Protocol):
    """What is trained, and how it is written at the end."""

    trains_weights: bool
    """Whether the base weights themselves are trained."""

    def attach(self, model: Any, config: TrainConfig) -> Any:
        """The model to train."""

    def save(self, model: Any, folder: Path, config: TrainConfig) -> str:
        """Write the final model; its kind, ``adapter`` or ``model``, is returned."""


def train(method: Method, config: TrainConfig, folders: Folders, stop: StopRequest) -> None:
    """Train as the config says.

    Raises:
        WorkerFault: the config, the rows or the model cannot be used, or training diverged.
        SystemExit: it was asked to stop, and has saved what there was.
    """
    quiet()
    material = get_ready(config)
    config, examples = material.config, material.train
    precision = precision_for(config.model.dtype, trains_weights=method.trains_weights)
    model = _load(config, method, examples, precision)
    trainer = _trainer(
        config,
        folders,
        model,
        material.tokenizer,
        examples,
        material.validation,
        precision,
        stop,
        trains_weights=method.trains_weights,
    )
    if config.training.preflight:
        trainer.add_callback(TryFirst(trainer.try_first))
    first = trainer.first_batches_sha256()
    words = f"the first {FIRST_BATCHES} batches have the sha256 {first}; a preview of this data answers the same"
    tell("message", level="info", text=words, first_batches_sha256=first)
    if folders.resume_from is not None:
        refuse_misfit(folders.resume_from, trainer.origin)
        note(f"going on from {folders.resume_from}")
    trainer.fit(folders.resume_from)
    trainer.end_workers()
    if stop.asked:
        stop.leave(_kept(trainer.state.global_step))
    stop.leave_at_once()
    if material.test is not None:
        _score_test(trainer, material.test)
    _finish(trainer, method, config, folders, examples)


def _kept(step: int) -> str:
    if not step:
        return "stopped on request in the first step; there was nothing to keep yet"
    return f"stopped on request after step {step}; its checkpoint is complete"


def quiet() -> None:
    """Keep progress bars and advice to developers of libraries out of the run's log."""
    transformers.utils.logging.set_verbosity_error()  # type: ignore[no-untyped-call]  # transformers leaves it untyped
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # likewise
    disable_progress_bars()
    logging.getLogger("accelerate").setLevel(logging.ERROR)
    for module in ("transformers", "peft", "torch", "accelerate"):
        warnings.filterwarnings("ignore", module=module)


def _load(config: TrainConfig, method: Method, examples: Examples, precision: Precision) -> Any:
    tell("progress", phase="loading_model", part="weights")
    torch.manual_seed(config.training.seed)
    attention = named_attention(config.model.attention)
    if config.training.accelerate == "auto":
        attention = attention_for(config.model.attention, examples.longest, precision)
    model = method.attach(load_model(config.base, precision.weights, attention), config)
    if attention is None and attention_of(model) == "eager":
        note("eager attention is used: this model has no sdpa attention in transformers")
    parameters = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
    total, trained = sum(n for n, _ in parameters), sum(n for n, requires in parameters if requires)
    note(
        f"model: {config.base}, {total / 1e6:.1f} M parameters, {trained / 1e6:.2f} M trained ({trained / total:.2%}), "
        f"{precision}, {attention_of(model)} attention, on {_hardware()}"
    )
    return model


def _hardware() -> str:
    if device() == "cuda":
        return f"{torch.cuda.get_device_name()} ({torch.cuda.device_count()} visible)"
    return f"CPU, {torch.get_num_threads()} threads"


def _trainer(
    config: TrainConfig,
    folders: Folders,
    model: Any,
    tokenizer: Any,
    examples: Examples,
    validation: Examples | None,
    precision: Precision,
    stop: StopRequest,
    *,
    trains_weights: bool,
) -> FineTuner:
    training = config.training
    accelerates = training.accelerate == "auto"
    origin = origin_of(
        base=config.base,
        tokenizer=tokenizer,
        data=config.train_file,
        config=msgspec.json.decode(msgspec.json.encode(config)),
    )
    return FineTuner(
        model,
        _arguments(config, folders, precision, evaluates=validation is not None),
        train=examples,
        validation=validation,
        tokenizer=tokenizer,
        origin=origin,
        stop=stop,
        # Forked workers hold gradients of their own, which is little for an adapter and much for a whole model.
        lanes=lanes_for(model, training.per_device_train_batch_size)
        if accelerates and not trains_weights and not training.gradient_checkpointing
        else None,
        # What attends in rows is made for a CPU; an accelerator has attentions of its own, which padding costs less.
        side_by_side=accelerates and device() == "cpu" and config.model.attention == "auto",
        group_by_length=training.group_by_length,
        save_total_limit=config.checkpoint.save_total_limit,
        callbacks=_callbacks(config, validation),
    )


def _callbacks(config: TrainConfig, validation: Examples | None) -> list[TrainerCallback]:
    patience = config.evaluation.early_stopping_patience
    if patience is None:
        return []
    if validation is None:
        raise BadConfig(
            "early stopping needs validation rows",
            where="evaluation.early_stopping_patience",
            mend="set data.validation_file or evaluation.holdout_share, and evaluation.strategy to steps or epoch",
        )
    return [EarlyStoppingCallback(early_stopping_patience=patience)]


def _arguments(config: TrainConfig, folders: Folders, precision: Precision, *, evaluates: bool) -> TrainingArguments:
    training, evaluation = config.training, config.evaluation
    strategy = evaluation.strategy if evaluates and evaluation.strategy != "never" else "no"
    keeps_best = evaluates and evaluation.early_stopping_patience is not None
    try:
        return TrainingArguments(
            output_dir=str(folders.checkpoints),
            num_train_epochs=training.num_train_epochs,
            max_steps=training.max_steps or -1,
            per_device_train_batch_size=training.per_device_train_batch_size,
            per_device_eval_batch_size=evaluation.per_device_eval_batch_size,
            gradient_accumulation_steps=training.gradient_accumulation_steps,
            learning_rate=training.learning_rate,
            lr_scheduler_type=training.lr_scheduler_type,
            warmup_steps=training.warmup_steps,
            weight_decay=training.weight_decay,
            max_grad_norm=training.max_grad_norm,
            optim=training.optim,
            gradient_checkpointing=training.gradient_checkpointing,
            gradient_checkpointing_kwargs={"use_reentrant": False} if training.gradient_checkpointing else None,
            logging_steps=training.logging_steps,
            logging_first_step=True,
            logging_nan_inf_filter=False,
            seed=training.seed,
            eval_strategy=strategy,
            eval_steps=evaluation.steps,
            # The best checkpoint can only be kept where one is written at each evaluation.
            save_strategy=strategy if keeps_best else "steps",
            save_steps=evaluation.steps if keeps_best else config.checkpoint.save_steps,
            load_best_model_at_end=keeps_best,
            metric_for_best_model="eval_loss" if keeps_best else None,
            greater_is_better=False if keeps_best else None,
            bf16=precision.autocast,
            use_cpu=device() == "cpu",
            dataloader_pin_memory=device() == "cuda",
            remove_unused_columns=False,
            disable_tqdm=True,
            report_to=[],
            log_level="error",
        )
    except (ValueError, KeyError) as error:
        raise BadConfig(
            str(error), where="training", mend="see the recipe's comments for what a knob accepts"
        ) from error


def _score_test(trainer: FineTuner, test: Examples) -> None:
    try:
        trainer.score_test(test)
    except RuntimeError as error:
        # What was trained is worth more than its score: it is saved all the same.
        note(f"the test rows could not be scored: {explain(error).text}", level="warning", where="data.test_file")


def _finish(trainer: FineTuner, method: Method, config: TrainConfig, folders: Folders, examples: Examples) -> None:
    tell("progress", phase="saving", step=trainer.state.global_step, total_steps=trainer.state.max_steps)
    if not trainer.args.should_save:
        return
    folders.output.mkdir(parents=True, exist_ok=True)
    kind = method.save(trainer.accelerator.unwrap_model(trainer.model), folders.output, config)
    tokenizer: Any = trainer.processing_class
    tokenizer.save_pretrained(folders.output)
    _save_generation_config(config.base, examples.ended_by, tokenizer, folders.output)
    metrics = {**_results(trainer.latest), "trained_token_share": round(examples.share_trained, 4)}
    manifest = complete(
        folders.output,
        kind=kind,
        origin=trainer.origin,
        step=trainer.state.global_step,
        epoch=trainer.state.epoch,
        metrics=dict(metrics),
    )
    for file in manifest.files:
        if file.path.endswith(".safetensors"):
            tell("artifact", path=str(folders.output / file.path), kind=kind, bytes=file.bytes)
    log(f"done: {kind} in {folders.output}")
    tell("result", model=str(folders.output), metrics=metrics)


def _save_generation_config(base: str, ended_by: frozenset[int], tokenizer: Any, folder: Path) -> None:
    """Whoever serves this model must stop at the tokens it was trained to end a turn with."""
    generation = load_generation_config(base)
    known = generation.eos_token_id
    ends = {known} if isinstance(known, int) else set(known or ())
    # What this model was trained to say comes first: some programs only look at the first one.
    tokens = [*sorted(ended_by), *sorted(ends - ended_by)]
    generation.eos_token_id = tokens[0] if len(tokens) == 1 else tokens or None
    generation.pad_token_id = tokenizer.pad_token_id
    generation.save_pretrained(folder)


def _results(latest: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in latest.items() if isinstance(value, int | float) and math.isfinite(value)}
