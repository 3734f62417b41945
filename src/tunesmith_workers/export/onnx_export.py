"""Exports a model to ONNX in float32, checks the file in onnxruntime, and keeps it only if it computes the same.

An adapter is merged into its base first. How the graph is made is in ``onnx_graph``, how it is checked in ``onnx_check``.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import onnx_ir
import torch

from tunesmith_workers.export.merging import base_of_adapter, is_adapter, merge_adapter, refuse_inexact
from tunesmith_workers.export.onnx_check import Agreement, compare
from tunesmith_workers.export.onnx_graph import Graph, export_graph
from tunesmith_workers.export.prompts import token_prompts
from tunesmith_workers.export.saving import finish, load_own_tokenizer, save_beside
from tunesmith_workers.models.loading import load_config, load_model, longest_context
from tunesmith_workers.process.config import Folders, OnnxConfig
from tunesmith_workers.process.events import emit, emit_message, log
from tunesmith_workers.process.faults import BadConfig, Inexact
from tunesmith_workers.process.quiet import quiet
from tunesmith_workers.process.stopping import StopRequest

FILE = "model.onnx"
_STEPS = 4
_MOST_BYTES_IN_ONE_FILE = 1_900_000_000
"""Protocol buffers end at 2 GiB, and the graph itself takes some."""
_LONGEST_PROMPT = 256


def export_onnx(config: OnnxConfig, folders: Folders, stop: StopRequest) -> None:
    """Export as the config says.

    Raises:
        WorkerFault: the model cannot be loaded or exported, or the file is not exact enough.
        OSError: the disk is full.
    """
    quiet()
    _tell("loading_model", 0)
    base = base_of_adapter(config.base) if is_adapter(config.base) else config.base
    tokenizer = load_own_tokenizer(config.base, base)
    prompts = token_prompts(tokenizer, min(longest_context(load_config(base)) or _LONGEST_PROMPT, _LONGEST_PROMPT))
    model = _load(config, base, prompts)
    _refuse_too_large(config, model)
    with stop.removing(folders.output):
        folders.output.mkdir(parents=True, exist_ok=True)
        graph = _graph(config, model)
        _tell("saving", 2)
        file = folders.output / FILE
        _save(graph, file, model)
        save_beside(folders.output, tokenizer, config.base, base)
        model.config.save_pretrained(folders.output)
        agreement = _check(config, file, model, prompts, graph)
        written = sum(path.stat().st_size for path in folders.output.glob(f"{FILE}*"))
        metrics = {
            "max_abs_diff": agreement.max_abs_diff,
            "greedy_agreement": agreement.greedy_agreement,
            "bytes": float(written),
            "opset_version": float(graph.opset),
            "has_cache": float(graph.has_cache),
        }
        finish(folders.output, config, tokenizer, kind="onnx", weights=FILE, metrics=dict(metrics))
    _tell("done", _STEPS)
    emit("result", metrics=metrics)


def _load(config: OnnxConfig, base: str, prompts: list[list[int]]) -> Any:
    """The whole model on the CPU, where it is traced: in float32, and with the attention that the exporter knows best."""
    if base != config.base:
        emit_message(f"merging {config.base} into {base} first")
        model = merge_adapter(config.base, base, prompts, config.export.tolerance).model.cpu()
    else:
        model = load_model(base, torch.float32, None)
    return model.eval()


def _refuse_too_large(config: OnnxConfig, model: Any) -> None:
    if config.export.single_file and _bytes_of(model) > _MOST_BYTES_IN_ONE_FILE:
        raise BadConfig(
            f"the weights take {_bytes_of(model)} bytes, and one ONNX file holds {_MOST_BYTES_IN_ONE_FILE}",
            where="export.single_file",
            mend="export to a folder, where the weights get a file of their own",
        )


def _graph(config: OnnxConfig, model: Any) -> Graph:
    _tell("exporting", 1)
    began = time.monotonic()
    try:
        graph = export_graph(model, config.export.opset)
    except Exception as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise BadConfig(
            f"this model cannot be exported to ONNX: {reason[:400]}",
            where="model.base",
            mend="the traceback stands above this line in the run's log; another export.opset may help",
        ) from error
    log(f"exported in {time.monotonic() - began:.1f} s")
    if config.export.opset not in (None, graph.opset):
        emit_message(
            f"the file has opset {graph.opset}: this model cannot be written in opset {config.export.opset}",
            level="warning",
            where="export.opset",
        )
    return graph


def _save(graph: Graph, file: Path, model: Any) -> None:
    fits = _bytes_of(model) <= _MOST_BYTES_IN_ONE_FILE
    onnx_ir.save(graph.program, file, external_data=None if fits else f"{FILE}.data")


def _check(config: OnnxConfig, file: Path, model: Any, prompts: list[list[int]], graph: Graph) -> Agreement:
    _tell("checking", 3)
    try:
        agreement = compare(file, model, prompts, has_cache=graph.has_cache)
    except Exception as error:  # onnxruntime has exceptions of its own, without a common base
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise Inexact(
            f"onnxruntime cannot run what was exported: {reason[:400]}",
            where="export.opset",
            mend="leave it to the exporter, or name an opset that your onnxruntime knows",
        ) from error
    log(f"largest difference of a logit: {agreement.max_abs_diff:.3g}; greedy tokens: {agreement.greedy_agreement:.1%}")
    refuse_inexact(agreement.max_abs_diff, config.export.tolerance, "the file")
    return agreement


def _bytes_of(model: Any) -> int:
    weights = {parameter.data_ptr(): parameter.numel() * parameter.element_size() for parameter in model.parameters()}
    return sum(weights.values())


def _tell(phase: str, step: int) -> None:
    emit("progress", phase=phase, step=step, total_steps=_STEPS)
