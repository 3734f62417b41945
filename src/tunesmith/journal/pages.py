"""One pager for every list: so many items at most, and no more bytes than an answer should have.

Lists of records go from the newest back, and a cursor is a position: a journal only ever grows (``page_of``). Lists of what
has a name and may come and go are in order of names, and a cursor is the last name of the page (``name_cursor``). Pages of a log
and of metrics.jsonl are none of these: they are parts of a file, and their cursor is a byte of it; see ``runner.logs``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from typing import Generic, NamedTuple, TypeVar

from tunesmith.errors import InvalidInput
from tunesmith.journal.journal import Journal
from tunesmith.records import Record

R = TypeVar("R", bound=Record)
S = TypeVar("S")
T = TypeVar("T")

PAGE_BYTES = 4 * 1024 * 1024
"""A page ends before the item that would go beyond this, however many were asked for. It has one at least."""


class Filled(NamedTuple, Generic[T]):
    """What fits one page, and the item that the next page begins with: None on the last one."""

    items: list[T]
    following: T | None


class Page(NamedTuple):
    """Ids in the order of the list, and where the next page begins: None on the last one."""

    ids: list[str]
    cursor: str | None


def fill(items: Iterable[T], *, limit: int, size_of: Callable[[T], int] = lambda _: 0) -> Filled[T]:
    """The first of these items, as far as they fit one page. Looks at no more than one beyond them."""
    found: list[T] = []
    size = 0
    for item in items:
        size += size_of(item)
        if len(found) == limit or (found and size > PAGE_BYTES):
            return Filled(found, item)
        found.append(item)
    return Filled(found, None)


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
    kept = (position for position in positions if keep(journal.summaries[ids[position]]))
    page = fill(kept, limit=limit, size_of=lambda at: journal.size_of(ids[at]) + more_bytes(ids[at]))
    return Page([ids[at] for at in page.items], str(page.following + 1) if page.following is not None else None)


def newest_first(ids: Sequence[str], cursor: str | None) -> range:
    """The positions from before the cursor back to the oldest; from the newest without one."""
    return range(position_before(ids, cursor) - 1, -1, -1)


def position_before(ids: Sequence[str], cursor: str | None) -> int:
    """One more than the newest position of a page."""
    return min(int(cursor), len(ids)) if cursor is not None and cursor.isdecimal() else len(ids)


def name_cursor(name: str) -> str:
    """What asks for those after a name, which may hold bytes that are no text."""
    return os.fsencode(name).hex()


def name_before(cursor: str | None) -> str:
    """The name after which a page begins; empty for the first page.

    Raises:
        InvalidInput: the cursor is none of ours.
    """
    if cursor is None:
        return ""
    try:
        return os.fsdecode(bytes.fromhex(cursor))
    except ValueError:
        raise InvalidInput("is not a cursor of this list", where="cursor", mend="leave it out to begin anew") from None
