"""The story of a training run, the same for all weights and objectives: read, check, load, train, save, report."""

from __future__ import annotations

from typing import Any

import msgspec
import torch

from tunesmith_workers.examples.batches import FIRST_BATCHES
from tunesmith_workers.examples.inputs import TrainingInputs, prepare_inputs
from tunesmith_workers.examples.prepare import Examples
from tunesmith_workers.models.loading import load_model, named_attention
from tunesmith_workers.models.precision import Precision, device, precision_for
from tunesmith_workers.models.starting_point import starting_point
from tunesmith_workers.models.structure import attention_of
from tunesmith_workers.objectives.base import Objective
from tunesmith_workers.objectives.trained_logits import TrainedLogits
from tunesmith_workers.process.config import Folders, TrainConfig
from tunesmith_workers.process.events import emit, emit_message
from tunesmith_workers.process.faults import explain
from tunesmith_workers.process.quiet import quiet
from tunesmith_workers.process.stopping import StopRequest
from tunesmith_workers.reporting.reporter import reporting
from tunesmith_workers.training.acceleration import Acceleration, Plain
from tunesmith_workers.training.arguments import arguments_of, callbacks_of
from tunesmith_workers.training.checkpoints import origin_of, refuse_misfit
from tunesmith_workers.training.finish import finish
from tunesmith_workers.training.reports import Reports
from tunesmith_workers.training.trainer import FineTuner
from tunesmith_workers.training.try_first import TryFirst
from tunesmith_workers.weights.base import Weights


def train(
    weights: Weights,
    objective: Objective,
    config: TrainConfig,
    folders: Folders,
    stop: StopRequest,
    acceleration: Acceleration | None = None,
) -> None:
    """Train ``weights`` for ``objective`` as the config says.

    Raises:
        WorkerFault: the config, the rows or the model cannot be used, or training diverged.
        SystemExit: it was asked to stop, and has saved what there was.
    """
    quiet()
    acceleration = acceleration or Plain(fuses_adapters=config.training.accelerate == "auto")
    weights.check(config)
    inputs = prepare_inputs(config)
    config, examples = inputs.config, inputs.train
    precision = precision_for(config.model.dtype, trains_weights=weights.in_full_precision(config))
    model = _load(config, weights, examples, precision, acceleration)
    trainer = _trainer(inputs, folders, model, objective, precision, stop, acceleration)
    _report_first_batches(trainer)
    if folders.resume_from is not None:
        refuse_misfit(folders.resume_from, trainer.origin)
        emit_message(f"resuming from {folders.resume_from}")
    with reporting(config, folders) as reporter:
        if reporter is not None:
            trainer.add_callback(Reports(reporter))
        trainer.fit(folders.resume_from)
        acceleration.close()
        if stop.asked:
            stop.leave(_kept(trainer.state.global_step))
        stop.leave_at_once()
        if inputs.test is not None:
            _score_test(trainer, inputs.test)
        finish(trainer, weights, config, folders, examples)


def _load(
    config: TrainConfig, weights: Weights, examples: Examples, precision: Precision, acceleration: Acceleration
) -> Any:
    emit("progress", phase="loading_model", part="weights")
    torch.manual_seed(config.training.seed)
    attention = named_attention(config.model.attention) or acceleration.attention(examples.longest, precision)
    start = starting_point(config)
    loaded = load_model(start.base, precision.weights, attention)
    model = weights.attach(loaded, config, fuses=acceleration.fuses_adapters)
    if start.adapter is not None:
        emit_message(f"training goes on from the adapter {start.adapter}, which belongs to {start.base}")
    acceleration.prepare(model)
    if attention is None and attention_of(model) == "eager":
        emit_message("eager attention is used: this model has no sdpa attention in transformers")
    parameters = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
    total, trained = sum(n for n, _ in parameters), sum(n for n, requires in parameters if requires)
    emit_message(
        f"model: {start.base}, {total / 1e6:.1f} M parameters, {trained / 1e6:.2f} M trained ({trained / total:.2%}), "
        f"{precision}, {attention_of(model)} attention, on {_hardware()}"
    )
    return model


def _hardware() -> str:
    if device() == "cuda":
        return f"{torch.cuda.get_device_name()} ({torch.cuda.device_count()} visible)"
    return f"CPU, {torch.get_num_threads()} threads"


def _trainer(
    inputs: TrainingInputs,
    folders: Folders,
    model: Any,
    objective: Objective,
    precision: Precision,
    stop: StopRequest,
    acceleration: Acceleration,
) -> FineTuner:
    config, tokenizer = inputs.config, inputs.tokenizer
    trainer = FineTuner(
        model,
        arguments_of(config, folders, precision, evaluates=inputs.validation is not None),
        objective=objective,
        logits=TrainedLogits(model, tokenizer.pad_token_id),
        inputs=inputs,
        origin=origin_of(
            base=config.base,
            adapter=starting_point(config).adapter,
            tokenizer=tokenizer,
            data=config.train_file,
            config=msgspec.json.decode(msgspec.json.encode(config)),
        ),
        stop=stop,
        acceleration=acceleration,
        callbacks=callbacks_of(config, inputs.validation),
    )
    if config.training.preflight:
        trainer.add_callback(TryFirst(trainer))
    return trainer


def _report_first_batches(trainer: FineTuner) -> None:
    first = trainer.first_batches_sha256()
    text = f"the first {FIRST_BATCHES} batches have the sha256 {first}; a preview of this data answers the same"
    emit("message", level="info", text=text, first_batches_sha256=first)


def _kept(step: int) -> str:
    if not step:
        return "stopped on request in the first step; there was nothing to keep yet"
    return f"stopped on request after step {step}; its checkpoint is complete"


def _score_test(trainer: FineTuner, test: Examples) -> None:
    try:
        trainer.score_test(test)
    except RuntimeError as error:
        # What was trained is worth more than its score: it is saved all the same.
        emit_message(
            f"the test rows could not be scored: {explain(error).text}", level="warning", where="data.test_file"
        )
