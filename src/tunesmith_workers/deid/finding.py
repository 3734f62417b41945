"""What recognisers are given and what they give back. A recogniser is a function; it knows no policy and no library."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

from tunesmith_workers.deid.folding import fold


class Span(NamedTuple):
    """One finding: ``text[start:end]`` is of this kind."""

    kind: str
    start: int
    end: int
    score: float
    """How sure: 1.0 with a checksum or a shape that nothing else has. Of two that overlap the surer one stays."""


class Token(NamedTuple):
    """A word of Chinese with its part of speech, as jieba tags it."""

    word: str
    tag: str
    start: int
    end: int


@dataclass(frozen=True)
class Reading:
    """A text as recognisers read it. Positions in ``folded`` and ``tokens`` are positions in the original."""

    folded: str
    """The text with full-width forms, dashes and foreign digits as ASCII, as long as the original."""
    tokens: tuple[Token, ...]
    """The Chinese words of it; none in a text without Chinese characters."""
    chinese: bool
    """Whether shapes that mean different things in different countries are read as Chinese ones."""


Recogniser = Callable[[Reading], Iterable[Span]]
Cutter = Callable[[str], Iterable[tuple[str, str]]]
"""Cuts Chinese into words with their parts of speech."""

HAN = re.compile(r"[\u3400-\u9fff]")
_LONGEST_PIECE = 400
"""The cutter needs memory by the length of a sentence, so none is longer."""
_ENDS = re.compile(r"[\n。！？!?；;]")


def read(text: str, cut: Cutter, locale: str | None) -> Reading:
    """``locale`` is what the text is said to be; without it, one with a Chinese character is Chinese."""
    folded = fold(text)
    has_han = HAN.search(folded) is not None
    return Reading(
        folded=folded,
        tokens=tuple(_tokens(folded, cut)) if has_han else (),
        chinese=has_han if locale is None else locale == "zh-CN",
    )


def _tokens(text: str, cut: Cutter) -> Iterable[Token]:
    start = 0
    while start < len(text):
        end = min(len(text), start + _LONGEST_PIECE)
        if end < len(text):
            ends = [match.end() for match in _ENDS.finditer(text, start, end)]
            end = ends[-1] if ends else end
        piece = text[start:end]
        if HAN.search(piece):
            position = start
            for word, tag in cut(piece):
                yield Token(word, tag, position, position + len(word))
                position += len(word)
        start = end


class Cues:
    """Words shortly before a finding that speak for or against it; the nearest decides."""

    def __init__(self, good: str = "", bad: str = "", *, reach: int = 24) -> None:
        parts = [f"(?P<{name}>{words})" for name, words in (("good", good), ("bad", bad)) if words]
        self._words = re.compile("|".join(parts), re.IGNORECASE)
        self._reach = reach

    def before(self, text: str, start: int) -> str | None:
        """``good``, ``bad`` or None for what stands before ``start``, within the sentence."""
        window = text[max(0, start - self._reach) : start]
        window = _SENTENCE_END.split(window)[-1]
        found = None
        for match in self._words.finditer(window):
            found = match.lastgroup
        return found

    def after(self, text: str, end: int) -> str | None:
        window = _SENTENCE_END.split(text[end : end + self._reach])[0]
        match = self._words.search(window)
        return match.lastgroup if match else None


_SENTENCE_END = re.compile(r"[\n。！？!?；;]|(?<!\b[Nn]o)(?<!\b[Nn]um)\.\s")
