"""Builds what the OpenAI-shaped door asks."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta

from tunesmith.api.services import OpenAIServices
from tunesmith.app.base import Base
from tunesmith.datasets import Arrived, Details, SingleFiles, UploadService
from tunesmith.deployments import DeploymentService
from tunesmith.inference import ChatService, Completions
from tunesmith.openai import FileChecks, ModelCatalog, PartFiles, UploadsInParts
from tunesmith.records import Upload, UploadInParts
from tunesmith.references import References


def openai_of(
    base: Base,
    uploads: UploadService,
    single_files: SingleFiles,
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
        uploads_in_parts=_uploads_in_parts(base, uploads, single_files),
    )


def _uploads_in_parts(base: Base, uploads: UploadService, single_files: SingleFiles) -> UploadsInParts:
    async def put(upload: UploadInParts, chunks: AsyncIterator[bytes], upload_id: str) -> Upload:
        def judge(arrived: Arrived) -> Details:
            kept = timedelta(seconds=upload.keep_seconds) if upload.keep_seconds is not None else None
            return Details(purpose=upload.purpose, expires_at=arrived.at + kept if kept is not None else None)

        return (await single_files.put(upload.name, chunks, judge, upload_id)).upload

    files = PartFiles(base.paths.parts_folder)
    return UploadsInParts(base.journals.uploads_in_parts, files, put, uploads.__contains__, base.clock)
