"""Checkpoints at the doors: what runs wrote, marks, resuming from one, pausing, and how much disk they take."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec
from litestar import Response, get, post
from litestar.params import FromPath, JSONBody

from tunesmith.api.access import NEEDS_READ, NEEDS_WRITE
from tunesmith.api.experiments import run_of
from tunesmith.api.idempotency import IdempotencyKey, call_of, made_once
from tunesmith.api.runs import Cursor, Limit, shown
from tunesmith.api.services import HttpRequest, Services, services_of
from tunesmith.api.views import RunView
from tunesmith.checkpoints import MarkRequest
from tunesmith.records import Checkpoint, IdempotentCall, Mark, Run, RunState
from tunesmith.runs import ResumeRequest


class CheckpointMark(msgspec.Struct, frozen=True, kw_only=True):
    """A mark of a checkpoint."""

    tag_type: str
    release_tag: str | None
    metrics: dict[str, Any]
    at: datetime


class CheckpointView(msgspec.Struct, frozen=True, kw_only=True):
    """A complete checkpoint."""

    id: str
    run_id: str
    experiment_id: str | None
    step: int
    epoch: float | None
    path: str
    bytes: int
    metrics: dict[str, float]
    complete: bool
    """False once it was removed from the disk; its record and marks stay."""
    marks: tuple[CheckpointMark, ...]
    base_model: str | None
    data_sha256: str | None
    template_sha256: str | None
    created_at: datetime
    removed_at: datetime | None


class CheckpointList(msgspec.Struct, frozen=True, kw_only=True):
    """Newest first; ask with ``cursor`` for the next page, until it is null."""

    checkpoints: list[CheckpointView]
    cursor: str | None


class MarkView(msgspec.Struct, frozen=True, kw_only=True):
    """A mark, and what it is on. Its `release_tag`, if it has one, is a model reference from now on."""

    checkpoint_id: str
    run_id: str
    ckpt_path: str
    step: int
    tag_type: str
    release_tag: str | None
    metrics: dict[str, Any]
    created_at: datetime


class Storage(msgspec.Struct, frozen=True, kw_only=True):
    """Disk taken by checkpoints."""

    checkpoint_bytes: int
    checkpoint_budget_bytes: int
    """0: no limit."""
    checkpoints: int


class PausedRun(msgspec.Struct, frozen=True, kw_only=True):
    """Answer to a pause, and to resuming."""

    run_id: str
    status: RunState
    ckpt_path: str | None


@get("/v1/experiments/{experiment_id:str}/checkpoints", opt=NEEDS_READ, tags=["Checkpoints"], sync_to_thread=False)
def list_experiment_checkpoints(
    request: HttpRequest, experiment_id: FromPath[str], limit: Limit = 50, cursor: Cursor = None
) -> CheckpointList:
    """The checkpoints of all its runs, with their marks."""
    services = services_of(request)
    services.experiments.get(experiment_id)
    page = services.checkpoints.page(limit=limit, cursor=cursor, keep=lambda one: one.experiment_id == experiment_id)
    return CheckpointList(checkpoints=[_view(one) for one in page.checkpoints], cursor=page.cursor)


@get("/v1/runs/{run_id:str}/checkpoints", opt=NEEDS_READ, tags=["Checkpoints"], sync_to_thread=False)
def list_run_checkpoints(
    request: HttpRequest, run_id: FromPath[str], limit: Limit = 50, cursor: Cursor = None
) -> CheckpointList:
    """The checkpoints of one run."""
    services = services_of(request)
    services.runs.book.get(run_id)
    page = services.checkpoints.page(limit=limit, cursor=cursor, keep=lambda one: one.run_id == run_id)
    return CheckpointList(checkpoints=[_view(one) for one in page.checkpoints], cursor=page.cursor)


@post("/v1/experiments/{experiment_id:str}/checkpoints/mark", opt=NEEDS_WRITE, tags=["Checkpoints"])
async def mark_checkpoint(
    request: HttpRequest,
    experiment_id: FromPath[str],
    data: JSONBody[MarkRequest],
    idempotency_key: IdempotencyKey = None,
) -> Response[MarkView]:
    """Mark a checkpoint: it is kept, and its `release_tag`, if it is given one, names it as a model."""
    services = services_of(request)
    services.experiments.get(experiment_id)
    call = call_of(request, idempotency_key, scope=f"marks in {experiment_id}", body=data)

    def find(checkpoint_id: str) -> tuple[Checkpoint, Mark]:
        assert call is not None, "only a key finds what was there before"
        return services.checkpoints.marked_by(call, checkpoint_id)

    (checkpoint, mark), is_new = await services.idempotent_calls.once(
        call, lambda: services.checkpoints.mark(data, experiment_id, call), find
    )
    return Response(_mark_view(checkpoint, mark), status_code=201 if is_new else 200)


def _mark_view(checkpoint: Checkpoint, mark: Mark) -> MarkView:
    return MarkView(
        checkpoint_id=checkpoint.id,
        run_id=checkpoint.run_id,
        ckpt_path=checkpoint.path,
        step=checkpoint.step,
        tag_type=mark.tag_type,
        release_tag=mark.release_tag,
        metrics=mark.metrics,
        created_at=mark.at,
    )


@post("/v1/experiments/{experiment_id:str}/runs/{run_id:str}/resume", opt=NEEDS_WRITE, tags=["Checkpoints"])
async def resume_run(
    request: HttpRequest,
    experiment_id: FromPath[str],
    run_id: FromPath[str],
    data: JSONBody[ResumeRequest | None] = None,
    idempotency_key: IdempotencyKey = None,
) -> Response[RunView]:
    """A new run that resumes from a checkpoint: optimizer, schedule, random numbers and order of data included."""
    services, wanted = services_of(request), data or ResumeRequest()
    run_of(services, experiment_id, run_id)
    run, is_new = await made_once(
        request,
        idempotency_key,
        wanted,
        scope=f"resumes of {run_id}",
        make=lambda call: _resume(services, experiment_id, run_id, wanted, call),
        find=services.runs.book.get,
    )
    return Response(shown(services, run), status_code=201 if is_new else 200)


async def _resume(
    services: Services, experiment_id: str, run_id: str, wanted: ResumeRequest, idempotency: IdempotentCall | None
) -> Run:
    services.experiments.for_new_run(experiment_id)
    return await services.runs.resumer.resume(run_id, wanted, idempotency)


@post("/v1/runs/{run_id:str}/pause", opt=NEEDS_WRITE, tags=["Checkpoints"], status_code=200)
async def pause_run(request: HttpRequest, run_id: FromPath[str]) -> PausedRun:
    """Stop the run with a checkpoint and free its slot; answers when its process has ended."""
    run = await services_of(request).runs.stopper.pause(run_id)
    return PausedRun(run_id=run.id, status=run.state, ckpt_path=run.progress.ckpt_path)


@post("/v1/runs/{run_id:str}/resume", opt=NEEDS_WRITE, tags=["Checkpoints"], status_code=200)
async def go_on(request: HttpRequest, run_id: FromPath[str]) -> PausedRun:
    """Queue a paused run again: the same run, from its newest checkpoint."""
    run = await services_of(request).runs.resumer.requeue(run_id)
    return PausedRun(run_id=run.id, status=run.state, ckpt_path=run.resume_from)


@get("/v1/storage", opt=NEEDS_READ, tags=["Service"], sync_to_thread=False)
def storage(request: HttpRequest) -> Storage:
    """How much disk checkpoints take."""
    services = services_of(request)
    return Storage(
        checkpoint_bytes=services.checkpoints.bytes_in_use(),
        checkpoint_budget_bytes=services.settings.checkpoint_budget_bytes,
        checkpoints=services.checkpoints.count_present(),
    )


def _view(checkpoint: Checkpoint) -> CheckpointView:
    return CheckpointView(
        complete=checkpoint.removed_at is None,
        marks=tuple(
            CheckpointMark(tag_type=one.tag_type, release_tag=one.release_tag, metrics=one.metrics, at=one.at)
            for one in checkpoint.marks
        ),
        **{
            name: getattr(checkpoint, name)
            for name in CheckpointView.__struct_fields__
            if name not in ("complete", "marks")
        },
    )


HANDLERS = [
    list_experiment_checkpoints,
    list_run_checkpoints,
    mark_checkpoint,
    resume_run,
    pause_run,
    go_on,
    storage,
]
