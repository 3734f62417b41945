"""Names of people in Chinese: every surname with what may be a given name is weighed by what it is made of and stands between.

A surname alone is found beside a title (of 王先生 the 王). Nicknames such as 小李 and 老王 are not names enough to find.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from tunesmith_workers.deid.finding import HAN, Reading, Span, Token
from tunesmith_workers.deid.recognisers.chinese_words import (
    ALSO_IN_NAMES,
    ALSO_WORDS,
    BUSINESS,
    COMMON,
    COMPOUND,
    FUNCTION,
    KIN,
    LABEL,
    LISTED,
    OWNED,
    PEOPLE_END,
    RARE,
    SAYS,
    SURNAMES,
    TITLE,
    TITLED,
    TRANSLITERATED,
    WORDS,
)

_LEAST_SEEN = 4
_ENOUGH = 4.0
"""How much must speak for a name. Set, as the weights below, on the sentences of the gold table that are not held out."""
_NEIGHBOURS_BEFORE = frozenset("pcuvrdft")
_NEIGHBOURS_AFTER = frozenset("pcuvdyft")
"""First letters of the parts of speech that names stand beside: prepositions, conjunctions, particles, verbs, ..."""
_NO_ENDS = FUNCTION | frozenset("收接签办领取寄付买退换修订住送拿改查问")
"""What is done with a name in a note rather than the end of one: 李娜收."""
_JOINING = frozenset("和跟与同及给请找让叫对向被把")
_SHORT_TITLES = "总工某"
_ORDINARY_TAGS = frozenset({"n", "v", "m", "t", "vn"})
_BEGINNINGS = re.compile("|".join([*COMPOUND, f"[{''.join(sorted(TITLED))}]"]))
_FIELD = re.compile(r"[\u4e00-\u9fff]{4,6}(?=$|[，,。；;、\s(（/|])")
_DOTTED = re.compile(r"·(?=[\u4e00-\u9fff])")


@dataclass(frozen=True)
class _Surroundings:
    """Where words, labels and titles of a text begin and end."""

    text: str
    starts: Mapping[int, Token]
    ends: Mapping[int, Token]
    labels: frozenset[int]
    """Where a label such as 姓名： ends."""
    titles: frozenset[int]
    """Where a title such as 先生 begins."""


class ChinesePeople:
    """Finds names. ``word_tags`` is jieba's dictionary; the characters that given names are made of are counted in it."""

    def __init__(self, word_tags: Mapping[str, str]) -> None:
        seen = Counter(
            character
            for word, tag in word_tags.items()
            if tag == "nr" and len(word) == 3 and word[0] in COMMON
            for character in word[1:]
        )
        self._given = {character for character, times in seen.items() if times >= _LEAST_SEEN}
        self._frequent = {character for character, times in seen.items() if times >= 8 * _LEAST_SEEN}
        self._dictionary = word_tags

    def find(self, reading: Reading) -> Iterable[Span]:
        """Names, which may overlap: the one with the better score is meant."""
        if not reading.tokens:
            return
        text = reading.folded
        tokens = [token for whole in reading.tokens for token in self._apart(whole)]
        place = _Surroundings(
            text=text,
            starts={token.start: token for token in tokens},
            ends={token.end: token for token in tokens},
            labels=frozenset(match.end() for match in LABEL.finditer(text)),
            titles=frozenset(match.start() for match in TITLE.finditer(text)),
        )
        found = [*self._weighed(place), *_surnames_before_titles(place), *_dotted(text), *self._fields(place)]
        found = [span for span in found if not _names_other(text, span)]
        yield from found
        yield from _listed(text, found)

    def _apart(self, token: Token) -> tuple[Token, ...]:
        """What jieba only guessed at, taken apart where it took an 和 for the beginning of a name: 和陶勇."""
        word, tag, start, end = token
        if word[0] not in _JOINING or len(word) < 2 or word in self._dictionary or word[1] not in SURNAMES:
            return (token,)
        return (Token(word[0], "c", start, start + 1), Token(word[1:], tag, start + 1, end))

    def _weighed(self, place: _Surroundings) -> Iterator[Span]:
        for match in _BEGINNINGS.finditer(place.text):
            start, surname = match.start(), match[0]
            for end in (match.end() + 2, match.end() + 1):
                weight = self._weight(place, start, end, surname) if end <= len(place.text) else 0.0
                if weight >= _ENOUGH:
                    yield Span("PERSON", start, end, 0.7 + min(0.16, weight / 60))
                    if start in place.labels and _ends_words(place.text, end) and place.text[end - 1] not in _NO_ENDS:
                        break  # all that the field holds

    def _fields(self, place: _Surroundings) -> Iterator[Span]:
        """Names of Mongols, Uyghurs and others whose surname is none of ours: all of a field that holds a name."""
        for start in place.labels:
            match = _FIELD.match(place.text, start) if place.text[start - 1] in "：:" else None
            if match and set(match[0]) <= self._given | TRANSLITERATED and self._dictionary.get(match[0], "nr") == "nr":
                yield Span("PERSON", *match.span(), 0.9)

    def _weight(self, place: _Surroundings, start: int, end: int, surname: str) -> float:
        name = place.text[start:end]
        given = name[len(surname) :]
        if (surname in TITLED - SURNAMES and start not in place.labels) or given in KIN:
            return 0.0
        if not _is_han(given) or start + len(surname) in place.titles or self._is_ordinary(place, start, name):
            return 0.0
        inside = self._weight_inside(place, start, end, surname)
        fills_field = start in place.labels and place.text[start - 1] in "：:" and _ends_words(place.text, end)
        alone = len(given) == 2 and _stands_between_marks(place.text, start, end) and set(given) <= self._given
        return (
            (1.0 if fills_field else 0.5 if alone else 0.0)
            + _weight_before(place, start)
            + self._weight_after(place, end, given)
            # After a label, how jieba cut it does not count against a name.
            + (max(0.0, inside) if start in place.labels or alone else inside)
            + self._weight_of_given(given)
            + (1.5 if len(surname) == 2 else -0.5 if surname in RARE else 0.0 if surname in ALSO_WORDS else 1.0)
        )

    def _is_ordinary(self, place: _Surroundings, start: int, name: str) -> bool:
        """Whether it is a word of the language, or begins like one."""
        tag = self._dictionary.get(name, "")
        labelled = start in place.labels
        if name in WORDS or (tag and not tag.startswith("nr") and not (labelled and len(name) == 3)):
            return True
        first = place.starts.get(start)
        begins = first is not None and first.word in WORDS and len(first.word) < len(name)
        return begins and not tag.startswith("nr") and not labelled

    def _weight_inside(self, place: _Surroundings, start: int, end: int, surname: str) -> float:
        """How jieba cut the name: as one, apart, or together with what is around it."""
        first = place.starts.get(start)
        if first is None or (first.end != end and end not in place.ends):
            return -2.5
        if first.end == end:
            return self._weight_of_word(first, surname)
        if first.end == start + len(surname):
            rest = place.starts.get(first.end)
            ordinary = (
                rest is not None
                and rest.end == end
                and len(rest.word) > 1
                and rest.tag in _ORDINARY_TAGS
                and rest.word in self._dictionary
            )
            tagged = rest is not None and rest.end == end and rest.tag.startswith("nr")
            return 1.6 if tagged else 0.3 if ordinary else 1.0
        if first.tag.startswith("nr"):
            return 0.8
        return -0.3 if first.end == end - 1 and first.tag == "ns" else -1.5

    def _weight_of_word(self, token: Token, surname: str) -> float:
        if not token.tag.startswith("nr"):
            return 0.5
        # jieba's dictionary calls a great many ordinary words of two characters names.
        doubtful = len(token.word) == 2 and token.word in self._dictionary and surname not in COMMON - ALSO_WORDS
        return 0.0 if doubtful else 2.5

    def _weight_after(self, place: _Surroundings, end: int, given: str) -> float:
        if end in place.titles:
            return 2.5
        if end == len(place.text) or not HAN.match(place.text[end]):
            return 1.2
        if OWNED.match(place.text, end) or SAYS.match(place.text, end):
            return 1.7
        after = place.starts.get(end)
        if after is None:
            return -1.5
        if (
            len(given) == 1
            and len(after.word) == 1
            and after.word in self._given - FUNCTION
            and after.tag[:1] in "nagzjb"
        ):
            return -1.5  # the given name goes on
        return 1.0 if after.tag[:1] in _NEIGHBOURS_AFTER else 0.2

    def _weight_of_given(self, given: str) -> float:
        weight = 0.0
        for index, character in enumerate(given):
            inside = index == 0 and len(given) == 2 and character in ALSO_IN_NAMES
            if character in FUNCTION and not inside:
                weight -= 2.5
            elif character in self._frequent:
                weight += 0.6
            elif character in self._given:
                weight += 0.3
        return weight


