"""Reads data files into rows for training: every row at once, and every fault with its line.

What a row means is decided in ``data.shapes``, so that what validates is what trains; here a row becomes a conversation
or a prompt with its completion. What a model sees of it is decided in ``rendering``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from tunesmith_workers.data.explain import decoded
from tunesmith_workers.data.reader import Batch, DataFile, NotData, data_files, open_regular
from tunesmith_workers.data.shapes import ROLES, Conversation, Message, RowFault, is_trained, read
from tunesmith_workers.process.faults import BadRows, listed

__all__ = ["ROLES", "Message", "Row", "is_trained", "read_all", "read_rows", "shapes_of"]


AnyRow = TypeVar("AnyRow")


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One row: ``messages``, or ``prompt`` and ``completion``."""

    where: str
    """``file:line``, with the number of the item in a JSON array."""
    shape: str
    messages: tuple[Message, ...] = ()
    tools: tuple[Any, ...] = ()
    prompt: str = ""
    completion: str = ""


def read_rows(path: Path, most: int | None = None) -> list[Row]:
    """Every row of the file, or of all files in a folder by name; or the first ``most``.

    Raises:
        BadRows: the file is missing, empty or unreadable, or some rows are wrong: all of them are named at once.
    """
    return read_all(path, _as_row, most)


def read_all(path: Path, meaning: Callable[[Any, str], AnyRow], most: int | None = None) -> list[AnyRow]:
    """What ``meaning`` makes of every row's JSON and its place; a RowFault of it is gathered with the others.

    Raises:
        BadRows: as ``read_rows``.
    """
    rows: list[AnyRow] = []
    faults: list[str] = []
    for where, found in chain.from_iterable(map(_rows, data_files(path))):
        if len(rows) + len(faults) == most:
            break
        try:
            if isinstance(found, str):
                raise RowFault(found, kind="unreadable")  # noqa: TRY301  # gathered with the other faults
            rows.append(meaning(decoded(found), where))
        except RowFault as fault:
            faults.append(f"{where}: {fault}")
    if faults:
        plural = "one row cannot" if len(faults) == 1 else f"{len(faults)} rows cannot"
        first = faults[0].partition(": ")[0]
        raise BadRows(f"{plural} be used:\n{listed(faults)}", where=first, mend="fix or remove them")
    if not rows:
        raise BadRows("holds no rows", where=str(path), mend="give a file with one JSON object on each line")
    return rows


def shapes_of(rows: list[Row]) -> str:
    """How many rows have which shape, in words."""
    return ", ".join(f"{count} {shape}" for shape, count in Counter(row.shape for row in rows).most_common())


def _rows(path: Path) -> Iterator[tuple[str, bytes | str]]:
    """Each row's place and its bytes, or what is wrong there."""
    with open_regular(path.resolve()) as file:
        try:
            data = DataFile(file)
        except NotData as refusal:
            raise BadRows(refusal.message, where=str(path), mend=refusal.mend) from None
        item = 0
        for part in data.parts():
            if not isinstance(part, Batch):
                yield f"{path}:{part.line}", part.message
                continue
            for line, row in zip(part.lines, part.rows, strict=True):
                item += 1
                if row.strip() or not part.may_be_blank:
                    yield f"{path}:{line}" + (f" (item {item})" if data.is_array else ""), row


def _as_row(value: Any, where: str) -> Row:
    reading = read(value)
    if isinstance(reading, Conversation):
        return Row(where=where, shape=reading.shape, messages=tuple(reading.messages), tools=tuple(reading.tools))
    prompt, completion = reading.fields.get("prompt"), reading.fields.get("completion")
    if not isinstance(prompt, str) or not isinstance(completion, str):
        raise RowFault(
            f"has the shape {reading.shape}, which this recipe does not train on; it takes messages, conversations, "
            "instruction/input/output, or prompt/completion",
            kind="other_shape",
        )
    return Row(where=where, shape=reading.shape, prompt=prompt, completion=completion)
