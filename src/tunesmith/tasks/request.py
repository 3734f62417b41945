"""What the calls of the train-task door are asked with. Checked by type when they are decoded; the rest is in ``service``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec

from tunesmith.records import Callback

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=4096)]


class TrainRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A training as a client asks for it."""

    strategy: Name
    """`trl` trains all weights (the recipe `sft`), `lora` an adapter; or the name of any other recipe that trains."""
    dataset_path: Name
    """A file or folder below the allowed roots, or an uploaded dataset's id or name."""
    output_dir: Name
    """Where the finished model is put: a folder below the allowed roots that is empty or not there yet."""
    config: Mapping[str, Any] = {}
    """`model_path`, and options as transformers' TrainingArguments spell them or as the recipe does; adapters below `lora_config`."""
    notes: Annotated[str, msgspec.Meta(max_length=20_000)] = ""
    priority: Annotated[int, msgspec.Meta(ge=-1_000_000, le=1_000_000)] = 0
    """Larger starts first."""
    callback: Callback | str | None = None
    """Whom to tell what happens: a URL, or a URL with the events that are wanted."""


class ExportRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An export as a client asks for it."""

    model_path: Name
    """Any model reference. An adapter is merged into its base first."""
    output_path: Name
    """Where it is put: a folder below the allowed roots that is empty or not there yet; or a name that ends in `.onnx`, for that
    file alone."""
    export_format: Literal["onnx"] = "onnx"
    """There is no other."""
    opset_version: int | None = None
    """Of the ONNX operators; null: what the exporter does best."""


class EvaluateRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An evaluation as a client asks for it."""

    model_path: Name
    """Any model reference."""
    dataset_path: Name
    """A file or folder below the allowed roots, or an uploaded dataset's id or name. Of a folder, the split `test` if it has one."""
    metrics: Annotated[tuple[str, ...], msgspec.Meta(max_length=100)] = ()
    """Such as `loss`, `perplexity`, `accuracy`, `exact_match`; without any, those of the recipe."""
    batch_size: int | None = None
    """Rows together."""
