"""Whether a file looks like data that a recipe takes: its first bytes and first rows, before a run is queued for it.

It finds what would end the run for sure, such as a picture, an archive or rows of another shape. It does not find
everything: the workers read all rows, and judge each as ``tunesmith_workers.data.shapes`` says. Bounded in bytes; blocks.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, NoReturn

import msgspec

from tunesmith.datasets.file_kinds import kind_of
from tunesmith.errors import Fault
from tunesmith.files import open_regular

_BYTES = 256 * 1024
_ROWS = 100
_LONGEST_TOKEN = 16
"""Characters of JSON's own words and of escapes, with some to spare."""
_MOST_FAULTS = 20
_BOM = "\ufeff"
_AS_ROWS = "write one JSON object on each line, or a JSON array of objects"
_SHAPE_BY_KEY = {
    "messages": "messages",
    "conversations": "conversations",
    "output": "instruction",
    "completion": "prompt_completion",
    "chosen": "preference",
    "rejected": "preference",
    "preferred_output": "preference",
    "non_preferred_output": "preference",
    "response": "scored",
    "score": "scored",
    "prompt": "prompt",
}
"""The first of these keys that a row has decides; the workers say the same."""
_ASSISTANT = ("assistant", "gpt", "model", "bot", "chatgpt")
_SPREAD = "is one JSON object over several lines; rows must be one on each line, or in a JSON array"
_LISTS = ("messages", "conversations")
_Place = tuple[int, Any]
"""A line, and the row that begins on it."""


class _NotRows(Exception):
    """What is wrong at a line with everything from there on."""

    def __init__(self, line: int, message: str, mend: str = _AS_ROWS) -> None:
        super().__init__(message)
        self.line = line
        self.message = message
        self.mend = mend


def data_faults(path: Path, shapes: Collection[str], *, name: str, recipe: str) -> tuple[Fault, ...]:
    """What in the first rows of a file keeps ``recipe``, which takes ``shapes``, from using it; ``name`` is the file's.

    Empty for a file that looks right, and for one that cannot be read: its reader says so.
    """
    try:
        with os.fdopen(open_regular(path), "rb") as file:
            head = file.read(_BYTES + 1)
    except OSError:
        return ()
    faults: list[Fault] = []
    try:
        for line, row in _rows(head[:_BYTES], whole=len(head) <= _BYTES, name=name):
            fault = _row_fault(row, shapes, recipe)
            if fault is not None:
                faults.append(msgspec.structs.replace(fault, where=f"{name}:{line}"))
            if len(faults) == _MOST_FAULTS:
                break
    except _NotRows as found:
        where = f"{name}:{found.line}" if found.line else name
        faults.append(Fault(message=found.message, where=where, mend=found.mend))
    return tuple(faults)


def shape_of(row: dict[str, Any]) -> str | None:
    """The shape that a row's keys say; None for none of them."""
    return next((shape for key, shape in _SHAPE_BY_KEY.items() if key in row), None)


def _row_fault(row: Any, shapes: Collection[str], recipe: str) -> Fault | None:
    if not isinstance(row, dict):
        return Fault(message="is not a JSON object", mend=_AS_ROWS)
    shape = "prompt" if "prompt" in shapes and _is_asked(row) else shape_of(row)
    accepted = ", ".join(shapes)
    if shape is None:
        keys = ", ".join(key[:40] for key in list(row)[:20]) or "none"
        return Fault(
            message=f"has no known shape (its keys: {keys})",
            mend=f"recipe {recipe} takes the shapes {accepted}; docs/data.md shows each",
        )
    if shape not in shapes:
        return Fault(
            message=f"has the shape {shape}, and recipe {recipe} takes {accepted}",
            mend="choose a recipe for this shape, or convert the rows with `tunesmith data process --to-shape`",
        )
    if shape in _LISTS and not isinstance(row[shape], list):
        return Fault(message=f"{shape} must be a list of messages", mend='such as [{"role": ..., "content": ...}, ...]')
    return None


def _is_asked(row: dict[str, Any]) -> bool:
    """Whether its messages are a prompt, as in OpenAI's files for reinforcement: the last one is not the assistant's."""
    turns = row.get("messages")
    return isinstance(turns, list) and bool(turns) and not (isinstance(turns[-1], dict) and _is_answer(turns[-1]))


def _is_answer(turn: dict[str, Any]) -> bool:
    return turn.get("role", turn.get("from")) in _ASSISTANT


