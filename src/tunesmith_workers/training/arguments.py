"""From a run's config to what transformers' Trainer is told."""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback, TrainingArguments

from tunesmith_workers.examples.prepare import Examples
from tunesmith_workers.models.precision import Precision, device
from tunesmith_workers.process.config import Folders, TrainConfig
from tunesmith_workers.process.faults import BadConfig
from tunesmith_workers.training.counters import EarlyStopping


def arguments_of(config: TrainConfig, folders: Folders, precision: Precision, *, evaluates: bool) -> TrainingArguments:
    """What transformers' Trainer is told. ``evaluates`` is whether there are validation rows.

    Raises:
        BadConfig: naming what does not fit.
    """
    try:
        return TrainingArguments(
            output_dir=str(folders.checkpoints),
            **_loop(config),
            **_saving(config, evaluates=evaluates),
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
            str(error), where="training", mend="see the recipe's comments for what an option accepts"
        ) from error


def _loop(config: TrainConfig) -> dict[str, Any]:
    training = config.training
    return {
        "num_train_epochs": training.num_train_epochs,
        "max_steps": training.max_steps or -1,
        "per_device_train_batch_size": training.per_device_train_batch_size,
        "per_device_eval_batch_size": config.evaluation.per_device_eval_batch_size,
        "gradient_accumulation_steps": training.gradient_accumulation_steps,
        "learning_rate": training.learning_rate,
        "lr_scheduler_type": training.lr_scheduler_type,
        "warmup_steps": training.warmup_steps,
        "weight_decay": training.weight_decay,
        "max_grad_norm": training.max_grad_norm,
        "optim": training.optim,
        "gradient_checkpointing": training.gradient_checkpointing,
        "gradient_checkpointing_kwargs": {"use_reentrant": False} if training.gradient_checkpointing else None,
        "logging_steps": training.logging_steps,
        "logging_first_step": True,
        "logging_nan_inf_filter": False,
        "seed": training.seed,
    }


def _saving(config: TrainConfig, *, evaluates: bool) -> dict[str, Any]:
    evaluation = config.evaluation
    strategy = evaluation.strategy if evaluates and evaluation.strategy != "never" else "no"
    keeps_best = evaluates and evaluation.early_stopping_patience is not None
    return {
        "eval_strategy": strategy,
        "eval_steps": evaluation.steps,
        # The best checkpoint can only be kept where one is written at each evaluation.
        "save_strategy": strategy if keeps_best else "steps",
        "save_steps": evaluation.steps if keeps_best else config.checkpoint.save_steps,
        "load_best_model_at_end": keeps_best,
        "metric_for_best_model": "eval_loss" if keeps_best else None,
        "greater_is_better": False if keeps_best else None,
    }


def callbacks_of(config: TrainConfig, validation: Examples | None) -> list[TrainerCallback]:
    """Early stopping, where the config asks for it. Raises BadConfig without validation rows."""
    patience = config.evaluation.early_stopping_patience
    if patience is None:
        return []
    if validation is None:
        raise BadConfig(
            "early stopping needs validation rows",
            where="evaluation.early_stopping_patience",
            mend="set data.validation_file or evaluation.holdout_share, and evaluation.strategy to steps or epoch",
        )
    return [EarlyStopping(early_stopping_patience=patience)]