def _weight_before(place: _Surroundings, start: int) -> float:
    if start in place.labels:
        return 2.5
    if start == 0 or not HAN.match(place.text[start - 1]):
        return 1.5
    before = place.ends.get(start)
    if before is None:
        return -2.0
    if before.word[-1] in PEOPLE_END and len(before.word) > 1 and before.tag[:1] == "n":
        return 1.8
    return 1.2 if before.tag[:1] in _NEIGHBOURS_BEFORE else 0.3


def _ends_words(text: str, end: int) -> bool:
    return end == len(text) or not HAN.match(text[end])


def _stands_between_marks(text: str, start: int, end: int) -> bool:
    return (start == 0 or not HAN.match(text[start - 1])) and _ends_words(text, end)


def _is_han(text: str) -> bool:
    return all(HAN.match(character) for character in text)


def _surnames_before_titles(place: _Surroundings) -> Iterator[Span]:
    for end in place.titles:
        for length in (2, 1):
            start = end - length
            surname = place.text[max(0, start) : end]
            known = COMPOUND if length == 2 else COMMON if _leans_left(place, start) else TITLED
            if start < 0 or surname not in known:
                continue
            word = place.starts.get(start)
            whole = word is not None and word.end == end + 1 and place.text[end] == "总"
            apart = end in place.ends or whole or place.text[end] not in _SHORT_TITLES
            if apart and (start in place.starts or start in place.labels) and _stands_alone(place.text, start):
                yield Span("PERSON", start, end, 0.72)
                break


