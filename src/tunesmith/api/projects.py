"""The projects door: a dataset file and a train config under one name, runs of them, and what the runs wrote."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any

import anyio.to_thread
import msgspec
from litestar import Response, Router, delete, get, patch, post
from litestar.params import FromPath, JSONBody, QueryParameter

from tunesmith.api.access import NEEDS_READ, NEEDS_WRITE
from tunesmith.api.artifacts import NewTags, OneTag, content_of, page_of
from tunesmith.api.experiments import run_of
from tunesmith.api.idempotency import IdempotencyKey, made_once
from tunesmith.api.lists import NameCursor, next_page
from tunesmith.api.runs import (
    AfterLine,
    AnyOf,
    AtLeast,
    Contains,
    Cursor,
    Limit,
    Offset,
    States,
    Statuses,
    log_page,
)
from tunesmith.api.services import HttpRequest, Services, services_of
from tunesmith.api.views import fraction_of, status_of
from tunesmith.errors import Fault
from tunesmith.experiments import ProjectChange, ProjectRequest
from tunesmith.records import (
    Callback,
    DatasetReference,
    Experiment,
    IdempotentCall,
    Project,
    ProjectStatus,
    Resources,
    Run,
    RunState,
)
from tunesmith.runner.logs import LogPage, latest_lines
from tunesmith.runs import Artifact, ArtifactPage, RunRequest

_DETAIL_RUNS = 50
_LATEST_LINES = 20
_SHOWN_ARTIFACTS = 100

ProjectStates = Annotated[
    tuple[ProjectStatus, ...],
    QueryParameter(name="status", description="Only projects of this status; repeated, of any of these."),
]
FewRuns = Annotated[int, QueryParameter(ge=1, le=100, description="At most this many runs.")]


class ProjectView(msgspec.Struct, frozen=True, kw_only=True):
    """A project. Its id is that of an experiment, too."""

    id: str
    name: str
    dataset_name: str
    training_yaml_name: str
    description: str
    owner: str
    tags: tuple[str, ...]
    status: ProjectStatus
    runs_total: int
    created_at: datetime


class ProjectRun(msgspec.Struct, frozen=True, kw_only=True):
    """A run of a project in short."""

    id: str
    project_id: str
    recipe: str
    status: RunState
    progress: float
    """0 to 1."""
    start_command: str
    metrics: dict[str, float]
    """The latest value of each."""
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    eta_seconds: float | None
    error: Fault | None
    warnings: tuple[str, ...]


class RunDetail(ProjectRun, frozen=True, kw_only=True):
    """A run of a project."""

    logs: list[str]
    """The latest lines."""
    artifacts: list[Artifact]
    """The first ones by path; `/artifacts` lists all."""


class RunDetailList(msgspec.Struct, frozen=True, kw_only=True):
    """Newest first; ask with ``cursor`` for the next page, until it is null."""

    runs: list[RunDetail]
    cursor: str | None


class ProjectDetail(ProjectView, frozen=True, kw_only=True):
    """A project with its newest runs."""

    runs: list[ProjectRun]


class ProjectRunRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is to be otherwise in this run than the train config says. All of it is optional, the body too."""

    model: str | None = None
    """Any model reference; without it `model.base` of the train config."""
    hyperparams: Mapping[str, Any] = {}
    """Overrides of the train config: by name, by dotted path, or nested by section."""
    resources: Resources = Resources()
    notes: Annotated[str, msgspec.Meta(max_length=20_000)] = ""
    priority: Annotated[int, msgspec.Meta(ge=-1_000_000, le=1_000_000)] = 0
    """Larger starts first."""
    seed: int | None = None
    callback: Callback | str | None = None
    """Whom to tell what happens: a URL, or a URL with the events that are wanted."""


@post("/", opt=NEEDS_WRITE, tags=["Projects"])
async def create_project(
    request: HttpRequest, data: JSONBody[ProjectRequest], idempotency_key: IdempotencyKey = None
) -> Response[ProjectDetail]:
    """Create a project. Its files may come later: they are looked for when a run is started."""
    services = services_of(request)
    experiment, is_new = await made_once(
        request,
        idempotency_key,
        data,
        scope="projects",
        make=lambda call: services.projects.create(data, call),
        find=services.experiments.get,
    )
    return Response(_detail(services, experiment), status_code=201 if is_new else 200)


