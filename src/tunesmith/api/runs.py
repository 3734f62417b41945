"""The native view of any run, whichever door created it."""

from __future__ import annotations

from typing import Annotated, Any

import anyio.to_thread
import msgspec
from litestar import Response, get, post
from litestar.params import FromPath, HeaderParameter, QueryParameter
from litestar.response import Stream

from tunesmith.api.access import NEEDS_READ, NEEDS_WRITE
from tunesmith.api.services import HttpRequest, Services, services_of
from tunesmith.api.views import CancelledRun, RunStatus, RunView, status_of, view_of
from tunesmith.recipes import Origin
from tunesmith.records import Run, RunState
from tunesmith.runner.logs import LogFilter, LogLevel, LogPage, MetricsPage, read_log, read_metrics

Limit = Annotated[int, QueryParameter(ge=1, le=1000, description="At most this many items.")]
Cursor = Annotated[
    str | None, QueryParameter(max_length=40, pattern=r"^[0-9]+$", description="`cursor` of the page before.")
]
Offset = Annotated[int, QueryParameter(ge=0, description="Byte offset to start at: `next_offset` of the page before.")]
AfterLine = Annotated[int | None, QueryParameter(ge=0, description="Start after this line number instead.")]
AtLeast = Annotated[
    LogLevel | None, QueryParameter(name="level", description="Only lines of this level or a worse one.")
]
Contains = Annotated[
    str | None, QueryParameter(name="q", max_length=500, description="Only lines with this text, in capitals or not.")
]
AnyOf = Annotated[tuple[str, ...], QueryParameter(description="Only this; repeated, any of these.")]
States = Annotated[
    tuple[RunState, ...],
    QueryParameter(name="state", description="Only runs in this state; repeated, in any of these."),
]
Statuses = Annotated[tuple[RunState, ...], QueryParameter(name="status", description="Another name of `state`.")]
IdPrefix = Annotated[str, QueryParameter(max_length=100, description="Only runs whose id begins with this.")]
LastEventId = Annotated[
    str | None, HeaderParameter(name="Last-Event-ID", max_length=60, description="Go on after this event.")
]


class RunList(msgspec.Struct, frozen=True, kw_only=True):
    """Newest first; ask with ``cursor`` for the next page, until it is null."""

    runs: list[RunView]
    cursor: str | None


class RunConfigView(msgspec.Struct, frozen=True, kw_only=True):
    """The config of a run, with where each value came from."""

    run_id: str
    recipe: str
    train_config: str | None
    """The file that the values of origin `train_config` came from."""
    parent_run_id: str | None
    """The run that this one resumes from: it took over that one's values with their origins."""
    config: dict[str, Any]
    """Nested by sections, every value that the run started with."""
    origins: dict[str, Origin]
    """By dotted path, such as `training.learning_rate`: `recipe` (its default), `train_config`, `hyperparams`, `request` (its
    model, dataset or seed), `service`, or `unknown` for runs that an earlier version created."""


def shown(services: Services, run: Run) -> RunView:
    return view_of(
        run,
        services.runs.live.progress(run),
        str(services.paths.run(run.id).folder.resolve()),
        services.runs.warnings.of(run),
    )


@get("/v1/runs", opt=NEEDS_READ, tags=["Runs"], sync_to_thread=False)
def list_runs(
    request: HttpRequest,
    limit: Limit = 50,
    cursor: Cursor = None,
    run_state: States = (),
    run_status: Statuses = (),
    recipe: AnyOf = (),
    experiment_id: AnyOf = (),
    id_prefix: IdPrefix = "",
) -> RunList:
    """Runs of every door."""
    services = services_of(request)
    page = services.runs.book.page(
        limit=limit,
        cursor=cursor,
        states=run_state + run_status,
        recipes=recipe,
        experiment_ids=experiment_id,
        id_prefix=id_prefix,
    )
    return RunList(runs=[shown(services, run) for run in page.runs], cursor=page.cursor)


@get("/v1/runs/{run_id:str}", opt=NEEDS_READ, tags=["Runs"], sync_to_thread=False)
def show_run(request: HttpRequest, run_id: FromPath[str]) -> RunView:
    """One run."""
    services = services_of(request)
    return shown(services, services.runs.book.get(run_id))


