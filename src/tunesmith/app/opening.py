"""The order in which services are built: each is handed those that it needs. What serves models, and what OpenAI's clients ask,
is built in the modules beside this one.

Opening is synchronous and loud: a damaged journal or an unusable folder stops the start with the reason.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, Protocol

import msgspec

from tunesmith.access import KeyRing
from tunesmith.api.services import Services
from tunesmith.app.base import Base, open_base
from tunesmith.app.openai import openai_of, result_files_of, validator_of
from tunesmith.app.serving import chat_of, deployments_of
from tunesmith.callbacks import CallbackService
from tunesmith.checkpoints import CheckpointBook, CheckpointKeeper, Retention
from tunesmith.datasets import (
    DatasetService,
    Lookup,
    SingleFiles,
    TrainConfigs,
    UploadService,
)
from tunesmith.deid import DeidService
from tunesmith.errors import SettingsInvalid
from tunesmith.experiments import ExperimentService, ProjectBook, ProjectResources
from tunesmith.finetune import FunctionDoor
from tunesmith.finetune.plan import RunPlan
from tunesmith.finetune.service import FinetuneService
from tunesmith.journal import Journal, WatermarkKeeper, Watermarks
from tunesmith.net.guarded import GuardedClient
from tunesmith.net.loopback import LoopbackClient
from tunesmith.openai import ResultFiles
from tunesmith.previews import PreviewService
from tunesmith.publishing import Publisher
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
    find_gpus,
)
from tunesmith.runs import (
    ArtifactBook,
    Followers,
    LiveRuns,
    RequestResolver,
    RunConfigs,
    RunCreator,
    RunRequest,
    RunResumer,
    RunServices,
    RunStopper,
    RunWarnings,
    Scheduler,
    Supervisor,
    demand_of,
    launch_of,
)
from tunesmith.settings import Settings
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
        self.services.openai.uploads_in_parts.close()
        self.services.end_waiter.close()


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
    base = open_base(settings, clock, descriptors)
    keys = KeyRing(base.journals.keys, clock)
    _refuse_open_bind(settings, keys)
    return _opened(base, keys, Slots(gpu_probe(), settings.max_cpu_runs), executor or _executor(base), function)


def _opened(base: Base, keys: KeyRing, slots: Slots, executor: Executor, function: FunctionDoor | None) -> App:
    checkpoints, keeper = _checkpoints(base)
    datasets = _datasets(base)
    references = _references(base, checkpoints, datasets.lookup)
    results = result_files_of(base, datasets.single_files, datasets.uploads)
    callbacks, events, reporter = _callbacks(base, results)
    live = LiveRuns(base.paths, RunListener(reporter, base.book, keeper.note).heard)
    scheduler = _scheduler(base, slots, executor, live, keeper, datasets.uploads)
    deployments = deployments_of(base, slots, executor, references, checkpoints, scheduler)
    runs = _runs(base, slots, live, scheduler, references, checkpoints, datasets)
    doors = _doors(base, function, references, runs.creator)
    chat = chat_of(base, deployments, references)
    openai = openai_of(base, datasets.uploads, datasets.single_files, references, deployments, chat, events, results)
    validator = validator_of(base, openai.file_checks, runs.configs)
    for listener in (live, scheduler, reporter, doors.publisher, validator, results):
        base.journals.runs.on_commit(listener.committed)
    services = Services(
        **_of_base(base),
        **doors._asdict(),
        **datasets.services(),
        project_resources=_project_resources(base, datasets.lookup, references),
        keys=keys,
        runs=runs,
        references=references,
        scheduler=scheduler,
        validator=validator,
        slots=slots,
        checkpoints=checkpoints,
        callbacks=callbacks,
        deployments=deployments,
        chat=chat,
        openai=openai,
    )
    return _app(base, services, reporter)


def _app(base: Base, services: Services, reporter: Reporter) -> App:
    return App(
        services=services,
        vitals=Vitals(),
        reporter=reporter,
        client=base.client,
        loopback=base.loopback,
        journals=base.journals.all,
        watermarks=WatermarkKeeper(Watermarks(base.paths.watermarks, base.clock), base.journals.all),
    )


def _refuse_open_bind(settings: Settings, keys: KeyRing) -> None:
    if not settings.is_loopback and not keys.usable:
        raise SettingsInvalid(
            f"refusing to listen on {settings.host} without an API key: anybody who reaches it could use this machine",
            where="host",
            mend="make a key first: tunesmith keys create NAME --scope admin",
        )


def _names(base: Base) -> ModelNames:
    return ModelNames(base.settings.aliases, base.paths, base.book, base.deployed.__contains__)


def _checkpoints(base: Base) -> tuple[CheckpointBook, CheckpointKeeper]:
    names = _names(base)
    checkpoints = CheckpointBook(base.journals.checkpoints, base.paths, base.clock, other_meaning=names.other_meaning)
    retention = Retention(checkpoints, base.settings.checkpoint_budget_bytes, base.unfinished.checkpoints)
    return checkpoints, CheckpointKeeper(checkpoints, retention)


class _Datasets(NamedTuple):
    datasets: DatasetService
    uploads: UploadService
    single_files: SingleFiles
    train_configs: TrainConfigs
    lookup: Lookup

    def services(self) -> dict[str, Any]:
        """By their names among the services."""
        return {name: service for name, service in self._asdict().items() if name != "lookup"}


def _datasets(base: Base) -> _Datasets:
    journals, most_bytes = base.journals, base.settings.max_train_config_bytes
    uploads = UploadService(journals.uploads, base.paths, base.idempotent_calls, base.clock)
    train_configs = TrainConfigs(journals.train_configs, base.paths, base.recipes, base.clock, most_bytes)
    datasets = DatasetService(
        journal=journals.datasets,
        uploads=uploads,
        configs=train_configs,
        unfinished=base.unfinished.all,
        clock=base.clock,
        other_users=base.batches.users_of,
    )
    return _Datasets(
        datasets=datasets,
        uploads=uploads,
        single_files=SingleFiles(datasets, uploads, base.clock),
        train_configs=train_configs,
        lookup=Lookup(datasets, uploads, train_configs),
    )


def _references(base: Base, checkpoints: CheckpointBook, lookup: Lookup) -> References:
    return References(
        roots=base.settings.roots,
        aliases=base.settings.aliases,
        paths=base.paths,
        book=base.book,
        checkpoint=checkpoints.referenced,
        checkpoint_at=checkpoints.at_step,
        deployment=base.deployed.known,
        uploaded=lookup.files_of,
    )


class _Callbacks(NamedTuple):
    callbacks: CallbackService
    openai_events: OpenAIEvents
    reporter: Reporter


def _callbacks(base: Base, results: ResultFiles) -> _Callbacks:
    shape = FinetuneShape(base.paths, base.book)
    callbacks = CallbackService(
        journal=base.journals.deliveries,
        client=base.client,
        secret_path=base.paths.webhook_secret,
        clock=base.clock,
        make_body=shape.body_of,
    )
    openai_events = OpenAIEvents(callbacks, base.settings.webhook_url)
    return _Callbacks(callbacks, openai_events, Reporter(base.book, callbacks, shape, openai_events, results.settled))


def _executor(base: Base) -> Executor:
    return LocalExecutor(
        start_deadline_seconds=base.settings.start_deadline_seconds,
        stop_grace_seconds=base.settings.stop_grace_seconds,
        descriptors=base.descriptors,
        variables=base.settings.run_environment,
    )


def _scheduler(
    base: Base, slots: Slots, executor: Executor, live: LiveRuns, keeper: CheckpointKeeper, uploads: UploadService
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
    base: Base,
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
    base: Base,
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
        leaving_models=base.leaving_models,
        vet_url=base.client.vet,
        data_faults=datasets.lookup.data_faults,
    )


class _Doors(NamedTuple):
    """What only one or two of the doors need, by its name among the services."""

    finetune: FinetuneService
    publisher: Publisher
    tasks: TaskService
    end_waiter: EndWaiter


def _doors(base: Base, function: FunctionDoor | None, references: References, creator: RunCreator) -> _Doors:
    publisher = Publisher(base.book, base.paths, base.clock)
    return _Doors(
        finetune=_finetune(base, function, references, creator),
        publisher=publisher,
        tasks=_tasks(base, references, creator, publisher),
        end_waiter=EndWaiter(base.book.wait_until_over, publisher),
    )


def _finetune(
    base: Base, function: FunctionDoor | None, references: References, creator: RunCreator
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


def _tasks(base: Base, references: References, creator: RunCreator, publisher: Publisher) -> TaskService:
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


def _of_base(base: Base) -> dict[str, Any]:
    """The services that need nothing but what everybody may use, by their names among the services."""
    journals, variables = base.journals, base.settings.run_environment
    return {
        "settings": base.settings,
        "paths": base.paths,
        "recipes": base.recipes,
        "experiments": ExperimentService(journals.experiments, base.clock),
        "projects": ProjectBook(journals.experiments, base.clock),
        "artifacts": ArtifactBook(journals.artifacts, base.paths),
        "idempotent_calls": base.idempotent_calls,
        "calls": base.calls,
        "previews": PreviewService(base.calls, base.paths.previews),
        "deid": DeidService(base.paths.policies, variables=variables, descriptors=base.descriptors),
    }


def _project_resources(base: Base, lookup: Lookup, references: References) -> ProjectResources:
    return ProjectResources(
        training_dir=base.settings.training_dir,
        uploads=lookup,
        references=references,
        recipes=base.recipes,
        max_train_config_bytes=base.settings.max_train_config_bytes,
    )