@get("/", opt=NEEDS_READ, tags=["Projects"], sync_to_thread=False)
def list_projects(
    request: HttpRequest,
    limit: Limit = 50,
    cursor: Cursor = None,
    project_state: ProjectStates = (),
    tag: AnyOf = (),
    owner: AnyOf = (),
) -> Response[list[ProjectView]]:
    """Projects by status, tag and owner, newest first. The header `Link` has the address of the next page, if there is one."""
    services = services_of(request)
    page = services.projects.page(limit=limit, cursor=cursor, statuses=project_state, tags=tag, owners=owner)
    return Response([_view(services, one) for one in page.projects], headers=next_page(request, page.cursor))


@get("/{ref:str}", opt=NEEDS_READ, tags=["Projects"], sync_to_thread=False)
def show_project(request: HttpRequest, ref: FromPath[str]) -> ProjectDetail:
    """One project by its id or name, with its newest runs."""
    services = services_of(request)
    return _detail(services, services.projects.find(ref)[0])


@patch("/{ref:str}", opt=NEEDS_WRITE, tags=["Projects"])
async def change_project(request: HttpRequest, ref: FromPath[str], data: JSONBody[ProjectChange]) -> ProjectDetail:
    """Change what is sent and nothing else; `status: archived` refuses new runs from then on."""
    services = services_of(request)
    return _detail(services, await services.projects.change(ref, data))


@post("/{ref:str}/runs", opt=NEEDS_WRITE, tags=["Projects"])
async def create_project_run(
    request: HttpRequest,
    ref: FromPath[str],
    data: JSONBody[ProjectRunRequest | None] = None,
    idempotency_key: IdempotencyKey = None,
) -> Response[RunDetail]:
    """Check that everything is there, then queue a run. All that is missing is listed at once."""
    services, wanted = services_of(request), data or ProjectRunRequest()
    project_id = services.projects.find(ref)[0].id
    run, is_new = await made_once(
        request,
        idempotency_key,
        wanted,
        scope=f"runs of {project_id}",
        make=lambda call: _start(services, project_id, wanted, call),
        find=services.runs.book.get,
    )
    return Response(await _run_detail(services, run), status_code=201 if is_new else 200)


async def _start(
    services: Services, project_id: str, wanted: ProjectRunRequest, idempotency: IdempotentCall | None
) -> Run:
    experiment, project = services.projects.find(project_id)
    services.experiments.for_new_run(experiment.id)
    start = await anyio.to_thread.run_sync(services.project_resources.find, project, wanted.model)
    return await services.runs.creator.create(
        RunRequest(
            experiment_id=experiment.id,
            recipe=start.recipe,
            model=start.model or None,
            dataset=DatasetReference(name=start.dataset),
            train_config=start.train_config,
            hyperparams=wanted.hyperparams,
            resources=wanted.resources,
            notes=wanted.notes,
            priority=wanted.priority,
            seed=wanted.seed,
            callback=Callback(url=wanted.callback) if isinstance(wanted.callback, str) else wanted.callback,
            idempotency=idempotency,
        )
    )


@get("/{ref:str}/runs", opt=NEEDS_READ, tags=["Projects"])
async def list_project_runs(
    request: HttpRequest,
    ref: FromPath[str],
    limit: FewRuns = 20,
    cursor: Cursor = None,
    run_state: States = (),
    run_status: Statuses = (),
) -> RunDetailList:
    """The project's runs, newest first."""
    services = services_of(request)
    project_id = services.projects.find(ref)[0].id
    page = services.runs.book.page(
        limit=limit, cursor=cursor, states=run_state + run_status, experiment_ids=(project_id,)
    )
    return RunDetailList(runs=[await _run_detail(services, run) for run in page.runs], cursor=page.cursor)


@get("/{ref:str}/runs/{run_id:str}", opt=NEEDS_READ, tags=["Projects"])
async def show_project_run(request: HttpRequest, ref: FromPath[str], run_id: FromPath[str]) -> RunDetail:
    """One run, with its latest log lines and its artifacts."""
    services = services_of(request)
    return await _run_detail(services, _run(services, ref, run_id))


@get("/{ref:str}/runs/{run_id:str}/logs", opt=NEEDS_READ, tags=["Projects"])
async def project_run_logs(
    request: HttpRequest,
    ref: FromPath[str],
    run_id: FromPath[str],
    offset: Offset = 0,
    after_line: AfterLine = None,
    limit: Limit = 200,
    level: AtLeast = None,
    q: Contains = None,
) -> LogPage:
    """Log lines by byte offset or by line number, all of them or those of a level and with a text."""
    services = services_of(request)
    run = _run(services, ref, run_id)
    return await log_page(services, run, offset=offset, after_line=after_line, limit=limit, level=level, text=q)


