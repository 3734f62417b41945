"""What a client relies on in each object that the server answers with. Knows objects only: nothing here sends a request.

The SDKs build their objects without checking them, so a missing field shows up far from where it went missing. Here each object is
held to the SDK's own types first, strictly, and then to what the types cannot say.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from typing import Any

from openai import BaseModel
from sdk_parts import Order, exact_match, expect


def conforms(answer: BaseModel, **instead: Any) -> dict[str, Any]:
    """The object as it came, which has every field of the SDK's type, with the right type.

    Args:
        answer: What a call returned.
        **instead: Values to check in place of those that came, where the SDK's types are behind the service.

    Raises:
        AssertionError: with each field that is missing or of another type.
    """
    came = json.loads(answer.to_json(warnings=False))
    try:
        type(answer).model_validate_json(json.dumps({**came, **instead}), strict=True)
    except ValueError as error:
        raise AssertionError(f"not as {type(answer).__name__} of this SDK says: {error}\n     came = {came}") from error
    return came


def a_file(file: Any, purpose: str, name: str | None = None, size: int | None = None) -> None:
    came = conforms(file)
    expect(file.id.startswith("file-"), "a file's id begins with file-", came=came)
    expect(file.purpose == purpose, f"the file's purpose is {purpose}", came=came)
    expect(name in (None, file.filename), f"the file is called {name}", came=came)
    expect(size in (None, file.bytes), f"the file has {size} bytes", came=came)


def a_job(job: Any, **asked: Any) -> None:
    """A job in any state; each of ``asked`` is a field that comes back as it was sent."""
    came = conforms(job, **({"status": "running"} if job.status == "paused" else {}))
    expect(job.id.startswith("ftjob-"), "a job's id begins with ftjob-", came=came)
    for name, value in asked.items():
        expect(getattr(job, name) == value, f"the job's {name} is {value!r}", came=came)


def a_finished_job(job: Any, suffix: str) -> None:
    a_job(job)
    came = job.to_dict()
    expect(job.error is None or not job.error.message, "a job that succeeded has no error", came=came)
    expect(
        job.finished_at is not None and job.finished_at >= job.created_at,
        "finished_at is a time after created_at",
        came=came,
    )
    expect((job.trained_tokens or 0) > 0, "trained_tokens are counted", came=came)
    expect((job.fine_tuned_model or "").startswith("ft:"), "the model's name begins with ft:", came=came)
    expect(f":{suffix}:" in job.fine_tuned_model, "the suffix is part of the model's name", came=came)
    expect(len(job.result_files) >= 1, "there is a file with results", came=came)
    expect(
        job.method is not None and job.method.supervised is not None, "the method says how it was trained", came=came
    )
    numbers = job.method.supervised.hyperparameters
    for name in ("n_epochs", "batch_size", "learning_rate_multiplier"):
        for values in (numbers, job.hyperparameters):
            value = getattr(values, name, None)
            expect(isinstance(value, int | float), f"{name} is resolved to a number", value=value, came=came)


def some_events(events: Sequence[Any], *, newest_first: bool) -> None:
    """Events of one job that was trained: in order, each once, with metrics among them."""
    for event in events:
        came = conforms(event)
        expect(event.message, "an event says something", came=came)
    ids = [event.id for event in events]
    expect(len(ids) == len(set(ids)), "each event comes once", ids=ids)
    times = [event.created_at for event in events]
    expect(
        times == sorted(times, reverse=newest_first), f"events are in order (newest first: {newest_first})", times=times
    )
    metrics = [event for event in events if event.type == "metrics"]
    expect(metrics, "there are events of type metrics", types=[event.type for event in events])
    for event in metrics:
        data = event.data or {}
        expect(isinstance(data.get("step"), int), "metrics have a step", came=event.to_dict())
    expect(
        any(isinstance((event.data or {}).get("train_loss"), int | float) for event in metrics),
        "metrics have a train_loss",
        data=[event.data for event in metrics][:5],
    )


def some_checkpoints(checkpoints: Sequence[Any], job_id: str) -> None:
    """At least one checkpoint of this job, each with a model that can be asked."""
    expect(checkpoints, "a finished job has a checkpoint", job=job_id)
    for checkpoint in checkpoints:
        came = conforms(checkpoint)
        expect(checkpoint.fine_tuning_job_id == job_id, f"the checkpoint belongs to {job_id}", came=came)
        expect(checkpoint.step_number > 0, "step_number counts from 1", came=came)
        expect(checkpoint.metrics.step == checkpoint.step_number, "its metrics are those of its step", came=came)
        expect(
            f":ckpt-step-{checkpoint.step_number}" in checkpoint.fine_tuned_model_checkpoint,
            "the model of a checkpoint names its step: ft:base:org:suffix:id:ckpt-step-N",
            came=came,
        )


def results(text: str) -> list[dict[str, str]]:
    """The rows of a file of results: CSV, steps going up, a loss in each that was trained."""
    rows = list(csv.DictReader(io.StringIO(text)))
    expect(rows, "the file of results has rows below its header", text=text[:500])
    expect({"step", "train_loss"} <= set(rows[0]), "it has the columns step and train_loss", columns=list(rows[0]))
    expect(
        any("valid" in name for name in rows[0]),
        "a job with a validation file has its scores, too",
        columns=list(rows[0]),
    )
    steps = [int(row["step"]) for row in rows]
    expect(steps == sorted(set(steps)), "steps go up, each once", steps=steps)
    losses = [float(row["train_loss"]) for row in rows if row["train_loss"]]
    expect(losses, "there are values of train_loss", text=text[:500])
    return rows


def a_model(model: Any, name: str) -> None:
    came = conforms(model)
    expect(model.id == name, f"the model is called {name}", came=came)


def a_completion(completion: Any, model: str) -> str:
    """Its text."""
    came = conforms(completion)
    expect(completion.model == model, f"the answer names its model, {model}", came=came)
    expect(completion.id, "an answer has an id", came=came)
    expect(completion._request_id, "an answer has an x-request-id", came=came)
    expect(completion.choices, "an answer has a choice", came=came)
    choice = completion.choices[0]
    expect(choice.message.role == "assistant", "the assistant answers", came=came)
    expect(choice.finish_reason in ("stop", "length", "tool_calls"), "it says why it ended", came=came)
    usage = completion.usage
    expect(usage is not None, "an answer counts its tokens", came=came)
    expect(
        usage.prompt_tokens > 0 and usage.completion_tokens > 0,
        "tokens of the prompt and of the answer are counted",
        came=came,
    )
    expect(usage.total_tokens == usage.prompt_tokens + usage.completion_tokens, "total_tokens is their sum", came=came)
    return choice.message.content or ""


def a_stream(chunks: Sequence[Any], model: str) -> str:
    """The text of a whole stream that was asked for with include_usage."""
    expect(len(chunks) >= 3, "a stream has chunks of text, of the end and of usage", chunks=len(chunks))
    for chunk in chunks:
        came = conforms(chunk)
        expect(chunk.id == chunks[0].id, "all chunks have one id", came=came, first=chunks[0].id)
        expect(chunk.model == model, f"each chunk names its model, {model}", came=came)
    *parts, last = chunks
    expect(last.choices == [], "the last chunk has no choices", came=last.to_dict())
    expect(
        last.usage is not None and last.usage.completion_tokens > 0, "the last chunk has the usage", came=last.to_dict()
    )
    expect(
        all(part.usage is None for part in parts),
        "only the last chunk has it",
        came=[part.to_dict() for part in parts][:3],
    )
    spoken = [choice for part in parts for choice in part.choices]
    expect(spoken, "chunks have choices", came=[part.to_dict() for part in parts][:3])
    expect(spoken[0].delta.role == "assistant", "the first chunk says who speaks", came=parts[0].to_dict())
    reasons = [choice.finish_reason for choice in spoken if choice.finish_reason]
    expect(
        len(reasons) == 1 and spoken[-1].finish_reason, "the reason for the end comes once, at the end", reasons=reasons
    )
    return "".join(choice.delta.content or "" for choice in spoken)


def a_completed_batch(batch: Any, total: int) -> None:
    came = conforms(batch)
    expect(batch.status == "completed", "the batch is completed", came=came)
    counts = batch.request_counts
    expect(counts is not None, "a batch counts its requests", came=came)
    expect(
        (counts.total, counts.completed, counts.failed) == (total, total, 0),
        f"all {total} requests were answered",
        came=came,
    )
    expect(batch.output_file_id, "a completed batch has a file with answers", came=came)
    expect(
        batch.completed_at is not None and batch.in_progress_at is not None, "a batch says when it went on", came=came
    )


def batch_answers(text: str, asked: Sequence[Order]) -> float:
    """The share of right answers in a batch's output, which has one line for each request."""
    lines = [json.loads(line) for line in text.splitlines()]
    found = {line["custom_id"]: line for line in lines}
    wanted = [f"order-{number}" for number in range(len(asked))]
    expect(
        sorted(found) == sorted(wanted) and len(lines) == len(wanted), "each custom_id comes once", ids=sorted(found)
    )
    for line in lines:
        expect(line.get("id") and line.get("error") is None, "a line has an id and no error", line=line)
        expect(line["response"]["status_code"] == 200, "each request was answered with 200", line=line)
        expect(line["response"].get("request_id"), "each answer has a request_id", line=line)
    said = [found[name]["response"]["body"]["choices"][0]["message"]["content"] for name in wanted]
    return exact_match(said, asked)
