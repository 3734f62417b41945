"""The deployments door: models that are served, each by an engine of its own. Prompts do not come through here."""

from __future__ import annotations

import shlex
import time
from datetime import datetime
from typing import Annotated

import anyio.to_thread
import msgspec
from litestar import Response, Router, delete, get, post
from litestar.params import FromPath, JSONBody, QueryParameter

from tunesmith.api.access import NEEDS_READ, NEEDS_WRITE, OPEN_TO_ALL
from tunesmith.api.idempotency import IdempotencyKey, made_once
from tunesmith.api.lists import next_page
from tunesmith.api.runs import AfterLine, AnyOf, AtLeast, Contains, Cursor, Limit, Offset
from tunesmith.api.service import Health
from tunesmith.api.services import HttpRequest, Services, services_of
from tunesmith.deployments import DeploymentRequest, name_of
from tunesmith.records import Deployment, DeploymentStatus, EngineKind, Parity, ProcessIdentity
from tunesmith.runner.logs import LogFilter, LogPage, read_log

InStatus = Annotated[
    tuple[DeploymentStatus, ...],
    QueryParameter(name="status", description="Only deployments in this state; repeated, in any of these."),
]
Models = Annotated[
    tuple[str, ...],
    QueryParameter(
        name="model", description="Only of this model reference, as it was given; repeated, of any of these."
    ),
]
Force = Annotated[bool, QueryParameter(description="Whether to kill the engine without asking it to end.")]


class DeploymentInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A deployment. Its times are seconds since 1970."""

    deployment_id: str
    name: str | None
    """A name of its own, which is a model reference as well."""
    model_path: str
    """The model reference that it serves, as it was given."""
    model_version: str
    tags: tuple[str, ...]
    engine: EngineKind
    gpu_id: str | None
    """The UUID of its GPU; null on a CPU."""
    port: int
    """Where its engine listens, on 127.0.0.1."""
    pid: int | None
    """The process of its engine; null while there is none."""
    status: DeploymentStatus
    reason: str
    """Why it is not running; empty while it is, or loads its model for the first time."""
    started_at: float | None
    """When its engine began."""
    stopped_at: float | None
    """When it ended for good."""
    health_ok: bool
    """Whether the latest health check succeeded."""
    parity: Parity
    """Whether its engine says what the trained model said: `none` until it was asked, and where no certificate tells."""
    vllm_cmd: str
    """The exact command that starts its engine, whichever that is."""
    log_file: str
    """What its engines printed."""
    health_path: str
    """What is asked for on its port to see whether it is well."""
    restarts: int
    """How often its engine was started again since it last was well for ten minutes."""
    on_demand: bool
    """Whether the service started it itself, for a model that was asked for."""
    model: str
    """The folder or hub id of the model."""
    base: str | None
    """Of an adapter: the folder or hub id of its base model. Null for a whole model."""
    served_models: tuple[str, ...]
    """What requests to its port call the models that it serves: this one first."""


class RemovedDeployment(msgspec.Struct, frozen=True, kw_only=True):
    """What was removed."""

    detail: str
    """That it was."""
    deployment_id: str


@post("/", opt=NEEDS_WRITE, tags=["Deployments"])
async def create_deployment(
    request: HttpRequest, data: JSONBody[DeploymentRequest], idempotency_key: IdempotencyKey = None
) -> Response[DeploymentInfo]:
    """Check the model, take a port and a GPU, and start an engine. It is `starting` until its first health check succeeds."""
    services = services_of(request)
    one, is_new = await made_once(
        request,
        idempotency_key,
        data,
        scope="deployments",
        make=lambda call: services.deployments.create(data, call),
        find=services.deployments.book.find,
    )
    return Response(info_of(services, one), status_code=201 if is_new else 200)


@get("/", opt=NEEDS_READ, tags=["Deployments"])
async def list_deployments(
    request: HttpRequest,
    limit: Limit = 50,
    cursor: Cursor = None,
    model: Models = (),
    tag: AnyOf = (),
    in_status: InStatus = (),
) -> Response[list[DeploymentInfo]]:
    """Deployments by model, tag and status, newest first, after a health check of each. The header `Link` has the address of
    the next page, if there is one.
    """
    services = services_of(request)
    await services.deployments.check_all()
    page = services.deployments.book.page(limit=limit, cursor=cursor, models=model, tags=tag, statuses=in_status)
    return Response([info_of(services, one) for one in page.deployments], headers=next_page(request, page.cursor))


@get("/{deployment_id:str}", opt=NEEDS_READ, tags=["Deployments"])
async def show_deployment(request: HttpRequest, deployment_id: FromPath[str]) -> DeploymentInfo:
    """One deployment by its id or name, after a health check."""
    services = services_of(request)
    return info_of(services, await services.deployments.checked(deployment_id))


@delete("/{deployment_id:str}", opt=NEEDS_WRITE, tags=["Deployments"], status_code=200)
async def delete_deployment(
    request: HttpRequest, deployment_id: FromPath[str], *, force: Force = False
) -> RemovedDeployment:
    """Ask its engine to end, and wait until nothing of it is left. Its port and GPU are free afterwards."""
    removed = await services_of(request).deployments.remove(deployment_id, force=force)
    return RemovedDeployment(detail="deployment removed", deployment_id=removed.id)


@get("/{deployment_id:str}/logs", opt=NEEDS_READ, tags=["Deployments"])
async def deployment_logs(
    request: HttpRequest,
    deployment_id: FromPath[str],
    offset: Offset = 0,
    after_line: AfterLine = None,
    limit: Limit = 200,
    level: AtLeast = None,
    q: Contains = None,
) -> LogPage:
    """What its engines printed, by byte offset or by line number, all lines or those of a level and with a text."""
    services = services_of(request)
    one = services.deployments.book.find(deployment_id)
    return await anyio.to_thread.run_sync(
        lambda: read_log(
            services.paths.deployment(one.id).log,
            offset=offset,
            after_line=after_line,
            limit=limit,
            ended=one.has_ended,
            wanted=LogFilter(level=level, text=q),
        )
    )


@get("/_internal/health", opt=OPEN_TO_ALL, tags=["Deployments"], sync_to_thread=False)
def deployments_health() -> Health:
    """Whether this door answers."""
    return Health(status="ok", time=time.time())


def info_of(services: Services, one: Deployment) -> DeploymentInfo:
    """A deployment as it is answered."""
    names = dict.fromkeys((one.served_name, *(adapter.name for adapter in one.adapters), name_of(one.path)))
    return DeploymentInfo(
        deployment_id=one.id,
        name=one.name,
        model_path=one.model_path,
        model_version=one.model_version,
        tags=one.tags,
        engine=one.engine,
        gpu_id=one.gpus[0] if one.gpus else None,
        port=one.port,
        pid=one.process.pid if isinstance(one.process, ProcessIdentity) else None,
        status=one.status,
        reason=one.reason,
        started_at=_unix(one.started_at),
        stopped_at=_unix(one.stopped_at),
        health_ok=one.status is DeploymentStatus.RUNNING,
        parity=one.parity or Parity.NONE,
        vllm_cmd=shlex.join(one.command),
        log_file=str(services.paths.deployment(one.id).log.resolve()),
        health_path=one.health_path,
        restarts=one.restarts,
        on_demand=one.on_demand,
        model=one.model,
        base=one.path if one.model != one.path else None,
        served_models=tuple(names),
    )


def _unix(at: datetime | None) -> float | None:
    return at.timestamp() if at is not None else None


_CALLS = [
    create_deployment,
    list_deployments,
    show_deployment,
    delete_deployment,
    deployment_logs,
    deployments_health,
]
HANDLERS = [
    Router("/api/v1/deployments", route_handlers=_CALLS),
    Router("/v1/deployments", route_handlers=_CALLS, include_in_schema=False),
    Router("/deployments", route_handlers=_CALLS, include_in_schema=False),
]