def _rows(head: bytes, *, whole: bool, name: str) -> Iterator[_Place]:
    """The rows that are whole in the head.

    Raises:
        _NotRows: it does not consist of rows.
    """
    kind = kind_of(head, name)
    if kind is not None:
        raise _NotRows(0, f"is {kind.said}, not JSON Lines or a JSON array", kind.mend)
    text = _text(head, whole=whole).removeprefix(_BOM)
    first = text.lstrip()[:1]
    if not first:
        raise _NotRows(0, "is empty" if not head else "holds no rows")
    found = _items(text, whole=whole) if first == "[" else _lines(text, whole=whole)
    nothing = True
    for number, place in enumerate(found):
        nothing = False
        yield place
        if number + 1 == _ROWS:
            return
    if nothing and whole:
        raise _NotRows(0, "holds no rows")


def _text(head: bytes, *, whole: bool) -> str:
    try:
        return head.decode()
    except UnicodeDecodeError as error:
        if not whole and error.start >= len(head) - 3:
            return head[: error.start].decode()  # the head ends in the middle of a character
        line = head[: error.start].count(b"\n") + 1
        raise _NotRows(line, f"is not UTF-8: byte 0x{head[error.start]:02x}", "save the file as UTF-8") from None


def _lines(text: str, *, whole: bool) -> Iterator[_Place]:
    lines = text.split("\n")
    if not whole:
        lines.pop()  # cut off somewhere
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            yield number, msgspec.json.decode(line)
        except RecursionError:
            raise _NotRows(number, "is nested too deeply", "flatten it") from None
        except msgspec.DecodeError as error:
            begins = text[len("\n".join(lines[: number - 1])) :]
            if re.match(r"\s*\{\s*(\n|$)", begins) or _is_spread(begins):
                raise _NotRows(number, _SPREAD, "`jq -c . FILE` writes each on one line") from None
            raise _NotRows(number, f"is not valid JSON: {error}") from None


def _is_spread(text: str) -> bool:
    """Whether JSON that begins here goes on over its line's end."""
    try:
        _, end = _decoder.raw_decode(text.lstrip())
    except (ValueError, RecursionError):
        return False
    return "\n" in text.lstrip()[:end]


def _items(text: str, *, whole: bool) -> Iterator[_Place]:
    place, sign = text.index("["), "["
    while (begin := _begin_of_item(text, place, sign, whole=whole)) is not None:
        try:
            value, place = _decoder.raw_decode(text, begin)
        except (ValueError, RecursionError) as error:
            if not whole and _is_cut_off(text, error):
                return
            raise _item_fault(text, begin, error) from None
        yield _line_at(text, begin), value
        sign = ","


def _begin_of_item(text: str, place: int, sign: str, *, whole: bool) -> int | None:
    """Where the item after ``sign`` begins; None where there is none, or none that is whole."""
    place = _after_blanks(text, place)
    found = text[place : place + 1]
    begin = _after_blanks(text, place + 1)
    if found == "]" or (found == "[" and text[begin : begin + 1] == "]"):
        return None
    if not text[begin:]:
        if whole:
            raise _NotRows(_line_at(text, place), "the array is not closed", "end it with ]")
        return None
    if found != sign:
        raise _NotRows(_line_at(text, place), "is not valid JSON: a comma or ] is missing")
    return begin


def _item_fault(text: str, begin: int, error: Exception) -> _NotRows:
    if isinstance(error, RecursionError):
        return _NotRows(_line_at(text, begin), "is nested too deeply", "flatten it")
    if isinstance(error, json.JSONDecodeError):
        return _NotRows(_line_at(text, error.pos), f"is not valid JSON: {error.msg}")
    return _NotRows(_line_at(text, begin), f"is not valid JSON: {error}")


def _is_cut_off(text: str, error: Exception) -> bool:
    """Whether the parser stopped for want of more text. A string is said to be unterminated at its beginning."""
    return isinstance(error, json.JSONDecodeError) and (
        error.pos >= len(text) - _LONGEST_TOKEN or "Unterminated string" in error.msg
    )


def _after_blanks(text: str, place: int) -> int:
    found = _blank.match(text, place)
    return found.end() if found else place


def _line_at(text: str, place: int) -> int:
    return text.count("\n", 0, place) + 1


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON value; write a number or null")


_decoder = json.JSONDecoder(parse_constant=_refuse_constant)
_blank = re.compile(r"[ \t\r\n]*")
