"""Builds what the OpenAI-shaped door asks."""

from __future__ import annotations

from tunesmith.api.services import OpenAIServices
from tunesmith.app.base import Base
from tunesmith.datasets import UploadService
from tunesmith.deployments import DeploymentService
from tunesmith.inference import ChatService, Completions
from tunesmith.openai import FileChecks, ModelCatalog
from tunesmith.references import References


def openai_of(
    base: Base,
    uploads: UploadService,
    references: References,
    deployments: DeploymentService,
    chat: ChatService,
) -> OpenAIServices:
    return OpenAIServices(
        file_checks=FileChecks(uploads, base.calls, base.paths.root),
        models=ModelCatalog(
            trained=base.book.trained,
            unfinished=base.unfinished.all,
            names=references.names,
            resolve=references.resolve,
            deployments=base.deployed,
            end_deployment=deployments.remove,
            run_of=base.book.get,
            paths=base.paths,
        ),
        completions=Completions(chat.endpoint, base.loopback),
    )
