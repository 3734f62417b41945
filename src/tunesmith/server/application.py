"""The HTTP application over open services: every route, what every request passes, and what runs while it is up."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.from_thread
import anyio.to_thread
import structlog
from litestar import Litestar
from litestar.middleware import DefineMiddleware

from tunesmith.api import (
    artifacts,
    callbacks,
    checkpoints,
    data,
    datasets,
    deid,
    deployments,
    documentation,
    evaluate_export,
    experiments,
    finetune,
    inference,
    keys,
    models,
    previews,
    problems,
    projects,
    runs,
    service,
    tasks,
)
from tunesmith.api.access import AccessGuard
from tunesmith.api.bodies import StrictBody
from tunesmith.api.openai import handlers as openai_handlers
from tunesmith.api.openai.request_ids import add_request_id
from tunesmith.api.options import OptionsAnswer
from tunesmith.api.parameters import KnownParameters
from tunesmith.api.telemetry import RequestTimer, RequestTimes
from tunesmith.app import App
from tunesmith.errors import TunesmithError
from tunesmith.finetune import leftovers, sweep

_log = structlog.get_logger()
_LARGEST_JSON_BODY = 4 * 1024 * 1024
_HANDLERS: list[Any] = [
    *service.HANDLERS,
    *documentation.HANDLERS,
    *experiments.HANDLERS,
    *projects.HANDLERS,
    *runs.HANDLERS,
    *artifacts.HANDLERS,
    *checkpoints.HANDLERS,
    *data.HANDLERS,
    *datasets.HANDLERS,
    *deid.HANDLERS,
    *previews.HANDLERS,
    *callbacks.HANDLERS,
    *finetune.HANDLERS,
    *models.HANDLERS,
    *deployments.HANDLERS,
    *inference.HANDLERS,
    *tasks.HANDLERS,
    *evaluate_export.HANDLERS,
    *keys.HANDLERS,
    *openai_handlers.HANDLERS,
]


def create_app(opened: App) -> Litestar:
    """The HTTP application over open services."""
    times = RequestTimes()
    app = Litestar(
        route_handlers=_HANDLERS,
        middleware=[
            DefineMiddleware(RequestTimer, times=times),
            DefineMiddleware(AccessGuard, keys=opened.services.keys),
            DefineMiddleware(KnownParameters),
            DefineMiddleware(OptionsAnswer),
        ],
        dto=StrictBody,
        return_dto=None,
        exception_handlers=problems.HANDLERS,
        lifespan=[_lifespan(opened)],
        before_send=[add_request_id],
        openapi_config=None,
        request_max_body_size=_LARGEST_JSON_BODY,
        logging_config=None,
    )
    app.state.services = opened.services
    app.state.vitals = opened.vitals
    app.state.request_times = times
    return app


def _lifespan(opened: App) -> Callable[[Litestar], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(_app: Litestar) -> AsyncIterator[None]:
        await opened.services.datasets.recover()
        await opened.services.single_files.recover()
        await opened.services.openai.uploads_in_parts.recover()
        await opened.services.previews.forget_deleted()
        downloads = leftovers(opened.services.paths)
        trash = opened.services.openai.model_deletion.trash.leftovers()
        async with anyio.create_task_group() as background:
            await opened.vitals.start(background, "watermarks", opened.watermarks.run)
            await opened.vitals.start(background, "callbacks", opened.services.callbacks.run)
            await opened.vitals.start(background, "reporter", opened.reporter.run)
            await opened.vitals.start(background, "publisher", opened.services.publisher.run)
            # Before the scheduler: engines that are alive keep their GPUs.
            await opened.vitals.start(background, "deployments", opened.services.deployments.run)
            await opened.vitals.start(background, "scheduler", opened.services.scheduler.run)
            await opened.vitals.start(background, "deid", opened.services.deid.run)
            await opened.vitals.start(background, "single files", opened.services.single_files.run)
            await opened.vitals.start(background, "file checks", opened.services.openai.file_checks.run)
            await opened.vitals.start(background, "validator", opened.services.validator.run)
            await opened.vitals.start(background, "result files", opened.services.openai.results.run)
            await opened.vitals.start(background, "uploads in parts", opened.services.openai.uploads_in_parts.run)
            await opened.vitals.start(background, "batches", opened.services.openai.batches.run)
            background.start_soon(_sweep_downloads, opened, downloads)
            background.start_soon(_empty_trash, opened, trash)
            yield
            # Runs go on without us; the next server finds them.
            background.cancel_scope.cancel()
        with anyio.CancelScope(shield=True):
            await opened.client.aclose()
            await opened.loopback.aclose()
            for journal in opened.journals:
                await journal.close()

    return lifespan


async def _sweep_downloads(opened: App, found: set[str]) -> None:
    """Beside the service: where many runs are on record it takes a while to see that none names a folder."""
    paths, every = opened.services.paths, opened.services.runs.book.every
    try:
        await anyio.to_thread.run_sync(
            partial(sweep, paths, found, every, between_runs=anyio.from_thread.check_cancelled)
        )
    except TunesmithError as error:
        _log.warning("downloads_not_swept", reason=str(error))


async def _empty_trash(opened: App, found: list[Path]) -> None:
    """Beside the service: a model may be many files."""
    trash = opened.services.openai.model_deletion.trash
    try:
        await anyio.to_thread.run_sync(partial(trash.empty, found, between=anyio.from_thread.check_cancelled))
    except OSError as error:
        _log.warning("trash_not_emptied", reason=str(error))