@get("/v1/runs/{run_id:str}/config", opt=NEEDS_READ, tags=["Runs"])
async def run_config(request: HttpRequest, run_id: FromPath[str]) -> RunConfigView:
    """The resolved config that the run started with, and where each value came from."""
    services = services_of(request)
    run = services.runs.book.get(run_id)
    resolved = await services.runs.configs.of(run_id)
    return RunConfigView(
        run_id=run.id,
        recipe=run.recipe,
        train_config=run.train_config,
        parent_run_id=run.parent_run_id,
        config=resolved.config,
        origins=resolved.origins,
    )


@get("/v1/runs/{run_id:str}/status", opt=NEEDS_READ, tags=["Runs"], sync_to_thread=False)
def run_status(request: HttpRequest, run_id: FromPath[str]) -> RunStatus:
    """How far it has come, with the time left."""
    services = services_of(request)
    run = services.runs.book.get(run_id)
    return status_of(run, services.runs.live.progress(run), services.runs.warnings.of(run))


@post("/v1/runs/{run_id:str}/cancel", opt=NEEDS_WRITE, tags=["Runs"], status_code=200)
async def cancel_run(request: HttpRequest, run_id: FromPath[str]) -> CancelledRun:
    """Stop the run; answers when it has ended. Repeating it gives the same answer."""
    run = await services_of(request).runs.stopper.cancel(run_id)
    return CancelledRun(run_id=run.id, status=run.state, ckpt_path=run.progress.ckpt_path)


@get("/v1/runs/{run_id:str}/logs", opt=NEEDS_READ, tags=["Runs"])
async def run_logs(
    request: HttpRequest,
    run_id: FromPath[str],
    offset: Offset = 0,
    after_line: AfterLine = None,
    limit: Limit = 200,
    level: AtLeast = None,
    q: Contains = None,
) -> LogPage:
    """Log lines by byte offset or by line number, all of them or those of a level and with a text.

    A filtered page may be short or empty while `next_offset` goes on: one request looks at 4 MiB of log at most.
    """
    services = services_of(request)
    run = services.runs.book.get(run_id)
    return await log_page(services, run, offset=offset, after_line=after_line, limit=limit, level=level, text=q)


async def log_page(
    services: Services,
    run: Run,
    *,
    offset: int,
    after_line: int | None,
    limit: int,
    level: LogLevel | None,
    text: str | None,
) -> LogPage:
    path = services.paths.run(run.id).log
    wanted = LogFilter(level=level, text=text)
    return await anyio.to_thread.run_sync(
        lambda: read_log(path, offset=offset, after_line=after_line, limit=limit, ended=run.state.final, wanted=wanted)
    )


@get("/v1/runs/{run_id:str}/metrics", opt=NEEDS_READ, tags=["Runs"])
async def run_metrics(
    request: HttpRequest, run_id: FromPath[str], cursor: Cursor = None, limit: Limit = 1000
) -> MetricsPage:
    """The history of all metrics, oldest first."""
    services = services_of(request)
    services.runs.book.get(run_id)
    path = services.paths.run(run_id).metrics
    return await anyio.to_thread.run_sync(lambda: read_metrics(path, cursor=cursor, limit=limit))


@get("/v1/runs/{run_id:str}/events", opt=NEEDS_READ, tags=["Runs"], media_type="text/event-stream")
async def run_events(
    request: HttpRequest, run_id: FromPath[str], last_event_id: LastEventId = None
) -> Response[bytes] | Stream:
    """Server-sent events: `state`, `log`, `metrics`, `progress`, `checkpoint`, `artifact`, `result`, `message`.

    Everything since the start, or since `Last-Event-ID`, then what happens, until the run is over.
    """
    follower = services_of(request).runs.followers.follow(run_id, last_event_id)
    if follower.at_end():
        # 204 is how a server tells an EventSource to stop coming back.
        return Response(b"", status_code=204)
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return Stream(follower.events(), media_type="text/event-stream", headers=headers)


HANDLERS = [list_runs, show_run, run_config, run_status, cancel_run, run_logs, run_metrics, run_events]
