"""Asks a model the held-out questions, several at once, and keeps each answer on disk as it comes: it may have cost money.

An answer that is there already, to the same request, is not asked for again.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from tunesmith.errors import NotFound, TunesmithError, Unauthenticated, Unavailable
from tunesmith.from_openai.sdk import explained

_MOST_FAILURES = 10
"""One after the other: then nobody is asked any more."""


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked of one row."""

    where: str
    messages: list[dict[str, Any]]
    tools: list[Any] = []


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a model's answers."""

    where: str
    request_sha256: str
    """Of all that was asked."""
    model: str
    answer: str | None
    finish_reason: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    error: str | None = None


_decode_question = msgspec.json.Decoder(Question).decode
_decode_answer = msgspec.json.Decoder(Answer).decode


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it."""

    answers: list[Answer]
    """Of the rows that were answered, in their order."""
    refusal: str | None = None
    """Why the model does not answer at all, or stopped to."""


class Asker:
    """Asks one model of one service."""

    def __init__(self, sdk: Any, client: Any, service: str, model: str, max_tokens: int) -> None:
        self._sdk = sdk
        self._client = client
        self._service = service
        self._model = model
        self._max_tokens = max_tokens
        self._lock = threading.Lock()
        self._failures = 0
        self._refusal: str | None = None

    def ask(self, questions: Sequence[Question], path: Path, at_once: int, progress: Callable[[int], None]) -> Asked:
        """Ask all of them; ``path`` keeps the answers. The first goes alone: a model that is not there is asked once."""
        requests = [self._request(one) for one in questions]
        keys = [hashlib.sha256(msgspec.json.encode(one, order="sorted")).hexdigest() for one in requests]
        found = {one.request_sha256: one for one in read_answers(path) if one.answer is not None}
        waiting = [place for place, key in enumerate(keys) if key not in found]
        progress(len(questions) - len(waiting))
        with path.open("ab") as file:

            def one(place: int) -> None:
                if self._refusal is None:
                    answer = self._answer(questions[place].where, keys[place], requests[place])
                    with self._lock:
                        found[keys[place]] = answer
                        _append(file, answer)
                        progress(1)

            for place in waiting[:1]:
                one(place)
            self._all(one, waiting[1:], at_once)
        answers = [
            msgspec.structs.replace(found[key], where=question.where)
            for key, question in zip(keys, questions, strict=True)
            if key in found
        ]
        if self._refusal is None and answers and all(one.answer is None for one in answers):
            self._refusal = answers[-1].error
        return Asked(answers=answers, refusal=self._refusal)

    def _all(self, one: Callable[[int], None], places: Sequence[int], at_once: int) -> None:
        with ThreadPoolExecutor(at_once) as pool:
            try:
                for future in [pool.submit(one, place) for place in places]:
                    future.result()
            except BaseException:
                self._refusal = self._refusal or "interrupted"
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _request(self, question: Question) -> dict[str, Any]:
        request: dict[str, Any] = {"model": self._model, "messages": question.messages, "temperature": 0}
        request["max_completion_tokens"] = self._max_tokens
        return {**request, "tools": question.tools} if question.tools else request

    def _answer(self, where: str, key: str, request: dict[str, Any]) -> Answer:
        failed = Answer(where=where, request_sha256=key, model=self._model, answer=None)
        try:
            with explained(self._sdk, self._service):
                completion = self._client.chat.completions.create(**request)
        except (NotFound, Unauthenticated, Unavailable) as error:
            self._refusal = str(error)
            return msgspec.structs.replace(failed, error=str(error))
        except TunesmithError as error:
            self._failures += 1
            if self._failures >= _MOST_FAILURES:
                self._refusal = str(error)
            return msgspec.structs.replace(failed, error=str(error))
        self._failures = 0
        choice, usage = completion.choices[0], completion.usage
        return msgspec.structs.replace(
            failed,
            answer=choice.message.content or "",
            finish_reason=choice.finish_reason,
            prompt_tokens=usage.prompt_tokens if usage else None,
            completion_tokens=usage.completion_tokens if usage else None,
        )


def read_questions(path: Path) -> list[Question]:
    return [_decode_question(line) for line in path.read_bytes().splitlines()]


def read_answers(path: Path) -> list[Answer]:
    """Those that are whole: the last line may be torn."""
    found = []
    for line in path.read_bytes().splitlines() if path.exists() else []:
        try:
            found.append(_decode_answer(line))
        except msgspec.DecodeError:
            continue
    return found


def write_answers(path: Path, answers: Sequence[Answer]) -> None:
    """In the order of the rows, in the place of what came as it came."""
    part = path.with_name(f".{path.name}.part")
    part.write_bytes(b"".join(msgspec.json.encode(one) + b"\n" for one in answers))
    part.replace(path)


def _append(file: BinaryIO, answer: Answer) -> None:
    file.write(msgspec.json.encode(answer) + b"\n")
    file.flush()
