"""What the behaviours are checked with: a client that counts its requests, the bare wire, and one small finished job.

The wire is `http.client`: major 3 of the SDK no longer brings httpx, and what is on the wire should be read without the SDK anyway.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import re
import time
import urllib.parse
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import openai
from openai import DefaultHttpxClient, OpenAI
from sdk_parts import WAITS, address, described, expect

POLL_SECONDS = 0.3
_ANSWER_SECONDS = 120.0
ERROR_FIELDS = {"message", "type", "param", "code"}


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One answer as it came over the wire."""

    request: str
    status: int
    headers: Mapping[str, str]
    text: str

    @property
    def json(self) -> Any:
        try:
            return json.loads(self.text)
        except ValueError as error:
            raise AssertionError(
                f"{self.request} -> {self.status}, whose body is not JSON: {self.text[:500]!r}"
            ) from error


class Wire:
    """Requests without the SDK, to addresses relative to the base URL."""

    def __init__(self, base_url: str, api_key: str) -> None:
        self._base = urllib.parse.urlsplit(base_url)
        self._key = api_key

    def send(
        self, verb: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None, key: str | None = ""
    ) -> Answer:
        """One request and the whole of its answer. ``body`` is JSON unless it is bytes; ``key`` None sends none at all."""
        bearer = {} if key is None else {"Authorization": f"Bearer {key or self._key}"}
        content = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        kind = {} if body is None else {"Content-Type": "application/json"}
        connection = http.client.HTTPConnection(self._base.hostname or "", self._base.port, timeout=_ANSWER_SECONDS)
        with contextlib.closing(connection):
            connection.request(verb, self._base.path.rstrip("/") + path, content, {**bearer, **kind, **(headers or {})})
            came = connection.getresponse()
            lowered = {name.lower(): value for name, value in came.getheaders()}
            text = came.read().decode()
        return Answer(request=f"{verb} {path}", status=came.status, headers=lowered, text=text)


@dataclass(frozen=True, kw_only=True)
class Scene:
    """What every check is given."""

    client: OpenAI
    wire: Wire
    asked: argparse.Namespace
    sent: list[str] = field(default_factory=list)
    """Each request that the client has sent, retries too."""
    job: Any
    """A job that has succeeded."""
    rows: list[str]
    """Some lines of the training file."""

    @property
    def training_file(self) -> str:
        return self.job.training_file


@contextlib.contextmanager
def opened(asked: argparse.Namespace) -> Iterator[Scene]:
    """The scene, once its job has succeeded."""
    sent: list[str] = []
    hooks = {"request": [lambda request: sent.append(f"{request.method} {request.url.path}")]}
    with OpenAI(**address(), http_client=DefaultHttpxClient(event_hooks=hooks)) as client:
        rows = asked.train.read_text(encoding="utf-8").splitlines(keepends=True)[:16]
        job = trained(client, asked, "".join(rows).encode())
        yield Scene(client=client, wire=Wire(**address()), asked=asked, sent=sent, job=job, rows=rows)


def trained(client: OpenAI, asked: argparse.Namespace, rows: bytes) -> Any:
    """A small job of two epochs, which has succeeded."""
    file = client.files.create(file=("behaviours.jsonl", rows), purpose="fine-tune")
    job = client.fine_tuning.jobs.create(
        model=asked.model,
        training_file=file.id,
        suffix="behaviours",
        seed=asked.seed,
        metadata={"run": uuid.uuid4().hex},  # another job than that of the run before
        method={"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 2, "batch_size": 4}}},
    )
    job = finished(client, job.id, asked.deadline)
    said = [event.message for event in client.fine_tuning.jobs.list_events(job.id, limit=20).data]
    expect(job.status == "succeeded", "the small job succeeds", job=job.to_dict(), events=said)
    return job


def finished(client: OpenAI, job_id: str, seconds: float) -> Any:
    """The job, once it is over."""
    deadline = time.monotonic() + seconds
    while (job := client.fine_tuning.jobs.retrieve(job_id)).status in WAITS:
        expect(time.monotonic() < deadline, f"the job ends within {seconds} s", job=job.to_dict())
        time.sleep(POLL_SECONDS)
    return job


def cancelled(client: OpenAI, job_id: str) -> None:
    """Takes a job that only served to be looked at off the queue."""
    client.fine_tuning.jobs.cancel(job_id)
    job = finished(client, job_id, 90)
    expect(job.status == "cancelled", "a cancelled job says so", job=job.to_dict())


def refused(
    call: Callable[[], Any], kind: type[openai.APIStatusError] | tuple[type[openai.APIStatusError], ...]
) -> Any:
    """The error of a call that is refused, which is in full form."""
    try:
        came = call()
    except openai.APIStatusError as error:
        expect(isinstance(error, kind), f"it is refused with {kind}", error=described(error))
        expect(error.request_id, "a refusal has a request id", error=described(error))
        expect(
            isinstance(error.body, dict) and set(error.body) >= ERROR_FIELDS,
            "its body is {error: {...}}",
            body=error.body,
        )
        expect(error.message and error.type, "it has a message and a type", error=described(error))
        return error
    raise AssertionError(f"not so: it is refused with {kind}; came = {came!r}")


def in_error_form(answer: Answer, *statuses: int) -> dict[str, Any]:
    """The error inside of an answer on the wire, which has one of these statuses."""
    seen = {
        "request": answer.request,
        "status": answer.status,
        "body": answer.text[:800],
        "headers": dict(answer.headers),
    }
    expect(answer.status in statuses, f"the status is one of {statuses}", **seen)
    expect(answer.headers.get("x-request-id"), "it has an x-request-id", **seen)
    expect(answer.headers.get("content-type", "").startswith("application/json"), "it is application/json", **seen)
    error = answer.json.get("error")
    expect(
        isinstance(error, dict) and set(error) >= ERROR_FIELDS, f"its body is error with {sorted(ERROR_FIELDS)}", **seen
    )
    expect(isinstance(error["message"], str) and error["message"], "the message is a text", **seen)
    expect(isinstance(error["type"], str) and error["type"], "the type is a text", **seen)
    expect(
        all(error[name] is None or isinstance(error[name], str) for name in ("param", "code")),
        "param and code are texts",
        **seen,
    )
    return error


def names_line(text: str, number: int) -> bool:
    """Whether a message names this line."""
    return re.search(rf"\b{number}\b", text) is not None
