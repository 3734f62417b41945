"""Builds what the OpenAI-shaped door asks."""

from __future__ import annotations

from collections.abc import AsyncIterator

from tunesmith.api.services import OpenAIServices
from tunesmith.app.base import Base
from tunesmith.datasets import Arrived, Details, SingleFiles, UploadService
from tunesmith.deployments import DeploymentService
from tunesmith.inference import ChatService, Completions
from tunesmith.openai import RESULTS, FileChecks, JobChecks, ModelCatalog, ResultFiles
from tunesmith.records import Run
from tunesmith.references import References
from tunesmith.references.model_size import parameters_of
from tunesmith.runs import RunConfig, RunConfigs, Validator, Verdict


def file_checks_of(base: Base, uploads: UploadService) -> FileChecks:
    return FileChecks(uploads, base.calls, base.paths.root)


def validator_of(base: Base, checks: FileChecks) -> Validator:
    jobs = JobChecks(checks, base.recipes, parameters_of)

    async def judge(run: Run, config: RunConfig) -> Verdict:
        found = await jobs.check(run, config.config, config.origins)
        return Verdict(fault=found.fault, values=found.values, labels=found.labels, warnings=found.warnings)

    return Validator(
        book=base.book,
        configs=RunConfigs(base.book, base.recipes, base.paths),
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
    checks: FileChecks,
    results: ResultFiles,
    references: References,
    deployments: DeploymentService,
    chat: ChatService,
) -> OpenAIServices:
    return OpenAIServices(
        file_checks=checks,
        results=results,
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
