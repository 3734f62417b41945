"""The experiments door: experiments and their runs."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any

import msgspec
from litestar import Response, get, post
from litestar.params import FromPath, JSONBody

from tunesmith.api.access import NEEDS_READ, NEEDS_WRITE
from tunesmith.api.idempotency import IdempotencyKey, made_once
from tunesmith.api.runs import AnyOf, Cursor, Limit, RunList, States, Statuses, shown
from tunesmith.api.services import HttpRequest, Services, services_of
from tunesmith.api.views import CancelledRun, RunStatus, RunView, status_of
from tunesmith.errors import NotFound
from tunesmith.experiments import SCOPE, ExperimentRequest
from tunesmith.records import Callback, DatasetReference, Experiment, IdempotentCall, Project, Resources, Run, RunState
from tunesmith.runs import RunRequest

_DETAIL_RUNS = 100
_DETAIL_EVENTS = 1000


class ExperimentView(msgspec.Struct, frozen=True, kw_only=True):
    """An experiment."""

    id: str
    name: str
    task_type: str
    goal: str
    version: str
    base_model: str
    owner: str
    param_config: dict[str, Any]
    tags: tuple[str, ...]
    project: Project | None
    """The files that its runs start from, if it is a project."""
    created_at: datetime


class ExperimentList(msgspec.Struct, frozen=True, kw_only=True):
    """Newest first; ask with ``cursor`` for the next page, until it is null."""

    experiments: list[ExperimentView]
    cursor: str | None


class HistoryEvent(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened to the experiment or one of its runs."""

    at: datetime
    event: str
    run_id: str | None = None
    status: RunState | None = None
    checkpoint_id: str | None = None
    tag_type: str | None = None
    release_tag: str | None = None
    """Of a mark."""


class ExperimentDetail(ExperimentView, frozen=True, kw_only=True):
    """An experiment with its newest runs and what happened, in order."""

    runs: list[RunView]
    runs_total: int
    history: list[HistoryEvent]
    history_complete: bool
    """False when there is more than is shown: then the oldest events of the runs are left out."""


