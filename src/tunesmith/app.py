"""Builds the application: the only module that knows every room, and hands each what it needs.

Opening the house is synchronous and loud: a damaged journal or an unusable folder stops the start with the reason.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import anyio
import structlog
from litestar import Litestar
from litestar.middleware import DefineMiddleware

from tunesmith.access import KeyRing, KeySummary
from tunesmith.api import callbacks as callback_door
from tunesmith.api import checkpoints as checkpoint_door
from tunesmith.api import documentation, experiments, finetune, keys, problems, runs, service
from tunesmith.api.access import AccessGuard
from tunesmith.api.rooms import Rooms
from tunesmith.api.telemetry import RequestTimer, RequestTimes
from tunesmith.callbacks import CallbackService, DeliverySummary
from tunesmith.checkpoints import CheckpointBook, CheckpointSummary, Retention
from tunesmith.errors import SettingsInvalid, TunesmithError
from tunesmith.experiments import ExperimentService, ExperimentSummary
from tunesmith.finetune import FunctionDoor
from tunesmith.guarded import GuardedClient
from tunesmith.journal import Journal
from tunesmith.paths import StatePaths
from tunesmith.recipes import RecipeBook
from tunesmith.records import Checkpoint, Clock, Delivery, Experiment, Key, Progress, Run, utc_now
from tunesmith.reporter import Reporter
from tunesmith.runner import Demand, Executor, GpuProbe, LocalExecutor, Slots, find_gpus
from tunesmith.runs import (
    LiveRuns,
    References,
    RunBook,
    RunService,
    RunSummary,
    Scheduler,
    Supervisor,
)
from tunesmith.runs.fold import Event
from tunesmith.settings import Settings

_log = structlog.get_logger()
_LARGEST_JSON_BODY = 4 * 1024 * 1024


@dataclass(frozen=True)
class House:
    """Everything that is open while the server runs."""

    rooms: Rooms
    reporter: Reporter
    client: GuardedClient
    journals: tuple[Journal[Any, Any], ...]


def open_house(
    settings: Settings,
    *,
    clock: Clock = utc_now,
    executor: Executor | None = None,
    gpu_probe: GpuProbe = find_gpus,
    function: FunctionDoor | None = None,
) -> House:
    """Open the journals and build the rooms. Holds no lock and starts nothing. ``function`` is what POST /finetune calls.

    Raises:
        JournalDamaged: a record file does not check out.
        SettingsInvalid: bound to more than loopback without a usable key.
    """
    paths = StatePaths(settings.state_dir)
    paths.create()
    key_journal = Journal.open(paths.keys, Key, KeySummary, clock=clock)
    experiment_journal = Journal.open(paths.experiments, Experiment, ExperimentSummary, clock=clock)
    run_journal = Journal.open(paths.runs, Run, RunSummary, clock=clock)
    key_ring = KeyRing(key_journal, clock)
    _refuse_open_bind(settings, key_ring)
    book = RunBook(run_journal)
    checkpoint_journal = Journal.open(paths.checkpoints, Checkpoint, CheckpointSummary, clock=clock)
    checkpoints = CheckpointBook(checkpoint_journal, paths, clock)
    retention = Retention(checkpoints, settings.checkpoint_budget_bytes, lambda: _needed(book.unfinished()))

    delivery_journal = Journal.open(paths.deliveries, Delivery, DeliverySummary, clock=clock, cached=256)
    client = GuardedClient(allow_private=settings.allow_private_urls)
    callbacks = CallbackService(journal=delivery_journal, client=client, secret_path=paths.webhook_secret, clock=clock)
    reporter = Reporter(book, callbacks, paths)

    async def hear(run_id: str, events: tuple[Event, ...], before: Progress) -> None:
        await reporter.heard(run_id, events, before)
        if any(event.kind == "checkpoint" for event in events):
            await note_checkpoints(book.get(run_id))

    async def note_checkpoints(run: Run) -> str | None:
        try:
            await checkpoints.reconcile(run.id, run.experiment_id)
            await retention.make_room()
        except TunesmithError as error:
            _log.warning("checkpoints_not_noted", run_id=run.id, reason=str(error))
        newest = checkpoints.newest_of(run.id)
        return newest.path if newest is not None else None

    live = LiveRuns(paths, hear)
    slots = Slots(gpu_probe(), settings.max_cpu_runs)
    recipes = RecipeBook(settings.recipes_dir)
    supervisor = Supervisor(
        book=book,
        live=live,
        executor=executor or LocalExecutor(start_deadline_seconds=settings.start_deadline_seconds),
        paths=paths,
        clock=clock,
        stop_grace_seconds=settings.stop_grace_seconds,
        max_restarts=settings.max_restarts,
        newest_checkpoint=note_checkpoints,
    )
    scheduler = Scheduler(
        book=book,
        supervisor=supervisor,
        slots=slots,
        demand_of=_demand,
        launch_of=lambda run, gpus: run_service.launch(run, gpus),  # noqa: PLW0108  # the service is built just below
    )
    run_service = RunService(
        book=book,
        live=live,
        scheduler=scheduler,
        recipes=recipes,
        references=References(
            roots=settings.roots, aliases=settings.aliases, paths=paths, book=book, checkpoint=checkpoints.referenced
        ),
        checkpoints=checkpoints,
        vet_url=client.vet,
        slots=slots,
        paths=paths,
        clock=clock,
        max_train_config_bytes=settings.max_train_config_bytes,
    )
    run_journal.on_commit(live.committed)
    run_journal.on_commit(scheduler.committed)
    run_journal.on_commit(reporter.committed)
    rooms = Rooms(
        settings=settings,
        keys=key_ring,
        recipes=recipes,
        experiments=ExperimentService(experiment_journal, clock),
        runs=run_service,
        scheduler=scheduler,
        slots=slots,
        checkpoints=checkpoints,
        callbacks=callbacks,
        client=client,
        function=function,
    )
    return House(
        rooms=rooms,
        reporter=reporter,
        client=client,
        journals=(key_journal, experiment_journal, run_journal, checkpoint_journal, delivery_journal),
    )


def create_app(house: House) -> Litestar:
    """The HTTP application over an open house."""
    times = RequestTimes()
    app = Litestar(
        route_handlers=[
            *service.HANDLERS,
            *documentation.HANDLERS,
            *experiments.HANDLERS,
            *runs.HANDLERS,
            *checkpoint_door.HANDLERS,
            *callback_door.HANDLERS,
            *finetune.HANDLERS,
            *keys.HANDLERS,
        ],
        middleware=[
            DefineMiddleware(RequestTimer, times=times),
            DefineMiddleware(AccessGuard, keys=house.rooms.keys),
        ],
        exception_handlers=problems.HANDLERS,
        lifespan=[_lifespan(house)],
        openapi_config=documentation.document_config(),
        request_max_body_size=_LARGEST_JSON_BODY,
        logging_config=None,
    )
    app.state.rooms = house.rooms
    app.state.request_times = times
    return app


def _lifespan(house: House) -> Callable[[Litestar], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(_app: Litestar) -> AsyncIterator[None]:
        async with anyio.create_task_group() as tasks:
            await tasks.start(house.rooms.callbacks.run)
            await tasks.start(house.reporter.run)
            await tasks.start(house.rooms.scheduler.run)
            yield
            # Runs go on without us; the next server finds them.
            tasks.cancel_scope.cancel()
        with anyio.CancelScope(shield=True):
            await house.client.aclose()
            for journal in house.journals:
                await journal.close()

    return lifespan


def _refuse_open_bind(settings: Settings, keys: KeyRing) -> None:
    if not settings.is_loopback and not keys.usable:
        raise SettingsInvalid(
            f"refusing to listen on {settings.host} without an API key: anybody who reaches it could use this machine",
            where="host",
            mend="make a key first: tunesmith keys create NAME --scope admin",
        )


def _needed(unfinished: Iterable[Run]) -> Iterator[str]:
    """Checkpoints that a run under way or in the queue starts from or uses as its model."""
    for run in unfinished:
        yield from (path for path in (run.resume_from, run.model) if path is not None)


def _demand(run: Run) -> Demand:
    return Demand(gpus=run.resources.count or 0, gpu_type=run.resources.gpu_type)
