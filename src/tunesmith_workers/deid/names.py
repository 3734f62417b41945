"""Names in pieces: which parts of a full name stand for it elsewhere, and the same part of what replaces it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from tunesmith_workers.deid.finding import HAN
from tunesmith_workers.deid.recognisers.chinese_words import COMPOUND


class Part(NamedTuple):
    """Some pieces of a full name."""

    full: str
    pieces: tuple[int, ...]

    def of(self, made: str) -> str | None:
        """The same part of another name; None where that is not made as the full name is."""
        own, other = _pieces(self.full), _pieces(made)
        if len(own) != len(other) or bool(HAN.match(made)) != bool(HAN.match(self.full)):
            return None
        return " ".join(other[index] for index in self.pieces)


def parts(name: str) -> dict[str, Part]:
    """First name, surname, and both without what is between them; of a Chinese name the surname."""
    pieces = _pieces(name)
    if len(pieces) < 2:
        return {}
    if HAN.match(name):
        return {pieces[0]: Part(name, (0,))}
    last = len(pieces) - 1
    chosen = [(0,), (last,), (0, last)] if last > 1 else [(0,), (last,)]
    return {
        " ".join(pieces[index] for index in indexes): Part(name, indexes)
        for indexes in chosen
        if all(pieces[index][0].isupper() and pieces[index][-1] != "." for index in indexes)
    }


def parts_of_all(names: Iterable[str]) -> dict[str, Part]:
    """Where two names have a part in common, it is the first one's; a name that is there itself is no part."""
    known = list(dict.fromkeys(names))
    found: dict[str, Part] = {}
    for name in known:
        for part, meant in parts(name).items():
            found.setdefault(part, meant)
    return {part: meant for part, meant in found.items() if part != meant.full}


def share_a_piece(first: str, second: str) -> bool:
    """Whether a word of one is a word of the other, or both have one surname."""
    if HAN.match(first):
        return first[0] == second[0]
    return not _words(first).isdisjoint(_words(second))


def _words(name: str) -> set[str]:
    """Without initials, and without the particles between: a ``van`` stays one."""
    words = name.split()
    inner = [word for word in words[1:-1] if not word.islower()]
    return {word.casefold() for word in [*words[:1], *inner, *words[-1:]] if len(word.rstrip(".")) > 1}


def _pieces(name: str) -> Sequence[str]:
    if not HAN.match(name):
        return name.split(" ")
    plain = len(name) in (2, 3) and name[:2] not in COMPOUND and all(HAN.match(character) for character in name)
    return (name[0], name[1:]) if plain else (name,)
