"""What is saved beside an exported model, so that it is served as it was trained; and the manifest, which comes last."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from tunesmith_workers.models.hub import local_folder
from tunesmith_workers.models.loading import load_generation_config, load_tokenizer
from tunesmith_workers.process.config import MergeConfig, OnnxConfig
from tunesmith_workers.process.events import emit
from tunesmith_workers.training.checkpoints import Origin, complete, origin_of


def load_own_tokenizer(reference: str, base: str) -> Any:
    """The tokenizer that came with an adapter, with its chat template; else that of its base. Raises ModelUnavailable."""
    has_own = any(local_folder(reference).glob("tokenizer*"))
    return load_tokenizer(reference if has_own else base)


def save_beside(folder: Path, tokenizer: Any, reference: str, base: str) -> None:
    """Write the tokenizer, its chat template and where to stop generating. Raises OSError."""
    tokenizer.save_pretrained(folder)
    has_own = (local_folder(reference) / "generation_config.json").is_file()
    load_generation_config(reference if has_own else base).save_pretrained(folder)


def origin_of_export(config: MergeConfig | OnnxConfig, tokenizer: Any) -> Origin:
    """What was exported, and how."""
    return origin_of(base=config.base, tokenizer=tokenizer, data=None, config=msgspec.to_builtins(config))


def finish(
    folder: Path,
    config: MergeConfig | OnnxConfig,
    tokenizer: Any,
    *,
    kind: str,
    weights: str,
    metrics: dict[str, float | None],
) -> None:
    """Make the folder complete and report its files whose names end with ``weights``. Raises OSError."""
    origin = origin_of_export(config, tokenizer)
    manifest = complete(folder, kind=kind, origin=origin, step=0, epoch=None, metrics=metrics)
    for file in manifest.files:
        if weights in file.path:
            emit("artifact", path=str(folder / file.path), kind="model", bytes=file.bytes)
