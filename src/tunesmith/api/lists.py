"""``limit`` and ``cursor`` for lists that are short and have names: recipes, policies, keys. And the next page of lists that
are plain arrays.

The cursor is the last name of the page before, so what comes or goes between two pages repeats and skips nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Annotated, TypeVar
from urllib.parse import urlencode

from litestar.params import QueryParameter

from tunesmith.api.services import HttpRequest
from tunesmith.journal import fill, name_before, name_cursor

T = TypeVar("T")

NameCursor = Annotated[
    str | None,
    QueryParameter(max_length=10_000, pattern=r"^(?:[0-9a-f]{2})+$", description="`cursor` of the page before."),
]


def page_by_name(
    items: Iterable[T], name_of: Callable[[T], str], *, limit: int, cursor: str | None
) -> tuple[list[T], str | None]:
    """Up to ``limit`` items in order of their names, after the one that the cursor names; and the next cursor."""
    after = name_before(cursor)
    page = fill(sorted((item for item in items if name_of(item) > after), key=name_of), limit=limit)
    return page.items, name_cursor(name_of(page.items[-1])) if page.following is not None else None


def next_page(request: HttpRequest, cursor: str | None) -> dict[str, str]:
    """The header for an answer that is a plain array, as RFC 8288 has it: the same query, further on."""
    if cursor is None:
        return {}
    query = [(name, value) for name, value in request.query_params.multi_items() if name != "cursor"]
    return {"Link": f'<{request.url.path}?{urlencode([*query, ("cursor", cursor)])}>; rel="next"'}
