"""Requests of fine-tuning jobs as the SDKs send them, and waiting for what becomes of them."""

from __future__ import annotations

import itertools
import json
from typing import Any

import httpx

from support.server import polled

JOBS = "/v1/fine_tuning/jobs"
MODEL = "gpt-4o-mini-2024-07-18"
ENDED = ("succeeded", "failed", "cancelled")
_numbers = itertools.count()


def rows(count: int) -> bytes:
    """Chat rows; no two files of a test run are the same."""
    number = next(_numbers)
    lines = (
        {
            "messages": [
                {"role": "system", "content": "Marv is a factual chatbot that is also sarcastic."},
                {"role": "user", "content": f"What's the capital of number {number}.{row}?"},
                {"role": "assistant", "content": f"City {row}, as if everyone doesn't know that already."},
            ]
        }
        for row in range(count)
    )
    return "".join(json.dumps(line) + "\n" for line in lines).encode()


def uploaded(client: httpx.Client, content: bytes, *, name: str = "mydata.jsonl", purpose: str = "fine-tune") -> str:
    """The id of a file, sent as the SDK for Python does."""
    answer = client.post("/v1/files", data={"purpose": purpose}, files={"file": (name, content)})
    assert answer.status_code == 200, answer.text
    found: str = answer.json()["id"]
    return found


def file_once_checked(client: httpx.Client, file_id: str) -> dict[str, Any]:
    for file in polled(lambda: client.get(f"/v1/files/{file_id}").json(), 60):
        if file["status"] != "uploaded":
            return file
    raise AssertionError(f"nobody has looked at {file_id}")


def created(client: httpx.Client, **fields: Any) -> dict[str, Any]:
    answer = client.post(JOBS, json={"model": MODEL, **fields})
    assert answer.status_code == 200, answer.text
    job: dict[str, Any] = answer.json()
    return job


def shown(client: httpx.Client, job_id: str) -> dict[str, Any]:
    job: dict[str, Any] = client.get(f"{JOBS}/{job_id}").raise_for_status().json()
    return job


def once(client: httpx.Client, job_id: str, *statuses: str, seconds: float = 120.0) -> dict[str, Any]:
    """The job once it is in one of these states."""
    for job in polled(lambda: shown(client, job_id), seconds):
        if job["status"] in statuses:
            return job
        assert job["status"] not in ENDED, job
    raise AssertionError(f"after {seconds} s the job is still {job}")


def refusal(answer: httpx.Response, status: int = 400) -> dict[str, Any]:
    """The error of an answer, whose form is as the SDKs read it."""
    assert answer.status_code == status, answer.text
    assert answer.headers["x-request-id"].startswith("req_")
    error: dict[str, Any] = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error
