"""``/v1/fine_tuning/jobs``: runs, started, followed and stopped in OpenAI's words."""

from __future__ import annotations

import random
from typing import Annotated, Any
from urllib.parse import parse_qsl

import anyio.to_thread
from litestar import get, post
from litestar.params import FromPath, HeaderParameter, JSONBody, QueryParameter

from tunesmith.api.idempotency import call_of
from tunesmith.api.openai.errors import READS, WRITES, OpenAIError
from tunesmith.api.openai.job_objects import Job, JobCheckpointPage, JobEventPage, JobPage
from tunesmith.api.openai.job_views import checkpoint_of, event_of, job_of
from tunesmith.api.openai.pages import After, first_of
from tunesmith.api.services import HttpRequest, Services, services_of
from tunesmith.errors import InvalidInput, NotFound
from tunesmith.openai import (
    checkpoint_record_id,
    job_repeats,
    job_request,
    labels,
    measured_at,
    newest_events,
    run_id,
    upload_id,
)
from tunesmith.openai.job_request import JobRequest
from tunesmith.records import Checkpoint, DatasetReference, Run, RunKind, utc_now
from tunesmith.runs import RunRequest, RunSummary

_SCOPE = "fine-tuning jobs"

JobLimit = Annotated[int, QueryParameter(ge=1, le=100, description="At most this many jobs.")]
EventLimit = Annotated[int, QueryParameter(ge=1, le=1000, description="At most this many events.")]
CheckpointLimit = Annotated[int, QueryParameter(ge=1, le=100, description="At most this many checkpoints.")]
Retries = Annotated[
    str | None,
    HeaderParameter(name="X-Stainless-Retry-Count", max_length=20, description="How often it was sent before."),
]


@post("/fine_tuning/jobs", opt=WRITES, tags=["OpenAI"], status_code=200)
async def create_job(request: HttpRequest, data: JSONBody[JobRequest], retries: Retries = None) -> Job:
    """Start fine-tuning a model on a file. Its files are validated first, then it waits for a slot.

    The same request again within ten seconds is the same job, unless that is over. With `X-Stainless-Retry-Count`, which
    says that it was sent before, it is for 15 minutes, and one that is over for two. Keys of this service may be given as well: `recipe`,
    `train_config`, `hyperparams`, `experiment_id`, `notes`, `priority`.
    """
    services = services_of(request)
    call = call_of(request, job_request.key_of(data), scope=_SCOPE, body=data)
    is_again = retries is not None and retries.isdecimal() and int(retries) > 0

    async def make() -> Run:
        return await services.runs.creator.create(await _run_request(services, data, call))

    def counts(made: str) -> bool:
        run = services.runs.book.get(made)
        age = utc_now() - run.created_at
        return job_repeats.is_meant(is_over=run.state.final, age=age, is_sent_again=is_again)

    run, _ = await services.idempotent_calls.once(call, make, services.runs.book.get, counts)
    return await job_of(services, run)


async def _run_request(services: Services, data: JobRequest, call: Any) -> RunRequest:
    _refuse_unknown_files(services, data)
    if data.experiment_id is not None:
        services.experiments.get(data.experiment_id)
    recipe = await anyio.to_thread.run_sync(job_request.recipe_for, data, services.recipes)
    seed = data.seed if data.seed is not None else random.getrandbits(31)
    validation = upload_id(data.validation_file) if data.validation_file else None
    return RunRequest(
        recipe=recipe.name if recipe is not None else None,
        experiment_id=data.experiment_id,
        model=data.model,
        dataset=DatasetReference(name=upload_id(data.training_file)),
        validation_path=str(services.uploads.path(validation)) if validation is not None else None,
        hyperparams=job_request.hyperparams_of(data, recipe),
        train_config=data.train_config,
        notes=data.notes,
        priority=data.priority,
        seed=seed % 2**32,
        labels=job_request.labels_of(data, seed),
        validates=True,
        idempotency=call,
    )


def _refuse_unknown_files(services: Services, data: JobRequest) -> None:
    for param in ("training_file", "validation_file"):
        name = getattr(data, param)
        if name and upload_id(name) not in services.uploads:
            raise OpenAIError(
                400,
                f"there is no file {name[:100]!r} (GET /v1/files lists them)",
                param=param,
                code=f"invalid_{param}",
            )


@get("/fine_tuning/jobs", opt=READS, tags=["OpenAI"])
async def list_jobs(request: HttpRequest, after: After = None, limit: JobLimit = 20) -> JobPage:
    """Every training, also of other doors. `metadata[KEY]=VALUE` leaves those that have it; `metadata=null` those without."""
    services = services_of(request)
    book = services.runs.book
    wanted = _pairs_in(request)
    before = _last_of_page(services, after) if after is not None else None
    found = book.ids_before(before, lambda one: one.kind is RunKind.TRAIN and _has_pairs(one, wanted))
    ids, has_more = await anyio.to_thread.run_sync(first_of, found, limit)
    return JobPage(data=[await job_of(services, book.get(one)) for one in ids], has_more=has_more)


def _last_of_page(services: Services, after: str) -> str:
    try:
        return _run(services, after).id
    except NotFound:
        raise InvalidInput(
            "is no fine-tuning job", where="after", mend="give the id of the last job of the page before"
        ) from None


