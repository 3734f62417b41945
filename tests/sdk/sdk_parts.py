"""What all journeys share: their arguments, steps that say what went wrong, and orders to ask about.

Imports only `openai` and the standard library: the scripts in here run under interpreters that have nothing else. Sends no request.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import logging
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai

LONGEST_ANSWER = 96
"""Tokens; the longest answer to an order has some sixty."""

WAITS = ("validating_files", "queued", "running", "paused")
"""States that a job leaves again."""


def arguments(about: str | None) -> argparse.Namespace:
    """The command line of every journey, the same in Python and Node."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--train", type=Path, required=True, help="rows to train on, JSON Lines with `messages`")
    parser.add_argument("--validation", type=Path, required=True, help="rows that are scored, and never trained on")
    parser.add_argument(
        "--held-out", type=Path, required=True, help="rows to ask about; the last message is the right answer"
    )
    parser.add_argument("--rows", type=int, default=60, help="how many held-out rows to ask about")
    parser.add_argument("--model", default="gpt-4o-mini-2024-07-18", help="what jobs name as their model")
    parser.add_argument(
        "--base", default="HuggingFaceTB/SmolLM2-135M-Instruct", help="a base model whose id has a slash"
    )
    parser.add_argument("--suffix", default="orders")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--epochs", default="auto", help="n_epochs")
    parser.add_argument("--batch-size", default="auto")
    parser.add_argument("--learning-rate-multiplier", default="auto")
    parser.add_argument(
        "--bar", type=float, default=0.0, help="the least share of held-out answers that are exactly right"
    )
    parser.add_argument("--deadline", type=float, default=900.0, help="seconds that a training may take")
    return parser.parse_args()


def address() -> dict[str, Any]:
    """Where the clients call, and with which key: the only thing that is not as with OpenAI itself."""
    return {"base_url": os.environ["OPENAI_BASE_URL"], "api_key": os.environ["OPENAI_API_KEY"]}


def method(asked: argparse.Namespace) -> dict[str, Any]:
    """The `method` of a job: each number is "auto" unless the command line has one."""
    numbers = {
        "n_epochs": asked.epochs,
        "batch_size": asked.batch_size,
        "learning_rate_multiplier": asked.learning_rate_multiplier,
    }
    spoken = {name: text if text == "auto" else json.loads(text) for name, text in numbers.items()}
    return {"type": "supervised", "supervised": {"hyperparameters": spoken}}


class Steps:
    """Prints one line for each step, and for the step that fails, everything that the server said."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._retries = Retries()

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[dict[str, Any]]:
        """What is put into the dictionary appears on the step's line."""
        began = time.monotonic()
        seen: dict[str, Any] = {}
        try:
            yield seen
        except Exception as error:
            say(f"FAIL {name}: {described(error)}")
            raise
        self.seconds[name] = round(time.monotonic() - began, 2)
        say(f"ok   {name}  {self.seconds[name]} s", *(f"{key}={value}" for key, value in seen.items()))

    def outcome(self, **facts: Any) -> None:
        """The last line: what was measured, as JSON. Fails if the SDK had to try anything again, which nobody would see otherwise."""
        say(json.dumps({"sdk": openai.__version__, **facts, "seconds": self.seconds}))
        expect(
            not self._retries.reasons,
            "no answer made the SDK try again (408, 409, 429, 5xx)",
            reasons=self._retries.reasons,
        )


class Retries(logging.Handler):
    """Reads in the SDK's own log what was tried again, and after which answer."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.reasons: list[str] = []
        self._last = "nothing"
        log = logging.getLogger("openai")
        log.setLevel(logging.DEBUG)
        log.propagate = False
        log.addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if text.startswith(("HTTP Response", "Encountered")):
            self._last = text[:200]
        elif text.startswith("Retrying request"):
            self.reasons.append(f"{text}, after {self._last}")
            say(f"!!   {self.reasons[-1]}")


def say(*words: str) -> None:
    sys.stdout.write("  ".join(words) + "\n")
    sys.stdout.flush()


def expect(kept: object, promise: str, **seen: Any) -> None:
    """Fails with the promise in words, and with what was seen instead."""
    if not kept:
        raise AssertionError(
            "\n     ".join([f"not so: {promise}", *(f"{key} = {value!r}" for key, value in seen.items())])
        )


def every(items: Iterable[Any], most: int = 5000) -> list[Any]:
    """All items of a list, through all its pages; a list that does not end is a failure, and not a wait."""
    found = list(itertools.islice(items, most))
    expect(len(found) < most, f"the list ends before {most} items", first=found[0:1], last=found[-1:])
    return found


def described(error: BaseException) -> str:
    """An error on a few lines; one of an answer with its request, status, id and body."""
    words = f"{type(error).__name__}: {error}"
    if isinstance(error, openai.APIStatusError):
        answer = error.response
        return (
            f"{words}\n     {answer.request.method} {answer.request.url} -> {answer.status_code}, "
            f"x-request-id {error.request_id}\n     {answer.text[:2000]}"
        )
    if isinstance(error, openai.APIConnectionError):
        return f"{words}\n     {error.request.method} {error.request.url}: {error.__cause__!r}"
    return words


@dataclass(frozen=True, kw_only=True)
class Order:
    """A prompt, and the one right answer."""

    messages: list[dict[str, str]]
    answer: str


def orders(path: Path, count: int) -> list[Order]:
    rows = [json.loads(line)["messages"] for line in path.read_text(encoding="utf-8").splitlines()[:count]]
    return [Order(messages=row[:-1], answer=row[-1]["content"]) for row in rows]


def request(model: str, order: Order) -> dict[str, Any]:
    """The arguments of the chat completion that answers an order, and the body of a batch's line."""
    return {"model": model, "messages": order.messages, "max_tokens": LONGEST_ANSWER, "temperature": 0}


def batch_lines(model: str, asked: Sequence[Order]) -> bytes:
    """The input file of a batch."""
    lines = [
        {"custom_id": f"order-{number}", "method": "POST", "url": "/v1/chat/completions", "body": request(model, order)}
        for number, order in enumerate(asked)
    ]
    return "".join(json.dumps(line) + "\n" for line in lines).encode()


def exact_match(answers: Sequence[str | None], asked: Sequence[Order]) -> float:
    """The share of answers that are right to the letter, spaces around them aside."""
    right = sum((answer or "").strip() == order.answer.strip() for answer, order in zip(answers, asked, strict=True))
    return round(right / len(asked), 4)
