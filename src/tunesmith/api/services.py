"""What the doors are given: every service they may ask. Built once, in ``app.py``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

from litestar import Request
from litestar.datastructures import State

from tunesmith.access import KeyRing
from tunesmith.callbacks import CallbackService
from tunesmith.checkpoints import CheckpointBook
from tunesmith.datasets import DatasetService, SingleFiles, TrainConfigs, UploadService
from tunesmith.deid import DeidService
from tunesmith.deployments import DeploymentService
from tunesmith.experiments import ExperimentService, ProjectBook, ProjectResources
from tunesmith.finetune.service import FinetuneService
from tunesmith.idempotency import IdempotentCalls
from tunesmith.inference import ChatService, Completions
from tunesmith.openai import FileChecks, Graders, ModelCatalog, ModelDeletion, ResultFiles, UploadsInParts
from tunesmith.openai.batches import BatchService
from tunesmith.paths import StatePaths
from tunesmith.previews import PreviewService
from tunesmith.publishing import Publisher
from tunesmith.recipes import RecipeBook
from tunesmith.references import References
from tunesmith.runner import Slots, WorkerCalls
from tunesmith.runs import ArtifactBook, RunServices, Scheduler, Validator
from tunesmith.settings import Settings
from tunesmith.tasks import EndWaiter, TaskService

HttpRequest = Request[Any, Any, State]


@dataclass(frozen=True, kw_only=True)
class OpenAIServices:
    """What only the OpenAI-shaped door asks."""

    file_checks: FileChecks
    results: ResultFiles
    models: ModelCatalog
    model_deletion: ModelDeletion
    completions: Completions
    graders: Graders
    uploads_in_parts: UploadsInParts
    batches: BatchService


@dataclass(frozen=True, kw_only=True)
class Services:
    """The services behind the doors."""

    settings: Settings
    paths: StatePaths
    keys: KeyRing
    recipes: RecipeBook
    experiments: ExperimentService
    projects: ProjectBook
    project_resources: ProjectResources
    runs: RunServices
    references: References
    artifacts: ArtifactBook
    scheduler: Scheduler
    validator: Validator
    slots: Slots
    checkpoints: CheckpointBook
    datasets: DatasetService
    uploads: UploadService
    single_files: SingleFiles
    train_configs: TrainConfigs
    callbacks: CallbackService
    idempotent_calls: IdempotentCalls
    calls: WorkerCalls
    previews: PreviewService
    deid: DeidService
    finetune: FinetuneService
    deployments: DeploymentService
    chat: ChatService
    publisher: Publisher
    tasks: TaskService
    end_waiter: EndWaiter
    openai: OpenAIServices


def services_of(request: HttpRequest) -> Services:
    return cast(Services, request.app.state.services)
