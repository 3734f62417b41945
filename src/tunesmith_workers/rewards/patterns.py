"""Regular expressions of strangers, searched for with a deadline and in little memory.

The syntax is that of Python's ``re``; the search is that of ``regex``, which can be told to give up. What ``regex`` would
unfold to gigabytes is refused before it is compiled: repeats of repeats multiply, and each ``+`` counts as two.
"""

from __future__ import annotations

import re
import warnings
from typing import Any, Final

import msgspec

from tunesmith_workers.rewards.sample import CannotGrade
from tunesmith_workers.rewards.words import load_library

LONGEST_PATTERN: Final = 1000
LONGEST_TEXT: Final = 100_000
SECONDS: Final = 1.0
"""How long one search may compute."""
_LARGEST = 10_000
"""Of a pattern with its repeats written out."""
_MOST_GROUPS = 20
"""A search keeps all of them for every place that it may go back to."""
_UNMEASURED = re.compile(r"\?(?:#|[a-zA-Z-]*x)")
"""In what begins like this, brackets may be no brackets."""
_REPEAT = re.compile(r"\{(\d*)(,?)(\d*)\}")


class BadPattern(ValueError):
    """The pattern cannot be used; the words say why."""


class Pattern(msgspec.Struct, frozen=True):
    """A pattern that is safe to search for."""

    compiled: Any
    full: bool
    """Whether it has to match the whole text."""


def read_pattern(text: str, *, full: bool, where: str) -> Pattern:
    """Raises BadPattern, PackageMissing."""
    if len(text) > LONGEST_PATTERN:
        raise BadPattern(f"is longer than {LONGEST_PATTERN:,} characters")
    _checked_size(text)
    try:
        with warnings.catch_warnings():
            # What Python warns of are sets that re and regex read differently.
            warnings.simplefilter("error")
            understood = re.compile(text)
    except (re.error, ValueError, OverflowError, RecursionError, Warning) as error:
        raise BadPattern(f"is no regular expression: {error}") from None
    if understood.groups > _MOST_GROUPS:
        raise BadPattern(f"has more than {_MOST_GROUPS} groups")
    library = load_library("regex", "regex", where=where)
    try:
        return Pattern(library.compile(text), full)
    except (library.error, ValueError, OverflowError, RecursionError, MemoryError) as error:
        raise BadPattern(f"cannot be searched for: {error}") from None


def matches(pattern: Pattern, text: str, where: str) -> bool:
    """Raises CannotGrade: the text is too long, or the search takes too much time or memory."""
    if len(text) > LONGEST_TEXT:
        raise CannotGrade(
            "other_error", f"{where}: a text is searched up to {LONGEST_TEXT:,} characters, and has {len(text):,}"
        )
    search = pattern.compiled.fullmatch if pattern.full else pattern.compiled.search
    try:
        return search(text, timeout=SECONDS) is not None
    except TimeoutError:
        raise CannotGrade("unresponsive_reward_error", f"{where}: the pattern took longer than {SECONDS:g} s") from None
    except MemoryError:
        raise CannotGrade("other_error", f"{where}: the pattern took too much memory") from None


def _checked_size(text: str) -> None:
    """Raises BadPattern: written out it is too large, or it has what cannot be measured."""
    sizes, last, at = [0], 0, 0
    # sizes: of the groups that are open; last: of what a repeat would repeat
    while at < len(text):
        character = text[at]
        at += 1
        if character == "(":
            if _UNMEASURED.match(text, at):
                raise BadPattern("has a comment, (?#...), or the flag x")
            sizes.append(0)
            last = 0
            continue
        if character == ")":
            if len(sizes) == 1:
                raise BadPattern("has a ) too many")
            last = sizes.pop() + 1
        elif character in "*+?{":
            factor, at = _factor(text, at - 1)
            sizes[-1] -= last
            last *= factor
        else:
            at = _end(text, at - 1)
            last = 1
        sizes[-1] += last
        if sizes[-1] > _LARGEST:
            raise BadPattern(f"repeats to more than {_LARGEST:,} characters")


def _factor(text: str, at: int) -> tuple[int, int]:
    """How many times what stands before is written out, and where the repeat ends."""
    if text[at] != "{":
        return (2 if text[at] == "+" else 1), at + 1
    repeat = _REPEAT.match(text, at)
    if repeat is None or not (repeat[1] or repeat[3]) or max(len(repeat[1]), len(repeat[3])) > 6:
        raise BadPattern(r"has a { that begins no repeat such as {2,5}; the character itself is \{")
    least, most = int(repeat[1] or 0), int(repeat[3] or 0)
    return max(least + 1, most), repeat.end()


def _end(text: str, at: int) -> int:
    """Where the character, the escape or the set ends that begins here."""
    if text[at] == "\\":
        return at + 2
    if text[at] != "[":
        return at + 1
    at += 2 if text.startswith("^", at + 1) else 1
    first = at
    while at < len(text) and (text[at] != "]" or at == first):
        at += 2 if text[at] == "\\" else 1
    return at + 1
