"""``limit`` and ``cursor`` for lists that are short and have names: recipes, policies, keys.

The cursor is the last name of the page before, so what comes or goes between two pages repeats and skips nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Annotated, TypeVar

from litestar.params import QueryParameter

T = TypeVar("T")

NameCursor = Annotated[
    str | None,
    QueryParameter(max_length=10_000, pattern=r"^(?:[0-9a-f]{2})+$", description="`cursor` of the page before."),
]


def page_by_name(
    items: Iterable[T], name_of: Callable[[T], str], *, limit: int, cursor: str | None
) -> tuple[list[T], str | None]:
    """Up to ``limit`` items in order of their names, after the one that the cursor names; and the next cursor."""
    after = bytes.fromhex(cursor).decode(errors="surrogateescape") if cursor is not None else None
    ordered = sorted((item for item in items if after is None or name_of(item) > after), key=name_of)
    page = ordered[:limit]
    return page, name_of(page[-1]).encode(errors="surrogateescape").hex() if len(ordered) > limit else None
