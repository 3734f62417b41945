"""A request on its way: its answers are handed to the thread that computes, and what comes back becomes text.

Everything here happens in the event loop of the HTTP server.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import msgspec

from tunesmith_workers.engine.sampling import Drawn
from tunesmith_workers.engine.scheduler import Answer, Event, Finish
from tunesmith_workers.engine.text import Detokenizer


class Failed(Exception):
    """The model raised an exception; the engine goes on."""


class Piece(msgspec.Struct, frozen=True):
    """What a token, or several, added to an answer."""

    index: int
    text: str
    drawn: tuple[Drawn, ...]
    finish: Finish | None = None


class Exchange:
    """The answers to one request."""

    def __init__(self, tokenizer: Any, stops: Sequence[str]) -> None:
        self.tokenizer, self._stops = tokenizer, tuple(stops)
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        self.answers: list[Answer] = []
        self._texts: dict[int, Detokenizer] = {}

    def expect(self, answers: Sequence[Answer]) -> None:
        """These are the answers that are coming."""
        self.answers = list(answers)
        self._texts = {id(answer): Detokenizer(self.tokenizer, self._stops) for answer in answers}

    def put(self, event: Event) -> None:
        self._events.put_nowait(event)

    def leave(self) -> None:
        """Nobody waits any more."""
        for answer in self.answers:
            answer.cancelled = True

    async def pieces(self) -> AsyncIterator[Piece]:
        """What comes, until all answers have ended.

        Raises:
            Failed: the model could not go on.
        """
        open_answers = {id(answer): number for number, answer in enumerate(self.answers)}
        while open_answers:
            event = await self._events.get()
            number = open_answers.get(id(event.answer))
            if number is None:
                continue  # a token that was computed while its answer was being ended
            piece = self._piece(number, event)
            if piece.finish is not None:
                del open_answers[id(event.answer)]
            yield piece

    def _piece(self, number: int, event: Event) -> Piece:
        if event.failure is not None or event.drawn is None:
            raise Failed(event.failure or "no token was computed")
        text = self._texts[id(event.answer)]
        ends = event.drawn.token in event.answer.ends
        new = "" if ends else text.add([event.drawn.token])
        finish = event.finish
        if text.stopped:
            finish, event.answer.cancelled = "stop", True
        elif finish is not None:
            new += text.finish()
        return Piece(number, new, (event.drawn,), finish)
