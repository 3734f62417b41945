"""Continuous batching: which sequences are computed together in the next step.

Sequences wait in the order in which they came, join at any step for which a slot is free, and leave when they end (Yu et al.,
"Orca", OSDI 2022). Prompts are computed in pieces beside the answers that are under way (arXiv:2308.16369). The beginning of a
prompt that any slot holds already is copied, not computed. Only the thread that computes calls in here.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from tunesmith_workers.engine.batch import Backend, Piece
from tunesmith_workers.engine.grammar import Grammar
from tunesmith_workers.engine.lookup import Lookup
from tunesmith_workers.engine.prefixes import Contents, common
from tunesmith_workers.engine.sampling import Chooser, Drawn, choose

Finish = Literal["stop", "length"]
_WORTH_COPYING = 16
"""Tokens. Shorter beginnings are computed again."""
_WORTH_WAITING = 32
"""Tokens. For a longer beginning that another sequence is about to compute, a sequence waits."""


class Answer:
    """One answer that is being made: a request has one for each of its ``n``."""

    def __init__(
        self,
        prompt: Sequence[int],
        chooser: Chooser,
        *,
        most: int,
        ends: frozenset[int],
        adapter: int,
        grammar: Grammar | None = None,
        owner: Any = None,
    ) -> None:
        """
        Args:
            prompt: token ids, at least one.
            chooser: how its tokens are chosen.
            most: tokens after which it is cut.
            ends: tokens that end it.
            adapter: its number, or ``NO_ADAPTER``.
            grammar: what it must fit.
            owner: whoever waits for it; not looked at here.
        """
        self.prompt, self.chooser, self.most, self.ends, self.adapter = list(prompt), chooser, most, ends, adapter
        self.grammar, self.owner = grammar, owner
        self.cancelled = False
        """Set from any thread: it is dropped before the next step."""
        self.slot = -1
        self.computed = 0
        """How many tokens of prompt and answer are in the slot."""
        self.reused = 0
        """How many of them were there already."""
        self.said: list[int] = []
        self.lookup: Lookup | None = None
        """Made when something is guessed for the first time."""

    def next_tokens(self, most: int) -> list[int]:
        """What of the prompt has to be computed next, or the token that was said last."""
        if self.computed < len(self.prompt):
            return self.prompt[self.computed : self.computed + most]
        return self.said[-1:]

    def guess(self, most: int) -> list[int]:
        """Tokens that may be said next."""
        if self.grammar is not None:
            return []  # what fits depends on each token before
        if self.lookup is None:
            self.lookup = Lookup([*self.prompt, *self.said])
        return self.lookup.guess(min(most, self.most - len(self.said) - 1))

    @property
    def is_answering(self) -> bool:
        return self.computed >= len(self.prompt)


class Event(msgspec.Struct, frozen=True):
    """What a step came to for one answer."""

    answer: Answer
    drawn: Drawn | None = None
    finish: Finish | None = None
    failure: str | None = None


class Scheduler:
    """The sequences, their slots and the next step."""

    def __init__(self, backend: Backend, *, prompt_tokens_per_step: int, most_guessed: int = 0) -> None:
        """``most_guessed``: so many tokens of answers are guessed in one step, together."""
        self._backend = backend
        self._most_guessed = most_guessed if backend.shares_prefixes else 0
        self._budget = prompt_tokens_per_step if backend.splits_prompts else sys.maxsize
        self._waiting: deque[Answer] = deque()
        self._active: list[Answer] = []
        self._contents = Contents(backend.slots)
        self._free = set(range(backend.slots))

    @property
    def idle(self) -> bool:
        return not self._waiting and not self._active

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def active(self) -> int:
        return len(self._active)

    def add(self, answer: Answer) -> None:
        self._waiting.append(answer)

    def end_adapter(self, adapter: int) -> list[Event]:
        """Its number will stand for nothing: what is answered with it ends."""
        self._contents.forget_adapter(adapter)
        ended = [answer for answer in (*self._waiting, *self._active) if answer.adapter == adapter]
        self._waiting = deque(answer for answer in self._waiting if answer.adapter != adapter)
        return self._failed(ended, "its adapter was unloaded")

    def step(self) -> list[Event]:
        """Compute once. A failure of the model ends what was computed, and nothing else."""
        self._drop_cancelled()
        self._admit()
        chosen = self._chosen()
        if not chosen:
            return []
        pieces = [self._piece(answer, tokens) for answer, tokens in chosen]
        try:
            logits = self._backend.step(pieces)
            return self._advance(chosen, pieces, logits)
        except Exception as error:  # noqa: BLE001  # whatever a model raises: the others go on
            return self._failed([answer for answer, _ in chosen], f"{type(error).__name__}: {error}")

    def _drop_cancelled(self) -> None:
        for answer in [answer for answer in self._active if answer.cancelled]:
            self._leave(answer)
        if any(answer.cancelled for answer in self._waiting):
            self._waiting = deque(answer for answer in self._waiting if not answer.cancelled)

    def _admit(self) -> None:
        later: list[Answer] = []
        while self._waiting and self._free:
            answer = self._waiting.popleft()
            if not self._place(answer):
                later.append(answer)
        self._waiting.extendleft(reversed(later))

    def _place(self, answer: Answer) -> bool:
        """Give it a slot, with as much of its prompt as is there; False while another computes what it begins with."""
        if not self._backend.shares_prefixes:
            return self._take(answer, min(self._free), 0)
        every = range(self._backend.slots)
        found = self._contents.longest(answer.prompt, answer.adapter, every)
        soon = max(
            (
                common(other.prompt, answer.prompt[:-1])
                for other in self._active
                if other.adapter == answer.adapter and not other.is_answering
            ),
            default=0,
        )
        if soon >= found.length + _WORTH_WAITING:
            return False
        if found.length < _WORTH_COPYING:
            return self._take(answer, self._contents.oldest(sorted(self._free)), 0)
        if found.slot in self._free:
            return self._take(answer, found.slot, found.length)
        slot = self._contents.oldest(sorted(self._free))
        self._backend.copy(found.slot, slot, found.length)
        return self._take(answer, slot, found.length)

    def _take(self, answer: Answer, slot: int, there: int) -> bool:
        self._free.discard(slot)
        if not there:
            self._backend.drop(slot)
        answer.slot, answer.computed, answer.reused = slot, there, there
        self._contents.fill(slot, answer.prompt[:there], answer.adapter)
        self._active.append(answer)
        return True

    def _chosen(self) -> list[tuple[Answer, list[int]]]:
        chosen, left = [], self._budget
        for answer in self._active:
            tokens = answer.next_tokens(max(left, 0))
            if not answer.is_answering:
                left -= len(tokens)
            if tokens:
                chosen.append((answer, tokens))
        if left == self._budget and len(chosen) <= self._most_guessed:
            each = self._most_guessed // max(len(chosen), 1)
            chosen = [(answer, [*tokens, *answer.guess(each)]) for answer, tokens in chosen]
        return chosen

    def _piece(self, answer: Answer, tokens: list[int]) -> Piece:
        if answer.is_answering:
            return Piece(answer.slot, answer.computed, tokens, answer.adapter, len(tokens))
        ends = answer.computed + len(tokens) >= len(answer.prompt)
        return Piece(answer.slot, answer.computed, tokens, answer.adapter, int(ends))

    def _advance(self, chosen: Sequence[tuple[Answer, list[int]]], pieces: Sequence[Piece], logits: Any) -> list[Event]:
        events: list[Event] = []
        together: list[tuple[Answer, int]] = []
        row = 0
        for (answer, tokens), piece in zip(chosen, pieces, strict=True):
            if piece.answers > 1:
                events += self._with_guesses(answer, tokens, logits[row : row + piece.answers])
            else:
                self._computed(answer, tokens)
                together += [(answer, row)] * piece.answers
            row += piece.answers
        if together:
            rows = logits if len(together) == row else logits[[place for _, place in together]]
            events += self._said([answer for answer, _ in together], rows)
        return events

    def _computed(self, answer: Answer, tokens: Sequence[int]) -> None:
        answer.computed += len(tokens)
        self._contents.extend(answer.slot, tokens)

    def _with_guesses(self, answer: Answer, tokens: Sequence[int], logits: Any) -> list[Event]:
        """What is said after each token, as long as the next one was guessed right."""
        events: list[Event] = []
        for place, token in enumerate(tokens):
            self._computed(answer, [token])
            events += self._said([answer], logits[place : place + 1])
            if events[-1].finish is not None or answer.said[-1:] != list(tokens[place + 1 : place + 2]):
                break
        if answer.lookup is not None:
            answer.lookup.learn(len(events) - 1, len(tokens) - 1)
        return events

    def _said(self, answers: Sequence[Answer], logits: Any) -> list[Event]:
        for answer in answers:
            if answer.grammar is not None:
                answer.chooser.allowed = answer.grammar.allowed(logits.shape[-1]).to(logits.device)
        drawn = choose(logits, [answer.chooser for answer in answers])
        return [self._event(answer, one) for answer, one in zip(answers, drawn, strict=True)]

    def _event(self, answer: Answer, drawn: Drawn) -> Event:
        answer.said.append(drawn.token)
        if answer.lookup is not None:
            answer.lookup.extend([drawn.token])
        finish: Finish | None = None
        if drawn.token in answer.ends or (answer.grammar is not None and not _goes_on(answer.grammar, drawn.token)):
            finish = "stop"
        elif len(answer.said) >= answer.most:
            finish = "length"
        if finish is not None:
            self._leave(answer)
        return Event(answer, drawn, finish)

    def _leave(self, answer: Answer) -> None:
        self._active.remove(answer)
        self._free.add(answer.slot)
        self._contents.touch(answer.slot)

    def _failed(self, answers: Sequence[Answer], text: str) -> list[Event]:
        for answer in answers:
            if answer in self._active:
                self._leave(answer)
                # What is in its slot may be half of a step.
                self._contents.fill(answer.slot, [], answer.adapter)
                self._backend.drop(answer.slot)
        return [Event(answer, failure=text) for answer in answers]


def _goes_on(grammar: Grammar, token: int) -> bool:
    return grammar.accept(token) and not grammar.ended
