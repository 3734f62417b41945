"""Where an answer differs from the expected one, word by word."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from typing import Literal, NamedTuple

_LEAST_ALIKE = 0.35
"""Below this share of common words, marking single ones would only be hard to read."""
_WORD = re.compile(r"\s+|\w+|[^\w\s]")


class Piece(NamedTuple):
    """A part of an answer, or what it lacks."""

    kind: Literal["same", "added", "missing"]
    text: str


def pieces(expected: str, answer: str) -> Iterator[Piece]:
    """What is missing stands before what is there instead. An answer that has little in common is wrong as a whole."""
    wanted, got = _WORD.findall(expected), _WORD.findall(answer)
    matcher = difflib.SequenceMatcher(None, wanted, got, autojunk=False)
    if matcher.ratio() < _LEAST_ALIKE:
        yield Piece("added", answer)
        return
    for kind, start, end, begin, stop in matcher.get_opcodes():
        if kind == "equal":
            yield Piece("same", "".join(got[begin:stop]))
            continue
        if end > start:
            yield Piece("missing", "".join(wanted[start:end]))
        if stop > begin:
            yield Piece("added", "".join(got[begin:stop]))
