"""One pager for every list of records: so many at most, and no more bytes than an answer should have."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, TypeVar

from tunesmith.journal.journal import Journal
from tunesmith.records import Record

R = TypeVar("R", bound=Record)
S = TypeVar("S")

PAGE_BYTES = 4 * 1024 * 1024
"""A page ends before the record that would go beyond this, however many were asked for. It has one record at least."""


class Page(NamedTuple):
    """Ids in the order of the list, and where the next page begins: None on the last one."""

    ids: list[str]
    cursor: str | None


def page_of(
    journal: Journal[R, S],
    ids: Sequence[str],
    positions: Iterable[int],
    *,
    limit: int,
    keep: Callable[[S], bool] = lambda _: True,
    more_bytes: Callable[[str], int] = lambda _: 0,
) -> Page:
    """Of the ids at these positions, in this order, those for which ``keep`` holds, as far as they fit one page.

    ``more_bytes`` is how much an answer has for an id beside its record. The cursor is one more than the position at which
    the next page begins, for lists that go from the newest back.
    """
    found: list[str] = []
    size = 0
    for position in positions:
        record_id = ids[position]
        if not keep(journal.summaries[record_id]):
            continue
        size += journal.size_of(record_id) + more_bytes(record_id)
        if len(found) == limit or (found and size > PAGE_BYTES):
            return Page(found, str(position + 1))
        found.append(record_id)
    return Page(found, None)


def newest_first(ids: Sequence[str], cursor: str | None) -> range:
    """The positions from before the cursor back to the oldest; from the newest without one."""
    before = int(cursor) if cursor is not None and cursor.isdecimal() else len(ids)
    return range(min(before, len(ids)) - 1, -1, -1)
