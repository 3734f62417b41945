"""The train-task door: trainings by strategy, in the spellings of transformers, with the model put into a folder of choice.

A task is a run: its id is the run's, and the calls below ``/v1/runs`` show it as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Any

import msgspec
from litestar import Response, get, post
from litestar.params import FromPath, JSONBody

from tunesmith.api.access import NEEDS_READ, NEEDS_WRITE
from tunesmith.api.idempotency import IdempotencyKey, made_once
from tunesmith.api.lists import next_page
from tunesmith.api.runs import Cursor, Limit
from tunesmith.api.services import HttpRequest, Services, services_of
from tunesmith.api.views import RunStatus, status_of
from tunesmith.errors import Fault
from tunesmith.publishing import Receipt
from tunesmith.records import PUBLISH_TO, Run, RunKind, RunState
from tunesmith.tasks import STRATEGY, WARNINGS, TrainRequest


class TaskStatus(StrEnum):
    PENDING = "pending"  # waits for a slot, is being started, or is paused
    RUNNING = "running"  # trains, is being stopped, or its model is being put into its output folder
    COMPLETED = "completed"  # the model is in the output folder
    FAILED = "failed"  # it failed, its end cannot be known, or its model could not be put there
    CANCELLED = "cancelled"  # stopped because somebody asked


_STATUS: Mapping[RunState, TaskStatus] = MappingProxyType(
    {
        RunState.VALIDATING: TaskStatus.PENDING,
        RunState.QUEUED: TaskStatus.PENDING,
        RunState.STARTING: TaskStatus.PENDING,
        RunState.PAUSED: TaskStatus.PENDING,
        RunState.RUNNING: TaskStatus.RUNNING,
        RunState.STOPPING: TaskStatus.RUNNING,
        RunState.SUCCEEDED: TaskStatus.COMPLETED,
        RunState.FAILED: TaskStatus.FAILED,
        RunState.LOST: TaskStatus.FAILED,
        RunState.CANCELLED: TaskStatus.CANCELLED,
    }
)


class StartedTask(msgspec.Struct, frozen=True, kw_only=True):
    """A task that was begun, now or by an earlier call with the same key."""

    task_id: str
    """The run's id as well."""
    status: TaskStatus
    message: str
    """What happens now, in words."""
    output_dir: str
    """Where the model will be."""
    warnings: list[str]
    """Options that have no effect here."""


class TaskView(msgspec.Struct, frozen=True, kw_only=True):
    """A training with how far it has come."""

    task_id: str
    """The run's id as well."""
    run_id: str
    status: TaskStatus
    """`pending`, `running`, `completed`, `failed` or `cancelled`."""
    run_status: RunState
    """The state of the run, which says more."""
    strategy: str
    """As it was asked for; of a run of another door, its recipe."""
    recipe: str
    progress: float
    """0 to 100."""
    phase: str | None
    current_step: int | None
    total_steps: int | None
    epoch: float | None
    loss: float | None
    """The latest training loss."""
    eval_loss: float | None
    """The latest loss on the validation rows; null without any."""
    learning_rate: float | None
    """At the latest step that was measured."""
    metrics: dict[str, float]
    """The latest value of each."""
    eta_seconds: float | None
    model_path: str | None
    """The model that it starts from, as it was asked for."""
    dataset_path: str | None
    """The data, as it was asked for."""
    output_dir: str | None
    """Where the model is put when the task is completed; of a run of another door, where the run keeps it."""
    ckpt_path: str | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    error: Fault | None
    warnings: list[str]


@post("/api/train/start", opt=NEEDS_WRITE, tags=["Train tasks"], status_code=200)
async def start_task(
    request: HttpRequest, data: JSONBody[TrainRequest], idempotency_key: IdempotencyKey = None
) -> StartedTask:
    """Check everything, queue a training. Every fault of the config is reported at once.

    The model appears in `output_dir` when the task is completed, whole or not at all; nothing is ever written over.
    """
    services = services_of(request)
    run, _ = await made_once(
        request,
        idempotency_key,
        data,
        scope="train tasks",
        make=lambda call: services.tasks.train(data, call),
        find=services.runs.book.get,
    )
    receipts = await services.publisher.receipts([run])
    status = _status(run, receipts.get(run.id))
    return StartedTask(
        task_id=run.id,
        status=status,
        message=f"task {run.id} is {status}; GET /api/train/status/{run.id} shows how far it is",
        output_dir=run.labels[PUBLISH_TO],
        warnings=_warnings(run),
    )


@get("/api/train/status/{task_id:str}", opt=NEEDS_READ, tags=["Train tasks"])
async def show_task(request: HttpRequest, task_id: FromPath[str]) -> TaskView:
    """How far it has come. Answers for any run, and for the `task_id` of a finetune task."""
    services = services_of(request)
    run = services.runs.book.of_task(task_id) or services.runs.book.get(task_id)
    receipts = await services.publisher.receipts([run])
    return _view(services, run, receipts.get(run.id))


@get("/api/train/tasks", opt=NEEDS_READ, tags=["Train tasks"])
async def list_tasks(request: HttpRequest, limit: Limit = 100, cursor: Cursor = None) -> Response[list[TaskView]]:
    """Every training, of other doors as well, newest first. The header `Link` has the address of the next page, if there is one."""
    services = services_of(request)
    page = services.runs.book.page(limit=limit, cursor=cursor, kinds=(RunKind.TRAIN,))
    receipts = await services.publisher.receipts(page.runs)
    views = [_view(services, run, receipts.get(run.id)) for run in page.runs]
    return Response(views, headers=next_page(request, page.cursor))


def _status(run: Run, receipt: Receipt | None) -> TaskStatus:
    if run.state is RunState.SUCCEEDED and PUBLISH_TO in run.labels:
        if receipt is None:
            return TaskStatus.RUNNING
        if receipt.error is not None:
            return TaskStatus.FAILED
    return _STATUS[run.state]


def _view(services: Services, run: Run, receipt: Receipt | None) -> TaskView:
    progress, status = services.runs.live.progress(run), _status(run, receipt)
    shown = status_of(run, progress, services.runs.warnings.of(run))
    publishes = status is TaskStatus.RUNNING and run.state is RunState.SUCCEEDED
    same: dict[str, Any] = {name: getattr(shown, name) for name in _SAME}
    same |= {name: shown.metrics.get(name) for name in _MEASURED}
    return TaskView(
        **same,
        task_id=run.id,
        status=status,
        run_status=run.state,
        strategy=run.labels.get(STRATEGY, run.recipe),
        recipe=run.recipe,
        progress=round(100 * shown.progress, 2),
        phase="publishing" if publishes else shown.phase,
        model_path=run.model,
        dataset_path=run.dataset.name if run.dataset is not None else None,
        output_dir=run.labels.get(PUBLISH_TO) or progress.output_path,
        created_at=run.created_at,
        error=shown.error or (receipt.error if receipt is not None else None),
        warnings=[*shown.warnings, *_warnings(run)],
    )


_MEASURED = ("loss", "eval_loss", "learning_rate")
_SAME = tuple(
    name
    for name in TaskView.__struct_fields__
    if name in RunStatus.__struct_fields__ and name not in ("status", "progress", "phase", "error", "warnings")
)
"""Fields that mean the same as those of a run's status."""


def _warnings(run: Run) -> list[str]:
    return run.labels.get(WARNINGS, "").splitlines()


HANDLERS = [start_task, show_task, list_tasks]