class NewRun(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A run as a client asks for it. Without ``recipe`` the experiment's task_type decides."""

    model: str | None = None
    """Any model reference; without it the experiment's base_model."""
    dataset: DatasetReference | None = None
    hyperparams: Mapping[str, Any] = {}
    """Overrides of the recipe's config: by name, by dotted path, or nested by section."""
    resources: Resources = Resources()
    notes: Annotated[str, msgspec.Meta(max_length=20_000)] = ""
    recipe: str | None = None
    train_config: str | Mapping[str, Any] | None = None
    """A YAML file's path, or its content."""
    priority: Annotated[int, msgspec.Meta(ge=-1_000_000, le=1_000_000)] = 0
    """Larger starts first."""
    seed: int | None = None
    callback: Callback | str | None = None
    """Whom to tell what happens: a URL, or a URL with the events that are wanted."""


@post("/v1/experiments", opt=NEEDS_WRITE, tags=["Experiments"])
async def create_experiment(
    request: HttpRequest, data: JSONBody[ExperimentRequest], idempotency_key: IdempotencyKey = None
) -> Response[ExperimentView]:
    """Create an experiment; with `Idempotency-Key`, at most once."""
    book = services_of(request).experiments
    experiment, is_new = await made_once(
        request,
        idempotency_key,
        data,
        scope=SCOPE,
        make=lambda call: book.create(data, call),
        find=book.get,
    )
    return Response(_view(experiment), status_code=201 if is_new else 200)


@get("/v1/experiments", opt=NEEDS_READ, tags=["Experiments"], sync_to_thread=False)
def list_experiments(
    request: HttpRequest,
    limit: Limit = 50,
    cursor: Cursor = None,
    name: AnyOf = (),
    tag: AnyOf = (),
    owner: AnyOf = (),
) -> ExperimentList:
    """Experiments by name, tag and owner."""
    page = services_of(request).experiments.page(limit=limit, cursor=cursor, names=name, tags=tag, owners=owner)
    return ExperimentList(experiments=[_view(item) for item in page.experiments], cursor=page.cursor)


@get("/v1/experiments/{experiment_id:str}", opt=NEEDS_READ, tags=["Experiments"], sync_to_thread=False)
def show_experiment(request: HttpRequest, experiment_id: FromPath[str]) -> ExperimentView:
    """The record alone; `/detail` has its runs and its history as well."""
    return _view(services_of(request).experiments.get(experiment_id))


@get("/v1/experiments/{experiment_id:str}/detail", opt=NEEDS_READ, tags=["Experiments"], sync_to_thread=False)
def experiment_detail(request: HttpRequest, experiment_id: FromPath[str]) -> ExperimentDetail:
    """The record, its newest runs, and everything that happened, in order."""
    services = services_of(request)
    experiment = services.experiments.get(experiment_id)
    page = services.runs.book.page(limit=_DETAIL_RUNS, experiment_ids=(experiment_id,))
    runs = page.runs
    total = services.runs.book.count_of(experiment_id)
    history = _history(services, experiment_id, runs)
    return ExperimentDetail(
        **msgspec.structs.asdict(_view(experiment)),
        runs=[shown(services, run) for run in runs],
        runs_total=total,
        history=history[:1] + history[1:][-_DETAIL_EVENTS:],
        history_complete=page.cursor is None and len(history) <= _DETAIL_EVENTS + 1,
    )


@post("/v1/experiments/{experiment_id:str}/runs", opt=NEEDS_WRITE, tags=["Experiments"])
async def create_run(
    request: HttpRequest,
    experiment_id: FromPath[str],
    data: JSONBody[NewRun],
    idempotency_key: IdempotencyKey = None,
) -> Response[RunView]:
    """Check everything, queue a run. Every fault of the request is reported at once."""
    services = services_of(request)
    run, is_new = await made_once(
        request,
        idempotency_key,
        data,
        scope=f"runs of {experiment_id}",
        make=lambda call: _start(services, experiment_id, data, call),
        find=services.runs.book.get,
    )
    return Response(shown(services, run), status_code=201 if is_new else 200)


async def _start(services: Services, experiment_id: str, wanted: NewRun, idempotency: IdempotentCall | None) -> Run:
    experiment = services.experiments.for_new_run(experiment_id)
    return await services.runs.creator.create(
        RunRequest(
            experiment_id=experiment.id,
            task_type=experiment.task_type,
            recipe=wanted.recipe,
            model=wanted.model or experiment.base_model or None,
            dataset=wanted.dataset,
            hyperparams=wanted.hyperparams,
            train_config=wanted.train_config,
            resources=wanted.resources,
            notes=wanted.notes,
            priority=wanted.priority,
            seed=wanted.seed,
            callback=Callback(url=wanted.callback) if isinstance(wanted.callback, str) else wanted.callback,
            idempotency=idempotency,
        )
    )


@get("/v1/experiments/{experiment_id:str}/runs", opt=NEEDS_READ, tags=["Experiments"], sync_to_thread=False)
def list_experiment_runs(
    request: HttpRequest,
    experiment_id: FromPath[str],
    limit: Limit = 50,
    cursor: Cursor = None,
    run_state: States = (),
    run_status: Statuses = (),
) -> RunList:
    """The experiment's runs, newest first."""
    services = services_of(request)
    services.experiments.get(experiment_id)
    page = services.runs.book.page(
        limit=limit, cursor=cursor, states=run_state + run_status, experiment_ids=(experiment_id,)
    )
    return RunList(runs=[shown(services, run) for run in page.runs], cursor=page.cursor)


@get(
    "/v1/experiments/{experiment_id:str}/runs/{run_id:str}/status",
    opt=NEEDS_READ,
    tags=["Experiments"],
    sync_to_thread=False,
)
def experiment_run_status(request: HttpRequest, experiment_id: FromPath[str], run_id: FromPath[str]) -> RunStatus:
    """How far the run has come, with the time left."""
    services = services_of(request)
    run = run_of(services, experiment_id, run_id)
    return status_of(run, services.runs.live.progress(run), services.runs.warnings.of(run))


@post(
    "/v1/experiments/{experiment_id:str}/runs/{run_id:str}/cancel",
    opt=NEEDS_WRITE,
    tags=["Experiments"],
    status_code=200,
)
async def cancel_experiment_run(
    request: HttpRequest, experiment_id: FromPath[str], run_id: FromPath[str]
) -> CancelledRun:
    """Stop the run; answers when it has ended, with its newest complete checkpoint. May be repeated."""
    services = services_of(request)
    run_of(services, experiment_id, run_id)
    run = await services.runs.stopper.cancel(run_id)
    return CancelledRun(run_id=run.id, status=run.state, ckpt_path=run.progress.ckpt_path)


def run_of(services: Services, experiment_id: str, run_id: str) -> Run:
    run = services.runs.book.get(run_id)
    if run.experiment_id != experiment_id:
        services.experiments.get(experiment_id)
        raise NotFound(f"experiment {experiment_id} has no run {run_id!r}")
    return run


def _history(services: Services, experiment_id: str, runs: list[Run]) -> list[HistoryEvent]:
    events = [HistoryEvent(at=entry.at, event=entry.event) for entry in services.experiments.history(experiment_id)]
    events += [
        HistoryEvent(
            at=mark.at,
            event="checkpoint.marked",
            run_id=run_id,
            checkpoint_id=checkpoint_id,
            tag_type=mark.tag_type,
            release_tag=mark.release_tag,
        )
        for checkpoint_id, run_id, mark in services.checkpoints.marks_in(experiment_id)
    ]
    for run in runs:
        events += [
            HistoryEvent(at=entry.at, event=f"run.{entry.event}", run_id=run.id, status=then.state)
            for entry, then in services.runs.book.history(run.id)
        ]
    return sorted(events, key=lambda event: event.at)


def _view(experiment: Experiment) -> ExperimentView:
    return ExperimentView(
        id=experiment.id,
        name=experiment.name,
        task_type=experiment.task_type,
        goal=experiment.goal,
        version=experiment.version,
        base_model=experiment.base_model,
        owner=experiment.owner,
        param_config=experiment.param_config,
        tags=experiment.tags,
        project=experiment.project,
        created_at=experiment.created_at,
    )


HANDLERS = [
    create_experiment,
    list_experiments,
    show_experiment,
    experiment_detail,
    create_run,
    list_experiment_runs,
    experiment_run_status,
    cancel_experiment_run,
]
