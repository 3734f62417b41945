"""Writes the final model: weights, tokenizer, where to stop generating, the parity certificate, and a manifest."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from tunesmith_workers.examples.prepare import Examples
from tunesmith_workers.models.loading import load_generation_config, named_attention
from tunesmith_workers.models.starting_point import starting_point
from tunesmith_workers.process.config import Folders, TrainConfig
from tunesmith_workers.process.events import emit, log
from tunesmith_workers.rollout.parity import certify
from tunesmith_workers.training.checkpoints import complete
from tunesmith_workers.training.trainer import FineTuner
from tunesmith_workers.weights.base import Weights


def finish(trainer: FineTuner, weights: Weights, config: TrainConfig, folders: Folders, examples: Examples) -> None:
    """Save the model with all that is served with it, then report it.

    Raises:
        OSError: the disk is full.
    """
    emit("progress", phase="saving", step=trainer.state.global_step, total_steps=trainer.state.max_steps)
    if not trainer.args.should_save:
        return
    folders.output.mkdir(parents=True, exist_ok=True)
    model: Any = trainer.accelerator.unwrap_model(trainer.model)
    kind = weights.save(model, folders.output, config)
    tokenizer: Any = trainer.processing_class
    tokenizer.save_pretrained(folders.output)
    _save_generation_config(starting_point(config).generation_config, examples.ended_by, tokenizer, folders.output)
    if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
        log("no parity certificate: the weights are spread over processes, and only the first is here")
    else:
        certify(folders.output, model, tokenizer, trainer.origin, attention=named_attention(config.model.attention))
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
            emit("artifact", path=str(folders.output / file.path), kind=kind, bytes=file.bytes)
    log(f"done: {kind} in {folders.output}")
    emit("result", model=str(folders.output), metrics=metrics)


def _save_generation_config(earlier: str, ended_by: frozenset[int], tokenizer: Any, folder: Path) -> None:
    """Whoever serves this model must stop at the tokens it was trained to end a turn with."""
    generation = load_generation_config(earlier)
    known = generation.eos_token_id
    ends = {known} if isinstance(known, int) else set(known or ())
    # What this model was trained to say comes first: some programs only look at the first one.
    tokens = [*sorted(ended_by), *sorted(ends - ended_by)]
    generation.eos_token_id = tokens[0] if len(tokens) == 1 else tokens or None
    generation.pad_token_id = tokenizer.pad_token_id
    generation.save_pretrained(folder)


def _results(latest: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in latest.items() if isinstance(value, int | float) and math.isfinite(value)}