def _leans_left(place: _Surroundings, start: int) -> bool:
    """Whether a word stands before that could make one with what follows."""
    before = place.ends.get(start)
    if before is not None and len(before.word) > 1 and before.word[-1] in "部组室处科局店队厅":
        return False
    if before is None or before.tag[:1] in "xpcv" or before.word == "联系":
        return False
    return not (before.word[-1] in PEOPLE_END or before.word.endswith("主任"))


def _stands_alone(text: str, start: int) -> bool:
    """A nickname's 小 or 老 before a surname makes it none, and 康师傅 sells noodles."""
    return (start == 0 or text[start - 1] not in "小老阿大·") and text[start : start + 3] not in WORDS


def _names_other(text: str, span: Span) -> bool:
    """A place, or the beginning of a company's name."""
    long = span.end - span.start > 1
    return (long and text[span.end - 1] in "区县市镇乡村路街省州") or BUSINESS.match(
        text[span.end : span.end + 14]
    ) is not None


def _listed(text: str, found: list[Span]) -> Iterator[Span]:
    """Neighbours of a name in an enumeration."""
    ends = {span.end for span in found}
    starts = {span.start for span in found}
    for match in LISTED.finditer(text):
        near = match.start(1) - 1 in ends or match.end(1) + 1 in starts
        if near and match[1] not in WORDS and match[1][0] in SURNAMES and not FUNCTION & set(match[1][1:]):
            yield Span("PERSON", *match.span(1), 0.69)
            ends.add(match.end(1))


def _dotted(text: str) -> Iterator[Span]:
    """约翰·史密斯: characters that foreign names are written with, around a dot."""
    position = 0
    for match in _DOTTED.finditer(text):
        if match.start() < position:
            continue
        start = match.start()
        while start > 0 and text[start - 1] in TRANSLITERATED and match.start() - start < 7:
            start -= 1
        end = match.end()
        while end < len(text) and (text[end] in TRANSLITERATED or (text[end] == "·" and end + 1 < len(text))):
            end += 1
        if start < match.start() and end > match.end():
            position = end
            yield Span("PERSON", start, end, 0.87)
