"""Builds what the OpenAI-shaped door asks."""

from __future__ import annotations

from tunesmith.api.services import OpenAIServices
from tunesmith.app.base import Base
from tunesmith.app.batches import batches_of
from tunesmith.datasets import SingleFiles, UploadService
from tunesmith.deployments import DeploymentService
from tunesmith.inference import ChatService, Completions
from tunesmith.openai import FileChecks, ModelCatalog
from tunesmith.references import References


def openai_of(
    base: Base,
    uploads: UploadService,
    single_files: SingleFiles,
    references: References,
    deployments: DeploymentService,
    chat: ChatService,
) -> OpenAIServices:
    models = _catalog(base, references, deployments)
    completions = Completions(chat.endpoint, base.loopback)
    return OpenAIServices(
        file_checks=FileChecks(uploads, base.calls, base.paths.root),
        models=models,
        completions=completions,
        batches=batches_of(base, uploads, single_files, models, chat, completions),
    )


def _catalog(base: Base, references: References, deployments: DeploymentService) -> ModelCatalog:
    return ModelCatalog(
        trained=base.book.trained,
        unfinished=base.unfinished.all,
        names=references.names,
        resolve=references.resolve,
        deployments=base.deployed,
        end_deployment=deployments.remove,
        run_of=base.book.get,
        paths=base.paths,
    )
