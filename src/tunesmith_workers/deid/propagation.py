"""Carries what was found in one place of some texts that belong together to every other place where it stands.

A recogniser needs a label, a title or a known name; the same value stands without any of them elsewhere. What is carried
is whole and written alike: never a part of a longer word, number or finding, and never in another case.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from tunesmith_workers.deid.finding import HAN, Span
from tunesmith_workers.deid.names import parts
from tunesmith_workers.deid.recognisers.english_words import (
    ALWAYS_CAPITAL,
    ORDINARY,
    ORDINARY_SURNAMES,
    ORGANISATION,
    PLACES,
)

_SCORE = 0.7
"""Less than any finding of a recogniser."""


def propagate(texts: Sequence[str], found: Sequence[list[Span]]) -> list[list[Span]]:
    """The findings with those that were carried, for each text in order and without overlaps: the longest stays.

    Args:
        texts: folded, so that places are the same as in what they were folded from.
        found: for each of them, without overlaps.
    """
    values = _values(texts, found)
    if not values:
        return list(found)
    search = _Search(values)
    return [_with_propagated(text, spans, search, values) for text, spans in zip(texts, found, strict=True)]


def _values(texts: Sequence[str], found: Sequence[list[Span]]) -> dict[str, str]:
    """Every value with its kind: that of its surest finding, so that it is of one kind in all texts."""
    surest: dict[str, tuple[float, str]] = {}
    for text, spans in zip(texts, found, strict=True):
        for span in spans:
            value = text[span.start : span.end]
            if span.score > surest.get(value, (0.0, ""))[0]:
                surest[value] = (span.score, span.kind)
    return {value: kind for value, (_, kind) in surest.items()}


def _with_propagated(text: str, spans: list[Span], search: _Search, values: dict[str, str]) -> list[Span]:
    own = [span._replace(kind=values[text[span.start : span.end]]) for span in spans]
    places = {(span.start, span.end) for span in own}
    carried = [span for span in search.all(text) if (span.start, span.end) not in places]
    return _longest([*own, *carried]) if carried else own


def _longest(spans: Iterable[Span]) -> list[Span]:
    kept: list[Span] = []
    taken: set[int] = set()
    for span in sorted(spans, key=lambda one: (one.start - one.end, -one.score, one.start)):
        places = range(span.start, span.end)
        if taken.isdisjoint(places):
            taken.update(places)
            kept.append(span)
    return sorted(kept, key=lambda one: one.start)


_SHORT_HEAD, _LONG_HEAD = 2, 6
_NUMBERS = frozenset({"PHONE", "LANDLINE", "ID_CARD", "SSN", "BANK_CARD", "BANK_ACCOUNT", "PASSPORT"})
_NUMBER = re.compile(r"\+?[0-9 ().-]+[Xx]?")
_SEPARATED = re.compile(r"(?<![A-Za-z0-9_])(?<!\d[.-])\d(?:[ .-]?\d){6,24}(?![A-Za-z0-9_]|[.-]\d)")
_NO_DIGIT = re.compile(r"[^0-9]")


class _Search:
    """Looks for many values in one walk through a text: by their first characters, and numbers by their digits alone."""

    def __init__(self, values: dict[str, str]) -> None:
        self._by_head: dict[str, list[tuple[str, str]]] = defaultdict(list)
        self._by_digits: dict[str, str] = {}
        for value, kind in values.items():
            self._add(value, kind)
            if kind == "PERSON":
                for part in parts(value):
                    self._add(part, kind)
            digits = _NO_DIGIT.sub("", value)
            if kind in _NUMBERS and len(digits) > 6 and _NUMBER.fullmatch(value) and value[-1].isdecimal():
                self._by_digits[digits] = kind

    def all(self, text: str) -> Iterator[Span]:
        """Every place where one of the values stands whole; they may overlap."""
        heads = self._by_head
        for start in range(len(text) - 1):
            for length in (_SHORT_HEAD, _LONG_HEAD):
                for value, kind in heads.get(text[start : start + length], ()):
                    end = start + len(value)
                    if text.startswith(value, start) and _is_whole(text, start, end):
                        yield Span(kind, start, end, _SCORE)
        for match in _SEPARATED.finditer(text) if self._by_digits else ():
            known = self._by_digits.get(_NO_DIGIT.sub("", match[0]))
            if known is not None:
                yield Span(known, *match.span(), _SCORE)

    def _add(self, value: str, kind: str) -> None:
        """Under its first characters; a single one, such as a surname before a title, is never looked for."""
        for written in {value, *_escaped(value)} if len(value) > 1 else ():
            head = written[: _SHORT_HEAD if len(written) < _LONG_HEAD else _LONG_HEAD]
            if (written, kind) not in self._by_head[head]:
                self._by_head[head].append((written, kind))


def _escaped(value: str) -> set[str]:
    """As it may stand within JSON."""
    if value.isascii() and '"' not in value and "\n" not in value:
        return set()
    lower = json.dumps(value)[1:-1]
    upper = re.sub(r"\\u[0-9a-f]{4}", lambda match: f"\\u{match[0][2:].upper()}", lower)
    return {lower, upper, json.dumps(value, ensure_ascii=False)[1:-1]}


def _is_whole(text: str, start: int, end: int) -> bool:
    """Whether the value there is no part of a longer word or number, and no word that is no name here."""
    if not _begins_anywhere(text[start]) and not _BEGINS.match(text, start):
        return False
    if not HAN.match(text[end - 1]) and not _ENDS.match(text, end):
        return False
    word = text[start:end]
    if not word.isalpha() or HAN.match(word):
        return True
    if _ORGANISATION_AFTER.match(text, end):
        return False
    is_word = len(word) < 3 or word in ORDINARY or word in ORDINARY_SURNAMES or word in PLACES
    return not is_word or _is_person(text, start, end, word)


def _begins_anywhere(character: str) -> bool:
    """Chinese has no spaces between words, nor is there anything before an escape."""
    return character == "\\" or HAN.match(character) is not None


_LETTER = "A-Za-zÀ-ÖØ-öø-ž"
_BEGINS = re.compile(rf"(?<![{_LETTER}0-9_@+])(?<![{_LETTER}0-9]['-])(?<![0-9]\.)")
_ENDS = re.compile(rf"(?![{_LETTER}0-9_@]|-[{_LETTER}0-9]|'(?!s\b)[{_LETTER}]|\.[a-z0-9])")
_ORGANISATION_AFTER = re.compile(rf" (?:{'|'.join(sorted(ORGANISATION))})\b")
_WITHIN = re.compile(r"(?:[a-z]|,) $")
_DETERMINED = re.compile(
    r"\b(?:the|an?|this|that|these|your|my|our|his|her|their|its|every|each|no|of|in) $", re.IGNORECASE
)
_SPOKEN_TO = re.compile(
    r"(?:\b(?:with|tell|told|ask|asked|thank|thanks|thank you|hi|hello|hey|dear|met|named|called|from our colleague|my name is|i am|i'm|this is)|"
    r"\b(?:Mr|Mrs|Ms|Dr|Prof)\.?),? $",
    re.IGNORECASE,
)
_ACTS = re.compile(
    r"(?:'s (?:\w+ )?(?:account|address|phone|number|e-?mail|order|appointment|name|birthday|wife|husband|mother|father|son|daughter)\b"
    r"| (?:said|says|asked|asks|called|calls|wrote|writes|replied|told|tells|wants|wanted|needs|needed|likes|liked|lives|lived|works|worked|agreed|thinks"
    r"|thought|emailed|ordered|confirmed|complained|has been|has asked|is calling|would like|also|and I)\b)"
)


def _is_person(text: str, start: int, end: int, word: str) -> bool:
    """Whether a word that is a name here and there is one in this place: in quotes alone, spoken to, or doing what people do."""
    if text[start - 1 : start] in ('"', "“") and text[end : end + 1] in ('"', "”"):
        return True
    before = text[max(0, start - 24) : start]
    if _SPOKEN_TO.search(before) or _ACTS.match(text, end):
        return True
    capitalised_anyway = word in ALWAYS_CAPITAL or word in PLACES
    goes_on = text[end : end + 1] == " " and text[end + 1 : end + 2].isupper()
    return bool(not capitalised_anyway and not goes_on and _WITHIN.search(before) and not _DETERMINED.search(before))
