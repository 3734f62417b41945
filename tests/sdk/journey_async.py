"""The journey with `AsyncOpenAI`, shorter: files at the same time, a job, answers at the same time, an asynchronous stream and pages.

Runs unchanged under majors 1, 2 and 3 of the SDK. Pausing, batches and what is deleted are left to the other journey.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import AsyncIterable, Awaitable, Callable
from pathlib import Path
from typing import Any

import relied_on
from openai import AsyncOpenAI, NotFoundError
from sdk_parts import WAITS, Order, Steps, address, arguments, exact_match, expect, method, orders, request

POLL_SECONDS = 0.3


async def main() -> None:
    asked = arguments(__doc__)
    steps = Steps()
    held_out = orders(asked.held_out, asked.rows)
    async with AsyncOpenAI(**address()) as client:
        files = await upload(client, asked, steps)
        job = await train(client, asked, files, steps)
        await look_at(client, job, steps)
        share = await ask(client, asked, job.fine_tuned_model, held_out, steps)
        expect(share >= asked.bar, f"at least {asked.bar:.0%} of held-out orders are exactly right", exact_match=share)
        await delete(client, job.fine_tuned_model, files, steps)
    steps.outcome(exact_match=share, rows=len(held_out), trained_tokens=job.trained_tokens)


async def until(look: Callable[[], Awaitable[Any]], over: Callable[[Any], bool], seconds: float, what: str) -> Any:
    """What ``look`` answers, once it is ``over``."""
    deadline = time.monotonic() + seconds
    while not over(found := await look()):
        expect(time.monotonic() < deadline, f"{what} within {seconds} s", last=found.to_dict())
        await asyncio.sleep(POLL_SECONDS)
    return found


async def upload(client: AsyncOpenAI, asked: argparse.Namespace, steps: Steps) -> list[str]:
    """The ids of the training and the validation file, both processed."""
    paths = (asked.train, asked.validation)
    with steps.step("files.create, both at once") as seen:
        files = await asyncio.gather(*(client.files.create(file=path, purpose="fine-tune") for path in paths))
        for file, path in zip(files, paths, strict=True):
            relied_on.a_file(file, "fine-tune", path.name, size_of(path))
        seen["ids"] = [file.id for file in files]
    with steps.step("files.wait_for_processing, both at once"):
        waits = (
            client.files.wait_for_processing(one.id, poll_interval=POLL_SECONDS, max_wait_seconds=60) for one in files
        )
        for file in await asyncio.gather(*waits):
            expect(file.status == "processed", "a file of good rows is processed", came=file.to_dict())
    return [file.id for file in files]


def size_of(path: Path) -> int:
    return path.stat().st_size


async def train(client: AsyncOpenAI, asked: argparse.Namespace, files: list[str], steps: Steps) -> Any:
    """The job, once it has succeeded."""
    with steps.step("jobs.create") as seen:
        job = await client.fine_tuning.jobs.create(
            model=asked.model,
            training_file=files[0],
            validation_file=files[1],
            suffix=asked.suffix,
            seed=asked.seed,
            method=method(asked),
        )
        relied_on.a_job(job, model=asked.model, training_file=files[0], validation_file=files[1], seed=asked.seed)
        seen["job"] = job.id
    with steps.step("jobs.retrieve until it succeeded") as seen:
        job = await until(
            lambda: client.fine_tuning.jobs.retrieve(job.id),
            lambda one: one.status not in WAITS,
            asked.deadline,
            "the job ends",
        )
        said = [event.message for event in await every(client.fine_tuning.jobs.list_events(job.id))]
        expect(job.status == "succeeded", "the job succeeds", job=job.to_dict(), events=said)
        relied_on.a_finished_job(job, asked.suffix)
        seen["model"] = job.fine_tuned_model
    return job


async def look_at(client: AsyncOpenAI, job: Any, steps: Steps) -> None:
    with steps.step("jobs.list_events, two a page") as seen:
        events = await every(client.fine_tuning.jobs.list_events(job.id, limit=2))
        relied_on.some_events(events, newest_first=True)
        seen["events"] = len(events)
    with steps.step("jobs.checkpoints.list, jobs.list, models.list") as seen:
        checkpoints = await every(client.fine_tuning.jobs.checkpoints.list(job.id, limit=1))
        relied_on.some_checkpoints(checkpoints, job.id)
        page = await client.fine_tuning.jobs.list(limit=1)
        expect(len(page.data) == 1, "limit 1 is one job", ids=[one.id for one in page.data])
        names = [model.id for model in await every(client.models.list())]
        expect(job.fine_tuned_model in names, "the new model is on the list", names=names, model=job.fine_tuned_model)
        seen["checkpoints"] = [one.step_number for one in checkpoints]
    with steps.step("result_files"):
        content = await client.files.content(job.result_files[0])
        relied_on.results(content.text)


async def every(items: AsyncIterable[Any], most: int = 5000) -> list[Any]:
    """All items of a list, through all its pages; a list that does not end is a failure, and not a wait."""
    found = []
    async for item in items:
        found.append(item)
        expect(len(found) < most, f"the list ends before {most} items", last=found[-2:])
    return found


async def ask(client: AsyncOpenAI, asked: argparse.Namespace, model: str, held_out: list[Order], steps: Steps) -> float:
    """The share of held-out orders that the model gets exactly right."""
    with steps.step("chat.completions.create, streamed and plain at once"):
        plain, streamed = await asyncio.gather(answered(client, model, held_out[0]), spoken(client, model, held_out[0]))
        same = streamed == plain or not asked.bar  # a model that was hardly trained may waver between two likely tokens
        expect(same, "the stream says what the plain answer says", plain=plain, streamed=streamed)
    with steps.step(f"{len(held_out)} held-out orders, all at once") as seen:
        answers = await asyncio.gather(*(answered(client, model, order) for order in held_out))
        share = exact_match(answers, held_out)
        seen["exact_match"] = share
    return share


async def answered(client: AsyncOpenAI, model: str, order: Order) -> str:
    return relied_on.a_completion(await client.chat.completions.create(**request(model, order)), model)


async def spoken(client: AsyncOpenAI, model: str, order: Order) -> str:
    stream = await client.chat.completions.create(
        **request(model, order), stream=True, stream_options={"include_usage": True}
    )
    return relied_on.a_stream([chunk async for chunk in stream], model)


async def delete(client: AsyncOpenAI, model: str, files: list[str], steps: Steps) -> None:
    with steps.step("models.delete and files.delete, all at once"):
        gone = await asyncio.gather(client.models.delete(model), *(client.files.delete(one) for one in files))
        for one in gone:
            relied_on.conforms(one)
        expect([one.id for one in gone] == [model, *files], "each answers with its id", ids=[one.id for one in gone])
        expect(all(one.deleted for one in gone), "all are deleted", came=[one.to_dict() for one in gone])
    with steps.step("what is deleted is not found"):
        calls = (client.models.retrieve(model), *(client.files.retrieve(one) for one in files))
        await asyncio.gather(*(not_found(call) for call in calls))


async def not_found(call: Awaitable[Any]) -> None:
    try:
        came = await call
    except NotFoundError:
        return
    raise AssertionError(f"not so: what is deleted is not found; came = {came!r}")


if __name__ == "__main__":
    asyncio.run(main())
