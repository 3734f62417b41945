"""Builds what the OpenAI-shaped door asks."""

from __future__ import annotations

from collections.abc import AsyncIterator

from tunesmith.api.services import OpenAIServices
from tunesmith.app.base import Base
from tunesmith.app.batches import batches_of
from tunesmith.datasets import Arrived, Details, SingleFiles, UploadService
from tunesmith.deployments import DeploymentService
from tunesmith.inference import ChatService, Completions
from tunesmith.openai import (
    RESULTS,
    FileChecks,
    Graders,
    JobChecks,
    ModelCatalog,
    ModelDeletion,
    PartFiles,
    ResultFiles,
    UploadsInParts,
)
from tunesmith.openai.batches import AskedModels
from tunesmith.records import Run, Upload, UploadInParts
from tunesmith.references import References
from tunesmith.references.model_size import parameters_of
from tunesmith.reporting import OpenAIEvents
from tunesmith.runs import RunConfig, RunConfigs, Validator, Verdict


def validator_of(base: Base, checks: FileChecks, configs: RunConfigs) -> Validator:
    jobs = JobChecks(checks, base.recipes, parameters_of)

    async def judge(run: Run, config: RunConfig) -> Verdict:
        found = await jobs.check(run, config.config, config.origins)
        return Verdict(fault=found.fault, values=found.values, labels=found.labels, warnings=found.warnings)

    return Validator(
        book=base.book,
        configs=configs,
        paths=base.paths,
        clock=base.clock,
        judge=judge,
    )


def result_files_of(base: Base, files: SingleFiles, uploads: UploadService) -> ResultFiles:
    async def keep(name: str, chunks: AsyncIterator[bytes], upload_id: str) -> None:
        await files.put(name, chunks, _for_results, upload_id)

    results = ResultFiles(keep=keep, was_ever=uploads.was_ever, paths=base.paths)
    results.look_back(base.book.succeeded_jobs())
    return results


def _for_results(_arrived: Arrived) -> Details:
    return Details(purpose=RESULTS)


def openai_of(
    base: Base,
    uploads: UploadService,
    single_files: SingleFiles,
    references: References,
    deployments: DeploymentService,
    chat: ChatService,
    events: OpenAIEvents,
    results: ResultFiles,
) -> OpenAIServices:
    models = _catalog(base, references)
    completions = Completions(chat.endpoint, base.loopback)
    return OpenAIServices(
        file_checks=FileChecks(uploads, base.calls, base.paths.root),
        results=results,
        models=models,
        model_deletion=_model_deletion(base, uploads, references, deployments),
        completions=completions,
        graders=Graders(base.calls, completions.whole),
        uploads_in_parts=_uploads_in_parts(base, uploads, single_files),
        batches=batches_of(base, uploads, single_files, models, chat, completions, events),
    )


def _catalog(base: Base, references: References) -> ModelCatalog:
    return ModelCatalog(
        trained=base.book.trained,
        names=references.names,
        resolve=references.resolve,
        deployments=base.deployed,
        leaving=base.leaving_models,
        run_of=base.book.get,
        paths=base.paths,
    )


def _model_deletion(
    base: Base, uploads: UploadService, references: References, deployments: DeploymentService
) -> ModelDeletion:
    return ModelDeletion(
        references=references,
        leaving=base.leaving_models,
        unfinished=base.unfinished,
        trained_after=base.book.trained_after,
        batches=AskedModels(base.batches, uploads.path),
        deployments=base.deployed,
        end_deployment=deployments.remove,
        run_of=base.book.get,
        paths=base.paths,
    )


def _uploads_in_parts(base: Base, uploads: UploadService, single_files: SingleFiles) -> UploadsInParts:
    async def put(upload: UploadInParts, chunks: AsyncIterator[bytes], upload_id: str) -> Upload:
        def judge(_arrived: Arrived) -> Details:
            return Details(purpose=upload.purpose, keep_seconds=upload.keep_seconds)

        return (await single_files.put(upload.name, chunks, judge, upload_id)).upload

    files = PartFiles(base.paths.parts_folder)
    return UploadsInParts(base.journals.uploads_in_parts, files, put, uploads.__contains__, base.clock)
