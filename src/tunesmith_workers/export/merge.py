"""Merges an adapter into its base and saves a whole model, with its tokenizer and all that it is served with.

The sum is made and compared in float32; only then are the weights rounded to the type that is saved.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tunesmith_workers.export.merging import base_of_adapter, logits_of, max_difference, merge_adapter, stored_dtype
from tunesmith_workers.export.prompts import token_prompts
from tunesmith_workers.export.saving import finish, load_own_tokenizer, origin_of_export, save_beside
from tunesmith_workers.models.loading import load_config, load_model, longest_context
from tunesmith_workers.models.precision import device
from tunesmith_workers.process.config import DType, Folders, MergeConfig
from tunesmith_workers.process.events import emit, emit_message, log
from tunesmith_workers.process.quiet import quiet
from tunesmith_workers.process.stopping import StopRequest
from tunesmith_workers.rollout.parity import certify

_STEPS = 3


def merge(config: MergeConfig, folders: Folders, stop: StopRequest) -> None:
    """Merge as the config says.

    Raises:
        WorkerFault: it is no adapter, it cannot be loaded, or the merged model is not exact enough.
        OSError: the disk is full.
    """
    quiet()
    _tell("loading_model", 0)
    base = base_of_adapter(config.base)
    tokenizer = load_own_tokenizer(config.base, base)
    prompts = token_prompts(tokenizer, longest_context(load_config(base)))
    emit_message(f"merging {config.base} into {base}")
    with stop.removing(folders.output):
        folders.output.mkdir(parents=True, exist_ok=True)
        diff, before = _write(config, base, prompts, folders.output)
        save_beside(folders.output, tokenizer, config.base, base)
        _tell("checking", 2)
        saved = _saved(folders.output)
        rounded = max_difference(before, logits_of(saved, prompts))
        log(f"largest difference of a logit: {diff:.3g} in float32, {rounded:.3g} as it was saved")
        certify(folders.output, saved, tokenizer, origin_of_export(config, tokenizer))
        metrics = {"max_abs_diff": diff, "saved_max_abs_diff": rounded}
        finish(folders.output, config, tokenizer, kind="model", weights=".safetensors", metrics=dict(metrics))
    _tell("done", _STEPS)
    emit("result", model=str(folders.output), metrics=metrics)


def _write(config: MergeConfig, base: str, prompts: list[list[int]], folder: Path) -> tuple[float, list[Tensor]]:
    """Save the merged model. The difference that merging made, and the logits before it; the model itself is let go."""
    merged = merge_adapter(config.base, base, prompts, config.export.tolerance)
    _tell("saving", 1)
    merged.model.to(_dtype(config.model.dtype, base)).save_pretrained(folder)
    return merged.max_abs_diff, merged.logits


def _dtype(wanted: DType, base: str) -> torch.dtype:
    return {"float32": torch.float32, "bfloat16": torch.bfloat16}.get(wanted) or stored_dtype(base)


def _saved(folder: Path) -> Any:
    """What was saved, computed in float32: what differs is what rounding has changed."""
    return load_model(str(folder), torch.float32, None).eval().to(device())


def _tell(phase: str, step: int) -> None:
    emit("progress", phase=phase, step=step, total_steps=_STEPS)
