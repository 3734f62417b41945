"""Checks a data file: how many rows can be used, what is wrong with the others and on which line, and what is in it.

Run as ``python -m tunesmith_workers.data.validate`` with the request on standard input. Nothing is written.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from tunesmith_workers.data.by_roles import Roles, Wanted, teaches
from tunesmith_workers.data.duplicates import Duplicates
from tunesmith_workers.data.explain import decoded
from tunesmith_workers.data.fast import Sorted, Sorting, look_closely, sort_out
from tunesmith_workers.data.plain import KINDS, Kind, Plain
from tunesmith_workers.data.reader import LONGEST_ROW, Batch, NotData, open_regular
from tunesmith_workers.data.shapes import Reading, RowFault, Shape, read
from tunesmith_workers.data.tables import Source, open_data
from tunesmith_workers.data.tally import Tally
from tunesmith_workers.data.worker import serve
from tunesmith_workers.process.events import Paced


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked."""

    file: str
    max_errors: int = 100
    longest_row: int = LONGEST_ROW
    shapes: list[Shape] | None = None
    """Rows of another shape are faults; without it, there are none. With ``prompt``, ``messages`` that do not end with an
    answer are a prompt.
    """
    scratch: str | None = None
    """A folder on a disk with some room; the system's folder for temporary files without it."""


def validate(request: Request, sorting: Sorting = sort_out) -> dict[str, Any]:
    """The verdict on a file.

    Raises:
        BadRows: there is no such file.
    """
    duplicates = Duplicates(Path(request.scratch) if request.scratch else None)
    tally = Tally(duplicates, most_errors=request.max_errors)
    with open_regular(Path(request.file)) as file:
        size = os.fstat(file.fileno()).st_size
        try:
            data = open_data(file, Path(request.file).name, longest_row=request.longest_row)
            format_name = data.format
            _look_at_all(data, tally, _Looking(sorting, request.shapes))
        except NotData as refusal:
            format_name = "unknown"
            tally.fault(1, RowFault(f"the file {refusal.message}; {refusal.mend}", kind="not_data"))
    if not tally.valid and not tally.error_count:
        tally.fault(1, RowFault("the file holds no rows", kind="no_rows"))
    stats = {"bytes": size, **tally.stats()}
    duplicates.close()
    file_faults = stats["faults"].get("not_data", 0) + stats["faults"].get("no_rows", 0)
    return {
        "valid": tally.error_count == 0,
        "format": format_name,
        "total": tally.valid + tally.error_count - file_faults,
        "valid_count": tally.valid,
        "error_count": tally.error_count,
        "errors": msgspec.to_builtins(tally.errors),
        "stats": stats,
    }


class _Looking:
    """How rows are looked at, fast where they can be vouched for, and which of them are taken."""

    def __init__(self, sorting: Sorting, shapes: Sequence[Shape] | None) -> None:
        self._sorting = sorting
        self._shapes = shapes
        self._wanted: Wanted = teaches if shapes is None or "messages" in shapes else _none
        if shapes is not None and "prompt" in shapes and "messages" in shapes:
            self._wanted = _ends_with_answer
        self._kinds: Sequence[Kind] = [kind for kind in KINDS if shapes is None or kind.shape in shapes]

    def sort_out(self, batch: Batch) -> Sorted:
        return (self._sorting if batch.is_utf8 else look_closely)(batch.rows, self._wanted, self._kinds)

    def closely(self, row: bytes) -> Reading:
        """Raises RowFault."""
        return read(decoded(row), shapes=self._shapes)


def _none(_roles: Roles) -> bool:
    return False


def _ends_with_answer(roles: Roles) -> bool:
    return roles[-1:] == ("assistant",)


def _look_at_all(data: Source, tally: Tally, looking: _Looking) -> None:
    paced = Paced()
    done = 0

    def heard(block: bytes) -> None:
        nonlocal done
        done += len(block)

    for part in data.parts(heard):
        if isinstance(part, Batch):
            _look_at(part, tally, looking)
            paced.emit("progress", phase="validating", bytes=done, total_bytes=data.size)
        else:
            message = f"{part.message}; {part.mend}" if part.mend else part.message
            tally.fault(part.line, RowFault(message, kind=part.kind))


def _look_at(batch: Batch, tally: Tally, looking: _Looking) -> None:
    found = looking.sort_out(batch)
    for good in found.good:
        tally.conversations("messages", good.roles, good.columns)
    for part in found.others():
        if isinstance(part, Plain):
            tally.plain(part)
        else:
            readings = (_look_closely(batch, place, tally, looking) for place in part)
            tally.readings([reading for reading in readings if reading is not None])
    tally.keep_bounded()


def _look_closely(batch: Batch, place: int, tally: Tally, looking: _Looking) -> Reading | None:
    row = batch.rows[place]
    if batch.may_be_blank and not row.strip():
        tally.blank_lines += 1
        return None
    try:
        return looking.closely(row)
    except RowFault as fault:
        tally.fault(batch.lines[place], fault)
        return None


if __name__ == "__main__":
    serve(Request, validate)
