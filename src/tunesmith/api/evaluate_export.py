"""Evaluations and exports as calls that answer with the result: each is a run, which goes on when the client leaves."""

from __future__ import annotations

from collections.abc import Mapping

import anyio.to_thread
import msgspec
from litestar import Response, post
from litestar.params import JSONBody

from tunesmith.api.access import NEEDS_WRITE
from tunesmith.api.idempotency import IdempotencyKey, made_once
from tunesmith.api.prefer import APPLIED, Prefer, ended
from tunesmith.api.services import HttpRequest, Services, services_of
from tunesmith.records import PUBLISH_TO, Run, RunState
from tunesmith.tasks import EvaluateRequest, ExportRequest

_MOST_LOOKED_AT = 1000


class Evaluation(msgspec.Struct, frozen=True, kw_only=True):
    """How a model scored; without metrics as long as the run goes on."""

    run_id: str
    status: RunState
    metrics: dict[str, float]
    """Scores by name, empty until the run is over."""
    counts: dict[str, int]
    """How many rows were scored, and whatever else the run counted."""
    report_path: str | None
    """The report that the run wrote; null before, or if it wrote none."""


class Export(msgspec.Struct, frozen=True, kw_only=True):
    """An exported model; without its numbers as long as the run goes on."""

    run_id: str
    status: RunState
    output_path: str
    """Where it is, or will be."""
    opset_version: int | None
    """Of the file, which may be newer than what was asked for; null until the run is over."""
    bytes: int | None
    """Of the model's files."""
    max_abs_diff: float | None
    """The largest difference of a logit between the file in onnxruntime and the model."""
    greedy_agreement: float | None
    """The share of the model's own greedy tokens that the file says as well, from 0 to 1."""


@post("/api/eval/evaluate", opt=NEEDS_WRITE, tags=["Train tasks"], status_code=200)
async def evaluate(
    request: HttpRequest,
    data: JSONBody[EvaluateRequest],
    idempotency_key: IdempotencyKey = None,
    prefer: Prefer = None,
) -> Response[Evaluation]:
    """Score a model on rows with known answers, by a run of the recipe `evaluate`; answers when it is over.

    `Prefer: respond-async` answers 202 at once with the `run_id`. A run that fails is answered with its own error.
    """
    services = services_of(request)
    run, _ = await made_once(
        request,
        idempotency_key,
        data,
        scope="evaluations",
        make=lambda call: services.tasks.evaluate(data, call),
        find=services.runs.book.get,
    )
    over = await ended(request, run, prefer)
    if over is None:
        now = services.runs.book.get(run.id)
        view = Evaluation(run_id=run.id, status=now.state, metrics={}, counts={}, report_path=None)
        return Response(view, status_code=202, headers=APPLIED)
    report = await anyio.to_thread.run_sync(_report_of, services, over.id)
    return Response(_evaluation(over, report), status_code=200)


def _report_of(services: Services, run_id: str) -> str | None:
    page = services.artifacts.page(run_id, limit=_MOST_LOOKED_AT)
    found = next((one for one in page.artifacts if one.kind == "report"), None)
    return str((services.paths.run(run_id).folder / found.path).resolve()) if found is not None else None


def _evaluation(run: Run, report: str | None) -> Evaluation:
    scores = {name: value for name, value in run.progress.metrics.items() if not _is_count(name, value)}
    counts = {name: int(value) for name, value in run.progress.metrics.items() if name not in scores}
    return Evaluation(run_id=run.id, status=run.state, metrics=scores, counts=counts, report_path=report)


def _is_count(name: str, value: float) -> bool:
    return float(value).is_integer() and (name == "rows" or name.endswith(("_rows", "_count", "_tokens")))


@post("/api/export/onnx", opt=NEEDS_WRITE, tags=["Train tasks"], status_code=200)
async def export_onnx(
    request: HttpRequest,
    data: JSONBody[ExportRequest],
    idempotency_key: IdempotencyKey = None,
    prefer: Prefer = None,
) -> Response[Export]:
    """Export a model to ONNX, by a run of the recipe `export-onnx`; answers when the files are at `output_path`.

    `Prefer: respond-async` answers 202 at once with the `run_id`. A run that fails is answered with its own error.
    """
    services = services_of(request)
    run, _ = await made_once(
        request,
        idempotency_key,
        data,
        scope="exports",
        make=lambda call: services.tasks.export(data, call),
        find=services.runs.book.get,
    )
    over = await ended(request, run, prefer)
    if over is None:
        return Response(_export(services.runs.book.get(run.id), {}), status_code=202, headers=APPLIED)
    return Response(_export(over, over.progress.metrics), status_code=200)


def _export(run: Run, metrics: Mapping[str, float]) -> Export:
    opset, size = metrics.get("opset_version"), metrics.get("bytes")
    return Export(
        run_id=run.id,
        status=run.state,
        output_path=run.labels[PUBLISH_TO],
        opset_version=int(opset) if opset is not None else None,
        bytes=int(size) if size is not None else None,
        max_abs_diff=metrics.get("max_abs_diff"),
        greedy_agreement=metrics.get("greedy_agreement"),
    )


HANDLERS = [evaluate, export_onnx]
