"""The whole journey of somebody who fine-tunes with the `openai` SDK: from files to answers of the new model, and everything deleted.

Runs unchanged under majors 1, 2 and 3 of the SDK, and knows nothing of the server but its address: OPENAI_BASE_URL and
OPENAI_API_KEY. Each step asserts what a client would rely on and prints a line; the last line is JSON with what was measured.
All methods that it calls are there in 1.109.1, 2.6.1 and 3.54.0; it takes no way around the SDK.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import relied_on
from openai import NotFoundError, OpenAI
from sdk_parts import (
    WAITS,
    Order,
    Steps,
    address,
    arguments,
    batch_lines,
    every,
    exact_match,
    expect,
    method,
    orders,
    request,
)

POLL_SECONDS = 0.3
MOST_EVENTS = 5000
ASKING = 4
"""Threads that ask at the same time."""


def main() -> None:
    asked = arguments(__doc__)
    steps = Steps()
    held_out = orders(asked.held_out, asked.rows)
    with OpenAI(**address()) as client:
        files = upload(client, asked, steps)
        job = train(client, asked, files, steps)
        checkpoint = look_at(client, asked, job, steps)
        share = ask(client, asked, job.fine_tuned_model, checkpoint, held_out, steps)
        expect(share >= asked.bar, f"at least {asked.bar:.0%} of held-out orders are exactly right", exact_match=share)
        batched = ask_in_a_batch(client, job.fine_tuned_model, held_out[:20], steps)
        cancel_another(client, asked, files, steps)
        delete(client, job.fine_tuned_model, files, held_out[0], steps)
    steps.outcome(exact_match=share, batch_exact_match=batched, rows=len(held_out), trained_tokens=job.trained_tokens)


def until(look: Callable[[], Any], over: Callable[[Any], bool], seconds: float, what: str) -> Any:
    """What ``look`` answers, once it is ``over``."""
    deadline = time.monotonic() + seconds
    while not over(found := look()):
        expect(time.monotonic() < deadline, f"{what} within {seconds} s", last=found.to_dict())
        time.sleep(POLL_SECONDS)
    return found


def upload(client: OpenAI, asked: argparse.Namespace, steps: Steps) -> tuple[str, str]:
    """The ids of the training and the validation file, both processed."""
    with steps.step("files.create") as seen:
        training, validation = (uploaded(client, path) for path in (asked.train, asked.validation))
        seen.update(training=training, validation=validation)
    with steps.step("files.wait_for_processing"):
        for file_id in (training, validation):
            file = client.files.wait_for_processing(file_id, poll_interval=POLL_SECONDS, max_wait_seconds=60)
            expect(file.status == "processed", "a file of good rows is processed", came=file.to_dict())
    with steps.step("files.list and files.content"):
        expect(
            {training, validation} <= {file.id for file in every(client.files.list(purpose="fine-tune"))},
            "the list has both",
        )
        expect(
            client.files.content(training).read() == asked.train.read_bytes(), "a file's content is what was uploaded"
        )
    return training, validation


def uploaded(client: OpenAI, path: Path) -> str:
    with path.open("rb") as opened:
        file = client.files.create(file=opened, purpose="fine-tune")
    relied_on.a_file(file, "fine-tune", path.name, path.stat().st_size)
    return file.id


def train(client: OpenAI, asked: argparse.Namespace, files: tuple[str, str], steps: Steps) -> Any:
    """The job, once it has succeeded; it was paused on its way."""
    with steps.step("jobs.create") as seen:
        job = created(client, asked, files)
        seen["job"] = job.id
    with steps.step("jobs.list_events while it trains") as seen:
        follower = Follower(client, job.id)
        follow_until_it_trains(client, job.id, follower, asked.deadline)
        seen["events"] = len(follower.events)
    with steps.step("jobs.pause"):
        pause(client, job.id)
    with steps.step("jobs.checkpoints.list of a paused job") as seen:
        early = every(client.fine_tuning.jobs.checkpoints.list(job.id))
        seen["checkpoints"] = [checkpoint.step_number for checkpoint in early]
    with steps.step("jobs.resume"):
        relied_on.a_job(client.fine_tuning.jobs.resume(job.id), id=job.id)
    with steps.step("jobs.retrieve until it succeeded") as seen:
        job = finished(client, job.id, asked.deadline)
        follower.more()
        expect(job.status == "succeeded", "the job succeeds", job=job.to_dict(), events=follower.words())
        relied_on.a_finished_job(job, asked.suffix)
        seen.update(model=job.fine_tuned_model, method=job.method.to_dict())
    with steps.step("jobs.list_events by after") as seen:
        relied_on.some_events(follower.events, newest_first=False)
        events = every(client.fine_tuning.jobs.list_events(job.id))
        relied_on.some_events(events, newest_first=True)
        expect(
            [event.id for event in events] == follower.ids()[::-1],
            "following has missed no event",
            followed=follower.words(),
        )
        older = every(client.fine_tuning.jobs.list_events(job.id, after=events[1].id, limit=3))
        expect([event.id for event in older] == [event.id for event in events[2:]], "after goes on where it was left")
        seen["events"] = len(events)
    return job


def created(client: OpenAI, asked: argparse.Namespace, files: tuple[str, str], **instead: Any) -> Any:
    """A new job, which comes back as it was asked for."""
    wanted = {
        "model": asked.model,
        "training_file": files[0],
        "validation_file": files[1],
        "seed": asked.seed,
        "metadata": {"journey": asked.suffix},
        **instead,
    }
    job = client.fine_tuning.jobs.create(**wanted, suffix=asked.suffix, method=method(asked))
    relied_on.a_job(job, **wanted)
    expect(job.status in WAITS, "a new job is not over", came=job.to_dict())
    expect(job.fine_tuned_model is None and job.finished_at is None, "a new job has no model yet", came=job.to_dict())
    expect(
        job.method is not None and job.method.type == "supervised", "the job's method is supervised", came=job.to_dict()
    )
    return job


class Follower:
    """The events of a job as they come, oldest first, each once."""

    def __init__(self, client: OpenAI, job_id: str) -> None:
        self.events: list[Any] = []
        self._client = client
        self._job_id = job_id

    def more(self) -> None:
        """Pages back from the newest to the first one that is known."""
        known = set(self.ids())
        new = []
        pages = self._client.fine_tuning.jobs.list_events(self._job_id, limit=5)
        for event in itertools.islice(pages, MOST_EVENTS):
            if event.id in known:
                break
            new.append(event)
        self.events += reversed(new)

    def ids(self) -> list[str]:
        return [event.id for event in self.events]

    def words(self) -> list[str]:
        return [event.message for event in self.events]


def follow_until_it_trains(client: OpenAI, job_id: str, follower: Follower, seconds: float) -> None:
    def trains(job: Any) -> bool:
        follower.more()
        expect(
            job.status in WAITS,
            "the job is still on when its first metrics appear (give it more rows or epochs, so that it can be paused)",
            job=job.to_dict(),
            events=follower.words(),
        )
        return job.status == "running" and any(event.type == "metrics" for event in follower.events)

    until(lambda: client.fine_tuning.jobs.retrieve(job_id), trains, seconds, "the job trains, and says its metrics")


def pause(client: OpenAI, job_id: str) -> None:
    relied_on.a_job(client.fine_tuning.jobs.pause(job_id), id=job_id)

    def still(job: Any) -> bool:
        expect(job.status in WAITS, "a job that is being paused is not over", job=job.to_dict())
        return job.status == "paused"

    job = until(lambda: client.fine_tuning.jobs.retrieve(job_id), still, 90, "the job is paused")
    relied_on.a_job(job, id=job_id)


def finished(client: OpenAI, job_id: str, seconds: float) -> Any:
    return until(
        lambda: client.fine_tuning.jobs.retrieve(job_id), lambda job: job.status not in WAITS, seconds, "the job ends"
    )


def look_at(client: OpenAI, asked: argparse.Namespace, job: Any, steps: Steps) -> str:
    """The model of the oldest checkpoint; looks at everything that a finished job leaves."""
    with steps.step("jobs.list by metadata"):
        jobs = every(client.fine_tuning.jobs.list(metadata={"journey": asked.suffix}))
        expect(
            job.id in [one.id for one in jobs],
            "the list of jobs with this metadata has it",
            ids=[one.id for one in jobs],
        )
    with steps.step("jobs.checkpoints.list") as seen:
        checkpoints = every(client.fine_tuning.jobs.checkpoints.list(job.id))
        relied_on.some_checkpoints(checkpoints, job.id)
        seen["steps"] = [checkpoint.step_number for checkpoint in checkpoints]
    with steps.step("result_files") as seen:
        relied_on.a_file(client.files.retrieve(job.result_files[0]), "fine-tune-results")
        rows = relied_on.results(client.files.content(job.result_files[0]).text)
        losses = [float(row["train_loss"]) for row in rows if row["train_loss"]]
        expect(not asked.bar or losses[-1] < losses[0], "the loss falls", losses=losses)
        seen.update(columns=",".join(rows[0]), first_loss=losses[0], last_loss=losses[-1])
    with steps.step("models.list and models.retrieve"):
        names = [model.id for model in every(client.models.list())]
        expect(job.fine_tuned_model in names, "the new model is on the list", names=names, model=job.fine_tuned_model)
        relied_on.a_model(client.models.retrieve(job.fine_tuned_model), job.fine_tuned_model)
    return min(checkpoints, key=lambda one: one.step_number).fine_tuned_model_checkpoint


def ask(
    client: OpenAI, asked: argparse.Namespace, model: str, checkpoint: str, held_out: list[Order], steps: Steps
) -> float:
    """The share of held-out orders that the model gets exactly right."""
    with steps.step("chat.completions.create") as seen:
        plain = relied_on.a_completion(client.chat.completions.create(**request(model, held_out[0])), model)
        seen["answer"] = plain
    with steps.step("chat.completions.create, streamed"):
        stream = client.chat.completions.create(
            **request(model, held_out[0]), stream=True, stream_options={"include_usage": True}
        )
        streamed = relied_on.a_stream(list(stream), model)
        same = streamed == plain or not asked.bar  # a model that was hardly trained may waver between two likely tokens
        expect(same, "the stream says what the plain answer says", plain=plain, streamed=streamed)
    with steps.step("chat.completions.create of a checkpoint") as seen:
        answer = client.chat.completions.create(**request(checkpoint, held_out[0]))
        seen.update(model=checkpoint, answer=relied_on.a_completion(answer, checkpoint))
    with (
        steps.step(f"{len(held_out)} held-out orders, {ASKING} at a time") as seen,
        ThreadPoolExecutor(ASKING) as threads,
    ):
        answers = list(threads.map(lambda order: answered(client, model, order), held_out))
        share = exact_match(answers, held_out)
        seen["exact_match"] = share
    return share


def answered(client: OpenAI, model: str, order: Order) -> str:
    return relied_on.a_completion(client.chat.completions.create(**request(model, order)), model)


def ask_in_a_batch(client: OpenAI, model: str, held_out: list[Order], steps: Steps) -> float:
    """The share of right answers of a batch."""
    with steps.step("batches.create") as seen:
        file = client.files.create(file=("orders.jsonl", batch_lines(model, held_out)), purpose="batch")
        relied_on.a_file(file, "batch", "orders.jsonl")
        batch = client.batches.create(
            input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h", metadata={"of": "orders"}
        )
        came = relied_on.conforms(batch)
        expect(
            (batch.input_file_id, batch.endpoint) == (file.id, "/v1/chat/completions"),
            "it is the batch asked for",
            came=came,
        )
        expect(batch.metadata == {"of": "orders"}, "a batch keeps its metadata", came=came)
        seen["batch"] = batch.id
    with steps.step("batches.retrieve until it is completed"):
        over = ("completed", "failed", "expired", "cancelled")
        batch = until(lambda: client.batches.retrieve(batch.id), lambda one: one.status in over, 300, "the batch ends")
        relied_on.a_completed_batch(batch, len(held_out))
        expect(
            batch.id in [one.id for one in every(client.batches.list(limit=20))],
            "the list of batches has it",
            id=batch.id,
        )
    with steps.step("the batch's answers") as seen:
        relied_on.a_file(client.files.retrieve(batch.output_file_id), "batch_output")
        share = relied_on.batch_answers(client.files.content(batch.output_file_id).text, held_out)
        seen["exact_match"] = share
    return share


def cancel_another(client: OpenAI, asked: argparse.Namespace, files: tuple[str, str], steps: Steps) -> None:
    with steps.step("jobs.cancel") as seen:
        job = created(client, asked, files, seed=asked.seed + 1)
        relied_on.a_job(client.fine_tuning.jobs.cancel(job.id), id=job.id)
        job = finished(client, job.id, 90)
        expect(job.status == "cancelled", "a cancelled job says so", came=job.to_dict())
        relied_on.a_job(job)
        expect(job.fine_tuned_model is None, "a cancelled job has no model", came=job.to_dict())
        seen["job"] = job.id


def delete(client: OpenAI, model: str, files: tuple[str, str], order: Order, steps: Steps) -> None:
    with steps.step("models.delete"):
        deleted = client.models.delete(model)
        expect((deleted.id, deleted.deleted) == (model, True), "the model is deleted", came=relied_on.conforms(deleted))
    with steps.step("files.delete"):
        for file_id in files:
            gone = client.files.delete(file_id)
            expect((gone.id, gone.deleted) == (file_id, True), "the file is deleted", came=relied_on.conforms(gone))
    with steps.step("what is deleted is not found"):
        not_found(lambda: client.models.retrieve(model), model)
        not_found(lambda: client.chat.completions.create(**request(model, order)), model)
        expect(model not in [one.id for one in client.models.list()], "a deleted model is on no list", model=model)
        for file_id in files:
            not_found(lambda file_id=file_id: client.files.retrieve(file_id), file_id)
            not_found(lambda file_id=file_id: client.files.content(file_id), file_id)


def not_found(call: Callable[[], Any], what: str) -> None:
    try:
        came = call()
    except NotFoundError as error:
        expect(error.request_id and error.body, "an error has a request id and a body", request_id=error.request_id)
        return
    raise AssertionError(f"not so: what is deleted is not found, {what}; came = {came!r}")


if __name__ == "__main__":
    main()
