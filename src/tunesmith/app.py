"""Builds the application: the only module that knows every room, and hands each what it needs.

Opening the house is synchronous and loud: a damaged journal or an unusable folder stops the start with the reason.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, fields
from functools import partial
from typing import Any, Protocol

import anyio
import anyio.from_thread
import anyio.to_thread
import structlog
from litestar import Litestar
from litestar.middleware import DefineMiddleware

from tunesmith.access import KeyRing, KeySummary
from tunesmith.api import artifacts, documentation, experiments, finetune, keys, problems, projects, runs, service
from tunesmith.api import callbacks as callback_door
from tunesmith.api import checkpoints as checkpoint_door
from tunesmith.api import data as data_door
from tunesmith.api import datasets as dataset_door
from tunesmith.api import deid as deid_door
from tunesmith.api import previews as preview_door
from tunesmith.api.access import AccessGuard
from tunesmith.api.bodies import StrictBody
from tunesmith.api.options import OptionsAnswer
from tunesmith.api.parameters import KnownParameters
from tunesmith.api.rooms import Rooms
from tunesmith.api.telemetry import RequestTimer, RequestTimes
from tunesmith.callbacks import CallbackService, DeliverySummary
from tunesmith.checkpoints import CheckpointBook, CheckpointSummary, Retention
from tunesmith.datasets import (
    DatasetService,
    DatasetSummary,
    Lookup,
    TrainConfigs,
    TrainConfigSummary,
    UploadService,
    UploadSummary,
)
from tunesmith.deid import DeidService
from tunesmith.errors import SettingsInvalid, TunesmithError
from tunesmith.experiments import ExperimentService, ExperimentSummary, ProjectBook, ProjectResources
from tunesmith.files import raise_shortage
from tunesmith.finetune import FunctionDoor, Turns, leftovers, sweep
from tunesmith.idempotency import IdempotentCalls
from tunesmith.journal import Journal, WatermarkKeeper, Watermarks
from tunesmith.net.guarded import GuardedClient
from tunesmith.paths import StatePaths
from tunesmith.previews import PreviewService
from tunesmith.recipes import RecipeBook
from tunesmith.records import (
    ArtifactTags,
    Checkpoint,
    Clock,
    Dataset,
    Delivery,
    Experiment,
    IdempotentCall,
    Key,
    Progress,
    Run,
    TrainConfigFile,
    Upload,
    utc_now,
)
from tunesmith.references import ModelNames, References
from tunesmith.reporting import FinetuneShape, Reporter
from tunesmith.runner import (
    AS_INHERITED,
    ChildDescriptors,
    Executor,
    GpuProbe,
    LocalExecutor,
    Slots,
    WorkerCalls,
    find_gpus,
)
from tunesmith.runs import (
    ArtifactBook,
    ArtifactSummary,
    LiveRuns,
    RequestResolver,
    RunBook,
    RunService,
    RunSummary,
    Scheduler,
    Supervisor,
    demand_of,
)
from tunesmith.runs.fold import Event
from tunesmith.settings import Settings
from tunesmith.state_folder import refuse_incomplete, refuse_unrecorded_runs
from tunesmith.vitals import BackgroundTask, Vitals

_log = structlog.get_logger()
_LARGEST_JSON_BODY = 4 * 1024 * 1024


class BackgroundService(Protocol):
    """Something that works for as long as the server runs."""

    @property
    def run(self) -> BackgroundTask: ...


@dataclass(frozen=True)
class House:
    """Everything that is open while the server runs."""

    rooms: Rooms
    vitals: Vitals
    reporter: BackgroundService
    client: GuardedClient
    journals: tuple[Journal[Any, Any], ...]
    watermarks: WatermarkKeeper

    def let_go(self) -> None:
        """End what would keep a server from stopping: event streams, and uploads that are coming in."""
        self.rooms.runs.close_followers()
        self.rooms.uploads.close()


@dataclass(frozen=True)
class _Journals:
    """Every journal of a state folder, opened in the order of ``StatePaths.journals``."""

    keys: Journal[Key, KeySummary]
    experiments: Journal[Experiment, ExperimentSummary]
    runs: Journal[Run, RunSummary]
    checkpoints: Journal[Checkpoint, CheckpointSummary]
    deliveries: Journal[Delivery, DeliverySummary]
    artifacts: Journal[ArtifactTags, ArtifactSummary]
    datasets: Journal[Dataset, DatasetSummary]
    uploads: Journal[Upload, UploadSummary]
    train_configs: Journal[TrainConfigFile, TrainConfigSummary]

    @classmethod
    def open(cls, paths: StatePaths, clock: Clock) -> _Journals:
        return cls(
            keys=Journal.open(paths.keys, Key, KeySummary, clock=clock),
            experiments=Journal.open(paths.experiments, Experiment, ExperimentSummary, clock=clock),
            runs=Journal.open(paths.runs, Run, RunSummary, clock=clock),
            checkpoints=Journal.open(paths.checkpoints, Checkpoint, CheckpointSummary, clock=clock),
            deliveries=Journal.open(paths.deliveries, Delivery, DeliverySummary, clock=clock, cached=256),
            artifacts=Journal.open(paths.artifacts, ArtifactTags, ArtifactSummary, clock=clock),
            datasets=Journal.open(paths.datasets, Dataset, DatasetSummary, clock=clock),
            uploads=Journal.open(paths.uploads, Upload, UploadSummary, clock=clock),
            train_configs=Journal.open(paths.train_configs, TrainConfigFile, TrainConfigSummary, clock=clock),
        )

    @property
    def all(self) -> tuple[Journal[Any, Any], ...]:
        return tuple(getattr(self, field.name) for field in fields(self))


def open_house(
    settings: Settings,
    *,
    clock: Clock = utc_now,
    executor: Executor | None = None,
    gpu_probe: GpuProbe = find_gpus,
    function: FunctionDoor | None = None,
    descriptors: ChildDescriptors = AS_INHERITED,
) -> House:
    """Open the journals and build the rooms. Holds no lock and starts nothing. ``function`` is what POST /finetune calls,
    ``descriptors`` how many processes that are started may have.

    Raises:
        JournalDamaged: a record file does not check out.
        StateFolderIncomplete: a record file is missing, or older than it was.
        SettingsInvalid: bound to more than loopback without a usable key.
    """
    paths = StatePaths(settings.state_dir)
    paths.create()
    refuse_incomplete(paths, clock)
    journals = _Journals.open(paths, clock)
    refuse_unrecorded_runs(paths, journals.runs)
    key_ring = KeyRing(journals.keys, clock)
    _refuse_open_bind(settings, key_ring)
    book = RunBook(journals.runs)
    checkpoints = CheckpointBook(
        journals.checkpoints,
        paths,
        clock,
        other_meaning=ModelNames(settings.aliases, paths, book).other_meaning,
    )
    retention = Retention(checkpoints, settings.checkpoint_budget_bytes, lambda: _needed(run_service.unfinished()))

    client = GuardedClient(allow_private=settings.allow_private_urls)
    shape = FinetuneShape(paths, book)
    callbacks = CallbackService(
        journal=journals.deliveries,
        client=client,
        secret_path=paths.webhook_secret,
        clock=clock,
        make_body=shape.body_of,
    )
    reporter = Reporter(book, callbacks, shape)

    async def hear(run_id: str, events: tuple[Event, ...], before: Progress) -> None:
        await reporter.heard(run_id, events, before)
        if any(event.kind == "checkpoint" for event in events):
            await note_checkpoints(book.get(run_id))

    async def note_checkpoints(run: Run) -> str | None:
        try:
            await checkpoints.reconcile(run.id, run.experiment_id)
            await retention.make_room()
        except (TunesmithError, OSError) as error:
            if isinstance(error, OSError):
                raise_shortage(error)
            _log.warning("checkpoints_not_noted", run_id=run.id, reason=str(error))
        newest = checkpoints.newest_of(run.id)
        return newest.path if newest is not None else None

    live = LiveRuns(paths, hear)
    slots = Slots(gpu_probe(), settings.max_cpu_runs)
    recipes = RecipeBook(settings.recipes_dir)
    supervisor = Supervisor(
        book=book,
        live=live,
        executor=executor
        or LocalExecutor(
            start_deadline_seconds=settings.start_deadline_seconds,
            stop_grace_seconds=settings.stop_grace_seconds,
            descriptors=descriptors,
            variables=settings.run_environment,
        ),
        paths=paths,
        clock=clock,
        stop_grace_seconds=settings.stop_grace_seconds,
        max_restarts=settings.max_restarts,
        newest_checkpoint=note_checkpoints,
        in_own_names=lambda text: uploads.in_own_names(text),  # noqa: PLW0108  # they are opened just below
    )
    scheduler = Scheduler(
        book=book,
        supervisor=supervisor,
        capacity=slots,
        demand_of=demand_of,
        launch_of=lambda run, gpus: run_service.launch(run, gpus),  # noqa: PLW0108  # the service is built just below
    )
    idempotent_calls = _idempotent_calls(journals)
    uploads = UploadService(journals.uploads, paths, idempotent_calls, clock)
    train_configs = TrainConfigs(journals.train_configs, paths, recipes, clock, settings.max_train_config_bytes)
    datasets = DatasetService(
        journal=journals.datasets,
        uploads=uploads,
        configs=train_configs,
        unfinished=lambda: run_service.unfinished(),  # noqa: PLW0108  # the service is built just below
        clock=clock,
    )
    lookup = Lookup(datasets, uploads, train_configs)
    references = References(
        roots=settings.roots,
        aliases=settings.aliases,
        paths=paths,
        book=book,
        checkpoint=checkpoints.referenced,
        uploaded=lookup.files_of,
    )
    run_service = RunService(
        book=book,
        live=live,
        scheduler=scheduler,
        recipes=recipes,
        references=references,
        resolver=RequestResolver(
            recipes=recipes,
            references=references,
            max_train_config_bytes=settings.max_train_config_bytes,
            config_for=datasets.config_for,
        ),
        checkpoints=checkpoints,
        vet_url=client.vet,
        data_faults=lookup.data_faults,
        capacity=slots,
        paths=paths,
        clock=clock,
    )
    for listener in (live.committed, scheduler.committed, reporter.committed):
        journals.runs.on_commit(listener)
    calls = WorkerCalls(variables=settings.run_environment, descriptors=descriptors)
    vitals = Vitals()
    rooms = Rooms(
        settings=settings,
        keys=key_ring,
        recipes=recipes,
        experiments=ExperimentService(journals.experiments, clock),
        projects=ProjectBook(journals.experiments, clock),
        project_resources=ProjectResources(
            training_dir=settings.training_dir,
            uploads=lookup,
            references=run_service,
            recipes=recipes,
            max_train_config_bytes=settings.max_train_config_bytes,
        ),
        runs=run_service,
        artifacts=ArtifactBook(journals.artifacts, paths),
        scheduler=scheduler,
        slots=slots,
        checkpoints=checkpoints,
        datasets=datasets,
        uploads=uploads,
        train_configs=train_configs,
        callbacks=callbacks,
        idempotent_calls=idempotent_calls,
        client=client,
        calls=calls,
        previews=PreviewService(calls, paths.previews),
        deid=DeidService(paths.policies, variables=settings.run_environment, descriptors=descriptors),
        finetune_turns=Turns(),
        function=function,
    )
    return House(
        rooms=rooms,
        vitals=vitals,
        reporter=reporter,
        client=client,
        journals=journals.all,
        watermarks=WatermarkKeeper(Watermarks(paths.watermarks, clock), journals.all),
    )


def create_app(house: House) -> Litestar:
    """The HTTP application over an open house."""
    times = RequestTimes()
    app = Litestar(
        route_handlers=[
            *service.HANDLERS,
            *documentation.HANDLERS,
            *experiments.HANDLERS,
            *projects.HANDLERS,
            *runs.HANDLERS,
            *artifacts.HANDLERS,
            *checkpoint_door.HANDLERS,
            *data_door.HANDLERS,
            *dataset_door.HANDLERS,
            *deid_door.HANDLERS,
            *preview_door.HANDLERS,
            *callback_door.HANDLERS,
            *finetune.HANDLERS,
            *keys.HANDLERS,
        ],
        middleware=[
            DefineMiddleware(RequestTimer, times=times),
            DefineMiddleware(AccessGuard, keys=house.rooms.keys),
            DefineMiddleware(KnownParameters),
            DefineMiddleware(OptionsAnswer),
        ],
        dto=StrictBody,
        return_dto=None,
        exception_handlers=problems.HANDLERS,
        lifespan=[_lifespan(house)],
        openapi_config=None,
        request_max_body_size=_LARGEST_JSON_BODY,
        logging_config=None,
    )
    app.state.rooms = house.rooms
    app.state.vitals = house.vitals
    app.state.request_times = times
    return app


def _lifespan(house: House) -> Callable[[Litestar], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(_app: Litestar) -> AsyncIterator[None]:
        await house.rooms.datasets.settle()
        await house.rooms.previews.forget_deleted()
        downloads = leftovers(StatePaths(house.rooms.settings.state_dir))
        async with anyio.create_task_group() as tasks:
            await house.vitals.start(tasks, "watermarks", house.watermarks.run)
            await house.vitals.start(tasks, "callbacks", house.rooms.callbacks.run)
            await house.vitals.start(tasks, "reporter", house.reporter.run)
            await house.vitals.start(tasks, "scheduler", house.rooms.scheduler.run)
            await house.vitals.start(tasks, "deid", house.rooms.deid.run)
            tasks.start_soon(_sweep_downloads, house, downloads)
            yield
            # Runs go on without us; the next server finds them.
            tasks.cancel_scope.cancel()
        with anyio.CancelScope(shield=True):
            await house.client.aclose()
            for journal in house.journals:
                await journal.close()

    return lifespan


async def _sweep_downloads(house: House, found: set[str]) -> None:
    """Beside the service: where many runs are on record it takes a while to see that none names a folder."""
    paths, every = StatePaths(house.rooms.settings.state_dir), house.rooms.runs.book.every
    try:
        await anyio.to_thread.run_sync(
            partial(sweep, paths, found, every, between_runs=anyio.from_thread.check_cancelled)
        )
    except TunesmithError as error:
        _log.warning("downloads_not_swept", reason=str(error))


def _idempotent_calls(journals: _Journals) -> IdempotentCalls:
    calls = IdempotentCalls()
    calls.follow(journals.experiments, lambda one: one.calls)
    calls.follow(journals.runs, _call_of)
    calls.follow(journals.datasets, _call_of)
    calls.follow(journals.uploads, _call_of)
    calls.follow(journals.checkpoints, lambda one: one.calls)
    calls.follow(journals.keys, _call_of)
    return calls


def _call_of(summary: RunSummary | DatasetSummary | UploadSummary | KeySummary) -> tuple[IdempotentCall, ...]:
    return () if summary.idempotency is None else (summary.idempotency,)


def _refuse_open_bind(settings: Settings, keys: KeyRing) -> None:
    if not settings.is_loopback and not keys.usable:
        raise SettingsInvalid(
            f"refusing to listen on {settings.host} without an API key: anybody who reaches it could use this machine",
            where="host",
            mend="make a key first: tunesmith keys create NAME --scope admin",
        )


def _needed(unfinished: Iterable[Run]) -> Iterator[str]:
    """Checkpoints that a run under way, in the queue or being created starts from or uses."""
    for run in unfinished:
        yield from run.checkpoints_used
        yield from (path for path in (run.resume_from, run.model) if path is not None)  # all that older records say
