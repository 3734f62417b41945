"""What every build function may use: settings, journals, clock, and the few things that nearly every service asks."""

from __future__ import annotations

from dataclasses import dataclass

from tunesmith.deployments import DeploymentBook
from tunesmith.idempotency import IdempotentCalls
from tunesmith.journals import Journals, idempotent_calls_in
from tunesmith.net.guarded import GuardedClient
from tunesmith.net.loopback import LoopbackClient
from tunesmith.openai.batches import BatchBook
from tunesmith.paths import StatePaths
from tunesmith.recipes import RecipeBook
from tunesmith.records import Clock
from tunesmith.references import LeavingModels
from tunesmith.runner import ChildDescriptors, WorkerCalls
from tunesmith.runs import RunBook, UnfinishedRuns
from tunesmith.settings import Settings
from tunesmith.state_folder import refuse_incomplete, refuse_unrecorded_runs


@dataclass(frozen=True, kw_only=True)
class Base:
    """What every build function may use."""

    settings: Settings
    paths: StatePaths
    clock: Clock
    descriptors: ChildDescriptors
    journals: Journals
    recipes: RecipeBook
    book: RunBook
    unfinished: UnfinishedRuns
    leaving_models: LeavingModels
    deployed: DeploymentBook
    batches: BatchBook
    client: GuardedClient
    loopback: LoopbackClient
    idempotent_calls: IdempotentCalls
    calls: WorkerCalls


def open_base(settings: Settings, clock: Clock, descriptors: ChildDescriptors) -> Base:
    paths = StatePaths(settings.state_dir)
    paths.create()
    refuse_incomplete(paths, clock)
    journals = Journals.open(paths, clock)
    refuse_unrecorded_runs(paths, journals.runs)
    book = RunBook(journals.runs, webhook=bool(settings.webhook_url))
    return Base(
        settings=settings,
        paths=paths,
        clock=clock,
        descriptors=descriptors,
        journals=journals,
        recipes=RecipeBook(settings.recipes_dir),
        book=book,
        unfinished=UnfinishedRuns(book),
        leaving_models=LeavingModels(),
        deployed=DeploymentBook(journals.deployments),
        batches=BatchBook(journals.batches),
        client=GuardedClient(allow_private=settings.allow_private_urls),
        loopback=LoopbackClient(),
        idempotent_calls=idempotent_calls_in(journals),
        calls=WorkerCalls(variables=settings.run_environment, descriptors=descriptors),
    )
