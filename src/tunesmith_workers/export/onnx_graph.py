"""A causal language model as one ONNX graph that reads prompts and continues them: tokens and a key/value cache in, logits and the
grown cache out, for any batch, length and past.

The names of inputs and outputs are those that programs for ONNX models expect (``past_key_values.0.key``, ``present.0.key``). A
model whose cache is not made of keys and values is exported without one. Nothing is written or compared here.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from typing import Any

import msgspec
import onnx_ir
import torch
from transformers import DynamicCache
from transformers.exporters.configs import OnnxConfig
from transformers.exporters.exporter_onnx import OnnxExporter

from tunesmith_workers.process.events import emit_message

_SAMPLE_BATCH, _SAMPLE_PAST, _SAMPLE_NEW = 2, 5, 3
"""Sizes to trace with: none is 0 or 1, nor equal to another, which would be taken for fixed or for the same."""
_CACHE = re.compile(r"(input|output)\.past_key_values\.layers\.(\d+)\.(keys|values)")


class Graph(msgspec.Struct, frozen=True):
    """An exported model."""

    program: Any
    """An ``onnx_ir.Model``."""
    has_cache: bool
    opset: int


def export_graph(model: Any, opset: int | None) -> Graph:
    """Export a model that is loaded on the CPU, with a cache if it can be had.

    Raises:
        Exception: the exporter does not know something in this model; it says what.
    """
    try:
        program, has_cache = _exported(model, _sample(model, with_cache=True), opset), True
    except Exception as error:  # noqa: BLE001  # the exporter, the tracer and the model raise whatever they like
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        emit_message(f"exported without a key/value cache, which this model does not allow: {reason}", level="warning")
        program, has_cache = _exported(model, _sample(model, with_cache=False), opset), False
    _rename(program)
    return Graph(program, has_cache, program.opset_imports[""])


def _exported(model: Any, sample: dict[str, Any], opset: int | None) -> Any:
    exporter = OnnxExporter()  # type: ignore[no-untyped-call]  # transformers leaves it untyped
    config = OnnxConfig(dynamic=True, dynamic_shapes=_free_sizes(sample), opset_version=opset)
    return exporter.export(model, sample, config=config).program


def _free_sizes(sample: dict[str, Any]) -> dict[str, Any]:
    """Which axes may have any size: batch and length. To name them saves the exporter from finding out about the others."""
    free = torch.export.Dim.AUTO
    sizes: dict[str, Any] = {
        name: {0: free, 1: free} for name, value in sample.items() if isinstance(value, torch.Tensor)
    }
    if "past_key_values" in sample:
        tensors = 2 * len(sample["past_key_values"].layers)
        sizes["past_key_values"] = [{0: free, 2: free} for _ in range(tensors)]  # (batch, heads, length, size)
    return sizes


def _sample(model: Any, *, with_cache: bool) -> dict[str, Any]:
    """Inputs to trace with: some tokens, after others that are in the cache."""
    past, new = _SAMPLE_PAST, _SAMPLE_NEW
    ids = torch.arange(1, 1 + _SAMPLE_BATCH * (past + new)).reshape(_SAMPLE_BATCH, -1) % model.config.vocab_size
    positions = torch.arange(past + new).repeat(_SAMPLE_BATCH, 1)
    places = {"position_ids": positions} if takes_positions(model) else {}
    if not with_cache:
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids), **places, "use_cache": False}
    with torch.no_grad():
        cache = model(input_ids=ids[:, :past], use_cache=True).past_key_values
    if not isinstance(cache, DynamicCache) or not all(hasattr(layer, "keys") for layer in cache.layers):
        raise TypeError(f"its cache is a {type(cache).__name__}")
    return {
        "input_ids": ids[:, past:].contiguous(),
        "attention_mask": torch.ones_like(ids),
        **{name: place[:, past:].contiguous() for name, place in places.items()},
        "past_key_values": cache,
        "use_cache": True,
    }


def takes_positions(model: Any) -> bool:
    """Whether the model is told the position of each token."""
    return "position_ids" in inspect.signature(model.forward).parameters


def _rename(program: Any) -> None:
    """Give inputs and outputs their usual names, and their sizes names that say what they are."""
    ids, mask, *_ = program.graph.inputs
    sizes = {str(mask.shape[1]): "total_sequence_length"}
    for value in [*program.graph.inputs, *program.graph.outputs]:
        found = _CACHE.fullmatch(value.name)
        if found:
            side = "past_key_values" if found[1] == "input" else "present"
            value.name = f"{side}.{found[2]}.{found[3].removesuffix('s')}"
            sizes[str(value.shape[2])] = "past_sequence_length" if found[1] == "input" else "total_sequence_length"
    sizes |= {str(mask.shape[0]): "batch_size", str(ids.shape[0]): "batch_size", str(ids.shape[1]): "sequence_length"}
    for value in [*program.graph.inputs, *program.graph.outputs]:
        value.shape = onnx_ir.Shape([_size(str(size), sizes) for size in value.shape])


def _size(size: str, names: Mapping[str, str]) -> str | int:
    return int(size) if size.isdecimal() else names.get(size, size)