@get("/{ref:str}/runs/{run_id:str}/artifacts", opt=NEEDS_READ, tags=["Projects"])
async def list_project_artifacts(
    request: HttpRequest, ref: FromPath[str], run_id: FromPath[str], limit: Limit = 200, cursor: NameCursor = None
) -> ArtifactPage:
    """The files that the run wrote, by path."""
    services = services_of(request)
    return await page_of(services, _run(services, ref, run_id).id, limit, cursor)


@get("/{ref:str}/runs/{run_id:str}/artifacts/{artifact_id:str}/content", opt=NEEDS_READ, tags=["Projects"])
async def download_project_artifact(
    request: HttpRequest, ref: FromPath[str], run_id: FromPath[str], artifact_id: FromPath[str]
) -> Response[Any]:
    """The bytes of one; `Range` asks for a part."""
    return await content_of(request, _run(services_of(request), ref, run_id).id, artifact_id)


@post(
    "/{ref:str}/runs/{run_id:str}/artifacts/{artifact_id:str}/tags",
    opt=NEEDS_WRITE,
    tags=["Projects"],
    status_code=200,
)
async def tag_project_artifact(
    request: HttpRequest,
    ref: FromPath[str],
    run_id: FromPath[str],
    artifact_id: FromPath[str],
    data: JSONBody[NewTags],
) -> Artifact:
    """Add tags to one."""
    services = services_of(request)
    return await services.artifacts.tag(_run(services, ref, run_id).id, artifact_id, data.tags)


@delete(
    "/{ref:str}/runs/{run_id:str}/artifacts/{artifact_id:str}/tags",
    opt=NEEDS_WRITE,
    tags=["Projects"],
    status_code=200,
)
async def untag_project_artifact(
    request: HttpRequest, ref: FromPath[str], run_id: FromPath[str], artifact_id: FromPath[str], one_tag: OneTag
) -> Artifact:
    """Take one tag away."""
    services = services_of(request)
    return await services.artifacts.untag(_run(services, ref, run_id).id, artifact_id, one_tag)


def _run(services: Services, ref: str, run_id: str) -> Run:
    return run_of(services, services.projects.find(ref)[0].id, run_id)


def _view(services: Services, experiment: Experiment) -> ProjectView:
    project: Project | None = experiment.project
    assert project is not None
    return ProjectView(
        id=experiment.id,
        name=experiment.name,
        dataset_name=project.dataset_name,
        training_yaml_name=project.training_yaml_name,
        description=project.description,
        owner=experiment.owner,
        tags=experiment.tags,
        status=project.status,
        runs_total=services.runs.book.count_of(experiment.id),
        created_at=experiment.created_at,
    )


def _detail(services: Services, experiment: Experiment) -> ProjectDetail:
    runs = services.runs.book.page(limit=_DETAIL_RUNS, experiment_ids=(experiment.id,)).runs
    return ProjectDetail(
        **msgspec.structs.asdict(_view(services, experiment)),
        runs=[_short(services, experiment.id, run) for run in runs],
    )


def _short(services: Services, project_id: str, run: Run) -> ProjectRun:
    progress = services.runs.live.progress(run)
    return ProjectRun(
        id=run.id,
        project_id=project_id,
        recipe=run.recipe,
        status=run.state,
        progress=fraction_of(run, progress),
        start_command=shlex.join(run.command),
        metrics=progress.metrics,
        created_at=run.created_at,
        started_at=run.started_at,
        finished_at=run.finished_at,
        eta_seconds=status_of(run, progress, ()).eta_seconds,
        error=run.error,
        warnings=services.runs.warnings.of(run),
    )


async def _run_detail(services: Services, run: Run) -> RunDetail:
    short = _short(services, run.experiment_id or "", run)
    log = services.paths.run(run.id).log
    lines = await anyio.to_thread.run_sync(latest_lines, log, _LATEST_LINES)
    page = await page_of(services, run.id, _SHOWN_ARTIFACTS, None)
    return RunDetail(**msgspec.structs.asdict(short), logs=lines, artifacts=page.artifacts)


_CALLS = [
    create_project,
    list_projects,
    show_project,
    change_project,
    create_project_run,
    list_project_runs,
    show_project_run,
    project_run_logs,
    list_project_artifacts,
    download_project_artifact,
    tag_project_artifact,
    untag_project_artifact,
]
HANDLERS = [
    Router("/api/projects", route_handlers=_CALLS),
    Router("/projects", route_handlers=_CALLS, include_in_schema=False),
]