def _pairs_in(request: HttpRequest) -> frozenset[str] | None:
    """Digests of the pairs of metadata that are asked for; None: jobs that have none."""
    given = parse_qsl(request.scope["query_string"].decode("latin-1"), keep_blank_values=True)
    if ("metadata", "null") in given:
        return None
    pairs = ((name[9:-1], value) for name, value in given if name.startswith("metadata[") and name.endswith("]"))
    return frozenset(labels.digest_of(*pair) for pair in pairs)


def _has_pairs(summary: RunSummary, wanted: frozenset[str] | None) -> bool:
    kept = summary.labels.openai_pairs
    return kept is None if wanted is None else wanted <= frozenset((kept or "").split())


@get("/fine_tuning/jobs/{job_id:str}", opt=READS, tags=["OpenAI"])
async def show_job(request: HttpRequest, job_id: FromPath[str]) -> Job:
    """One job."""
    services = services_of(request)
    return await job_of(services, _run(services, job_id))


@post("/fine_tuning/jobs/{job_id:str}/cancel", opt=WRITES, tags=["OpenAI"], status_code=200)
async def cancel_job(request: HttpRequest, job_id: FromPath[str]) -> Job:
    """Stop a job for good; answers when it has ended. Repeating it gives the same answer."""
    services = services_of(request)
    return await job_of(services, await services.runs.stopper.cancel(_run(services, job_id).id))


@post("/fine_tuning/jobs/{job_id:str}/pause", opt=WRITES, tags=["OpenAI"], status_code=200)
async def pause_job(request: HttpRequest, job_id: FromPath[str]) -> Job:
    """Stop a running job with a checkpoint, so that it can be resumed; answers when its process has ended."""
    services = services_of(request)
    return await job_of(services, await services.runs.stopper.pause(_run(services, job_id).id))


@post("/fine_tuning/jobs/{job_id:str}/resume", opt=WRITES, tags=["OpenAI"], status_code=200)
async def resume_job(request: HttpRequest, job_id: FromPath[str]) -> Job:
    """Queue a paused job again: it goes on from where it was, exactly."""
    services = services_of(request)
    return await job_of(services, await services.runs.resumer.requeue(_run(services, job_id).id))


@get("/fine_tuning/jobs/{job_id:str}/events", opt=READS, tags=["OpenAI"])
async def list_job_events(
    request: HttpRequest, job_id: FromPath[str], after: After = None, limit: EventLimit = 20
) -> JobEventPage:
    """What happened to a job, what it measured and its warnings, newest first."""
    services = services_of(request)
    run = _run(services, job_id)
    changes = [(entry.at, then) for entry, then in services.runs.book.history(run.id)]
    metrics, told = services.paths.run(run.id).metrics, services.runs.live.progress(run).told_warnings
    events, has_more = await anyio.to_thread.run_sync(
        lambda: first_of(newest_events(run, changes, told, metrics, after=after), limit)
    )
    return JobEventPage(data=[event_of(one) for one in events], has_more=has_more)


@get("/fine_tuning/jobs/{job_id:str}/checkpoints", opt=READS, tags=["OpenAI"])
async def list_job_checkpoints(
    request: HttpRequest, job_id: FromPath[str], after: After = None, limit: CheckpointLimit = 10
) -> JobCheckpointPage:
    """The checkpoints of a job that are there, newest first. Each is a model that can be asked."""
    services = services_of(request)
    run = _run(services, job_id)
    found = services.checkpoints.present_of(run.id)[::-1]
    if after is not None:
        found = _older_than(services, run, after, found)
    page, has_more = first_of(found, limit)
    metrics, steps = services.paths.run(run.id).metrics, {one.step for one in page}
    measured = await anyio.to_thread.run_sync(measured_at, metrics, steps)
    data = [checkpoint_of(run, one, measured.get(one.step, {})) for one in page]
    first, last = (data[0].id, data[-1].id) if data else (None, None)
    return JobCheckpointPage(data=data, first_id=first, last_id=last, has_more=has_more)


def _older_than(services: Services, run: Run, after: str, found: list[Checkpoint]) -> list[Checkpoint]:
    """The checkpoints behind one of the job, which may have been removed meanwhile. Raises InvalidInput."""
    own_id = checkpoint_record_id(after)
    last = services.checkpoints.known(own_id)
    if last is None or last.run_id != run.id:
        raise InvalidInput("is no checkpoint of this job", where="after", mend="give `last_id` of the page before")
    return [one for one in found if (one.step, one.created_at) < (last.step, last.created_at)]


def _run(services: Services, name: str) -> Run:
    """Raises NotFound."""
    own_id = run_id(name)
    run = services.runs.book.get(own_id) if own_id in services.runs.book else None
    if run is None or run.kind is not RunKind.TRAIN:
        raise NotFound(
            f"there is no fine-tuning job {name[:100]!r}",
            where="fine_tuning_job_id",
            mend="GET /v1/fine_tuning/jobs lists them",
        )
    return run


HANDLERS: list[Any] = [
    create_job,
    list_jobs,
    show_job,
    cancel_job,
    pause_job,
    resume_job,
    list_job_events,
    list_job_checkpoints,
]
