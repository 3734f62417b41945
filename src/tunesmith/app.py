"""Builds the services: the only module that knows all of them, and hands each what it needs.

Opening is synchronous and loud: a damaged journal or an unusable folder stops the start with the reason.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, Protocol

import msgspec

from tunesmith.access import KeyRing
from tunesmith.api.services import Services
from tunesmith.callbacks import CallbackService
from tunesmith.checkpoints import CheckpointBook, CheckpointKeeper, Retention
from tunesmith.datasets import (
    DatasetService,
    Lookup,
    TrainConfigs,
    UploadService,
)
from tunesmith.deid import DeidService
from tunesmith.deployments import (
    DeploymentBook,
    DeploymentService,
    EngineArguments,
    Engines,
    HealthCheck,
    Keeper,
    Limits,
    OnDemandEngines,
    ParityCheck,
    Planner,
    Ports,
)
from tunesmith.errors import SettingsInvalid
from tunesmith.experiments import ExperimentService, ProjectBook, ProjectResources
from tunesmith.finetune import FunctionDoor
from tunesmith.finetune.plan import RunPlan
from tunesmith.finetune.service import FinetuneService
from tunesmith.idempotency import IdempotentCalls
from tunesmith.inference import ChatService
from tunesmith.journal import Journal, WatermarkKeeper, Watermarks
from tunesmith.journals import Journals, idempotent_calls_in
from tunesmith.net.guarded import GuardedClient
from tunesmith.net.loopback import LoopbackClient
from tunesmith.paths import StatePaths
from tunesmith.previews import PreviewService
from tunesmith.publishing import Publisher
from tunesmith.recipes import RecipeBook
from tunesmith.records import (
    Clock,
    Run,
    utc_now,
)
from tunesmith.references import ModelNames, References
from tunesmith.reporting import FinetuneShape, OpenAIEvents, Reporter, RunListener
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
    Followers,
    LiveRuns,
    RequestResolver,
    RunBook,
    RunConfigs,
    RunCreator,
    RunRequest,
    RunResumer,
    RunServices,
    RunStopper,
    RunWarnings,
    Scheduler,
    Supervisor,
    UnfinishedRuns,
    demand_of,
    launch_of,
)
from tunesmith.settings import Settings
from tunesmith.state_folder import refuse_incomplete, refuse_unrecorded_runs
from tunesmith.tasks import EndWaiter, TaskPlan, TaskService
from tunesmith.vitals import BackgroundTask, Vitals


class BackgroundService(Protocol):
    """Something that works for as long as the server runs."""

    @property
    def run(self) -> BackgroundTask: ...


@dataclass(frozen=True)
class App:
    """Everything that is open while the server runs."""

    services: Services
    vitals: Vitals
    reporter: BackgroundService
    client: GuardedClient
    loopback: LoopbackClient
    journals: tuple[Journal[Any, Any], ...]
    watermarks: WatermarkKeeper

    def let_go(self) -> None:
        """End what would keep a server from stopping: event streams, uploads that are coming in, who waits for a run."""
        self.services.runs.live.close()
        self.services.uploads.close()
        self.services.end_waiter.close()


@dataclass(frozen=True, kw_only=True)
class _Base:
    """What every build function may use."""

    settings: Settings
    paths: StatePaths
    clock: Clock
    descriptors: ChildDescriptors
    journals: Journals
    recipes: RecipeBook
    book: RunBook
    unfinished: UnfinishedRuns
    deployed: DeploymentBook
    client: GuardedClient
    loopback: LoopbackClient
    idempotent_calls: IdempotentCalls
    calls: WorkerCalls


def open_services(
    settings: Settings,
    *,
    clock: Clock = utc_now,
    executor: Executor | None = None,
    gpu_probe: GpuProbe = find_gpus,
    function: FunctionDoor | None = None,
    descriptors: ChildDescriptors = AS_INHERITED,
) -> App:
    """Open the journals and build the services. Holds no lock and starts nothing. ``function`` is what POST /finetune calls,
    ``descriptors`` how many processes that are started may have.

    Raises:
        JournalDamaged: a record file does not check out.
        StateFolderIncomplete: a record file is missing, or older than it was.
        SettingsInvalid: bound to more than loopback without a usable key.
    """
    base = _base(settings, clock, descriptors)
    keys = KeyRing(base.journals.keys, clock)
    _refuse_open_bind(settings, keys)
    slots = Slots(gpu_probe(), settings.max_cpu_runs)
    checkpoints, keeper = _checkpoints(base)
    datasets = _datasets(base)
    references = _references(base, checkpoints, datasets.lookup)
    callbacks, _, reporter = _callbacks(base)
    live = LiveRuns(base.paths, RunListener(reporter, base.book, keeper.note).heard)
    executor = executor or _executor(base)
    scheduler = _scheduler(base, slots, executor, live, keeper, datasets.uploads)
    deployments = _deployments(base, slots, executor, references, checkpoints, scheduler)
    runs = _runs(base, slots, live, scheduler, references, checkpoints, datasets)
    doors = _doors(base, function, references, runs.creator)
    for listener in (live.committed, scheduler.committed, reporter.committed, doors.publisher.committed):
        base.journals.runs.on_commit(listener)
    services = _services(
        base, keys, slots, checkpoints, datasets, references, callbacks, scheduler, runs, doors, deployments
    )
    return _opened(base, services, reporter)


def _opened(base: _Base, services: Services, reporter: Reporter) -> App:
    return App(
        services=services,
        vitals=Vitals(),
        reporter=reporter,
        client=base.client,
        loopback=base.loopback,
        journals=base.journals.all,
        watermarks=WatermarkKeeper(Watermarks(base.paths.watermarks, base.clock), base.journals.all),
    )


def _base(settings: Settings, clock: Clock, descriptors: ChildDescriptors) -> _Base:
    paths = StatePaths(settings.state_dir)
    paths.create()
    refuse_incomplete(paths, clock)
    journals = Journals.open(paths, clock)
    refuse_unrecorded_runs(paths, journals.runs)
    book = RunBook(journals.runs, webhook=bool(settings.webhook_url))
    return _Base(
        settings=settings,
        paths=paths,
        clock=clock,
        descriptors=descriptors,
        journals=journals,
        recipes=RecipeBook(settings.recipes_dir),
        book=book,
        unfinished=UnfinishedRuns(book),
        deployed=DeploymentBook(journals.deployments),
        client=GuardedClient(allow_private=settings.allow_private_urls),
        loopback=LoopbackClient(),
        idempotent_calls=idempotent_calls_in(journals),
        calls=WorkerCalls(variables=settings.run_environment, descriptors=descriptors),
    )


def _refuse_open_bind(settings: Settings, keys: KeyRing) -> None:
    if not settings.is_loopback and not keys.usable:
        raise SettingsInvalid(
            f"refusing to listen on {settings.host} without an API key: anybody who reaches it could use this machine",
            where="host",
            mend="make a key first: tunesmith keys create NAME --scope admin",
        )


def _names(base: _Base) -> ModelNames:
    return ModelNames(base.settings.aliases, base.paths, base.book, base.deployed.__contains__)


def _checkpoints(base: _Base) -> tuple[CheckpointBook, CheckpointKeeper]:
    names = _names(base)
    checkpoints = CheckpointBook(base.journals.checkpoints, base.paths, base.clock, other_meaning=names.other_meaning)
    retention = Retention(checkpoints, base.settings.checkpoint_budget_bytes, base.unfinished.checkpoints)
    return checkpoints, CheckpointKeeper(checkpoints, retention)


class _Datasets(NamedTuple):
    datasets: DatasetService
    uploads: UploadService
    train_configs: TrainConfigs
    lookup: Lookup


def _datasets(base: _Base) -> _Datasets:
    journals, most_bytes = base.journals, base.settings.max_train_config_bytes
    uploads = UploadService(journals.uploads, base.paths, base.idempotent_calls, base.clock)
    train_configs = TrainConfigs(journals.train_configs, base.paths, base.recipes, base.clock, most_bytes)
    datasets = DatasetService(
        journal=journals.datasets,
        uploads=uploads,
        configs=train_configs,
        unfinished=base.unfinished.all,
        clock=base.clock,
    )
    return _Datasets(datasets, uploads, train_configs, Lookup(datasets, uploads, train_configs))


def _references(base: _Base, checkpoints: CheckpointBook, lookup: Lookup) -> References:
    return References(
        roots=base.settings.roots,
        aliases=base.settings.aliases,
        paths=base.paths,
        book=base.book,
        checkpoint=checkpoints.referenced,
        deployment=base.deployed.known,
        uploaded=lookup.files_of,
    )


class _Callbacks(NamedTuple):
    callbacks: CallbackService
    openai_events: OpenAIEvents
    reporter: Reporter


def _callbacks(base: _Base) -> _Callbacks:
    shape = FinetuneShape(base.paths, base.book)
    callbacks = CallbackService(
        journal=base.journals.deliveries,
        client=base.client,
        secret_path=base.paths.webhook_secret,
        clock=base.clock,
        make_body=shape.body_of,
    )
    openai_events = OpenAIEvents(callbacks, base.settings.webhook_url)
    return _Callbacks(callbacks, openai_events, Reporter(base.book, callbacks, shape, openai_events))


def _executor(base: _Base) -> Executor:
    return LocalExecutor(
        start_deadline_seconds=base.settings.start_deadline_seconds,
        stop_grace_seconds=base.settings.stop_grace_seconds,
        descriptors=base.descriptors,
        variables=base.settings.run_environment,
    )


def _scheduler(
    base: _Base, slots: Slots, executor: Executor, live: LiveRuns, keeper: CheckpointKeeper, uploads: UploadService
) -> Scheduler:
    supervisor = Supervisor(
        book=base.book,
        live=live,
        executor=executor,
        paths=base.paths,
        clock=base.clock,
        stop_grace_seconds=base.settings.stop_grace_seconds,
        max_restarts=base.settings.max_restarts,
        newest_checkpoint=keeper.note,
        in_own_names=uploads.in_own_names,
    )
    return Scheduler(
        book=base.book,
        supervisor=supervisor,
        capacity=slots,
        demand_of=demand_of,
        launch_of=partial(launch_of, base.paths, allow_private_urls=base.settings.allow_private_urls),
    )


def _runs(
    base: _Base,
    slots: Slots,
    live: LiveRuns,
    scheduler: Scheduler,
    references: References,
    checkpoints: CheckpointBook,
    datasets: _Datasets,
) -> RunServices:
    book, clock = base.book, base.clock
    configs = RunConfigs(book, base.recipes, base.paths)
    creator = _creator(base, slots, live, references, checkpoints, datasets)
    return RunServices(
        book=book,
        unfinished=base.unfinished,
        live=live,
        followers=Followers(book, live, base.paths),
        configs=configs,
        warnings=RunWarnings(live, slots),
        creator=creator,
        stopper=RunStopper(book=book, scheduler=scheduler, checkpoints=checkpoints, configs=configs, clock=clock),
        resumer=RunResumer(book=book, creator=creator, checkpoints=checkpoints, configs=configs),
    )


def _creator(
    base: _Base,
    slots: Slots,
    live: LiveRuns,
    references: References,
    checkpoints: CheckpointBook,
    datasets: _Datasets,
) -> RunCreator:
    return RunCreator(
        book=base.book,
        live=live,
        unfinished=base.unfinished,
        references=references,
        resolver=RequestResolver(
            recipes=base.recipes,
            references=references,
            max_train_config_bytes=base.settings.max_train_config_bytes,
            config_for=datasets.datasets.config_for,
        ),
        capacity=slots,
        paths=base.paths,
        clock=base.clock,
        checkpoints=checkpoints,
        vet_url=base.client.vet,
        data_faults=datasets.lookup.data_faults,
    )


class _Doors(NamedTuple):
    """What only one or two of the doors need, by its name among the services."""

    finetune: FinetuneService
    publisher: Publisher
    tasks: TaskService
    end_waiter: EndWaiter


def _doors(base: _Base, function: FunctionDoor | None, references: References, creator: RunCreator) -> _Doors:
    publisher = Publisher(base.book, base.paths, base.clock)
    return _Doors(
        finetune=_finetune(base, function, references, creator),
        publisher=publisher,
        tasks=_tasks(base, references, creator, publisher),
        end_waiter=EndWaiter(base.book.wait_until_over, publisher),
    )


def _finetune(
    base: _Base, function: FunctionDoor | None, references: References, creator: RunCreator
) -> FinetuneService:
    async def create_run(plan: RunPlan) -> Run:
        return await creator.create(RunRequest(**msgspec.structs.asdict(plan)))

    settings = base.settings
    return FinetuneService(
        function=function,
        run_of_task=base.book.of_task,
        create_run=create_run,
        references=references,
        client=base.client,
        recipes=base.recipes,
        paths=base.paths,
        folder=settings.finetuned_dir or base.paths.finetuned,
        default_model=settings.default_model,
        max_download_bytes=settings.max_download_bytes,
        allow_private_urls=settings.allow_private_urls,
    )


def _deployments(
    base: _Base,
    slots: Slots,
    executor: Executor,
    references: References,
    checkpoints: CheckpointBook,
    scheduler: Scheduler,
) -> DeploymentService:
    settings, ports = base.settings, Ports()
    names = ModelNames(settings.aliases, base.paths, base.book)  # other deployments' names are the service's to refuse
    engines = Engines(vllm_command=settings.vllm_command, has_gpu=bool(slots.gpus))

    def other_meaning(name: str) -> str | None:
        return "a checkpoint" if checkpoints.referenced(name) is not None else names.other_meaning(name)

    return DeploymentService(
        book=base.deployed,
        planner=Planner(
            resolve=references.resolve,
            engines=engines,
            arguments=EngineArguments(settings.allowed_engine_args),
            other_meaning=other_meaning,
        ),
        engines=engines,
        keeper=_engine_keeper(base, executor, engines, ports),
        ports=ports,
        leases=slots,
        paths=base.paths,
        clock=base.clock,
        max_deployments=settings.max_deployments,
        stop_grace_seconds=settings.stop_grace_seconds,
        released=scheduler.look_again,
    )


def _engine_keeper(base: _Base, executor: Executor, engines: Engines, ports: Ports) -> Keeper:
    return Keeper(
        book=base.deployed,
        executor=executor,
        engines=engines,
        ports=ports,
        health=HealthCheck(base.loopback),
        parity=ParityCheck(base.loopback),
        paths=base.paths,
        clock=base.clock,
        limits=Limits(
            start_deadline_seconds=base.settings.engine_start_deadline_seconds,
            max_restarts=base.settings.max_engine_restarts,
            stop_grace_seconds=base.settings.stop_grace_seconds,
        ),
    )


def _tasks(base: _Base, references: References, creator: RunCreator, publisher: Publisher) -> TaskService:
    return TaskService(
        create_run=lambda plan: creator.create(_run_request(plan)),
        check_plan=lambda plan: creator.resolved(_run_request(plan)),
        recipes=base.recipes,
        references=references,
        outputs=publisher,
        default_model=base.settings.default_model,
    )


def _run_request(plan: TaskPlan) -> RunRequest:
    return RunRequest(**msgspec.structs.asdict(plan))


def _services(
    base: _Base,
    keys: KeyRing,
    slots: Slots,
    checkpoints: CheckpointBook,
    datasets: _Datasets,
    references: References,
    callbacks: CallbackService,
    scheduler: Scheduler,
    runs: RunServices,
    doors: _Doors,
    deployments: DeploymentService,
) -> Services:
    journals, variables = base.journals, base.settings.run_environment
    return Services(
        settings=base.settings,
        paths=base.paths,
        keys=keys,
        recipes=base.recipes,
        experiments=ExperimentService(journals.experiments, base.clock),
        projects=ProjectBook(journals.experiments, base.clock),
        project_resources=_project_resources(base, datasets.lookup, references),
        runs=runs,
        references=references,
        artifacts=ArtifactBook(journals.artifacts, base.paths),
        scheduler=scheduler,
        slots=slots,
        checkpoints=checkpoints,
        datasets=datasets.datasets,
        uploads=datasets.uploads,
        train_configs=datasets.train_configs,
        callbacks=callbacks,
        idempotent_calls=base.idempotent_calls,
        calls=base.calls,
        previews=PreviewService(base.calls, base.paths.previews),
        deid=DeidService(base.paths.policies, variables=variables, descriptors=base.descriptors),
        deployments=deployments,
        chat=_chat(base, deployments, references),
        **doors._asdict(),
    )


def _chat(base: _Base, deployments: DeploymentService, references: References) -> ChatService:
    return ChatService(
        resolve=references.resolve,
        engines=OnDemandEngines(
            deployments, base.loopback, ParityCheck(base.loopback), warm_models=base.settings.warm_models
        ),
        loopback=base.loopback,
        default_model=base.settings.default_model,
    )


def _project_resources(base: _Base, lookup: Lookup, references: References) -> ProjectResources:
    return ProjectResources(
        training_dir=base.settings.training_dir,
        uploads=lookup,
        references=references,
        recipes=base.recipes,
        max_train_config_bytes=base.settings.max_train_config_bytes,
    )
