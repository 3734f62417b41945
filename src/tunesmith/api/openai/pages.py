"""Pages as OpenAI's clients turn them: ``after`` is the id of the last item that they have, ``has_more`` says whether to go on.

A page without ``has_more``, or one that passes over ``after``, makes them turn pages for ever.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Annotated, Literal, NamedTuple, TypeVar

from litestar.params import QueryParameter

T = TypeVar("T")

After = Annotated[str | None, QueryParameter(max_length=200, description="The id of the last item of the page before.")]
Order = Annotated[Literal["asc", "desc"], QueryParameter(description="By time: oldest or newest first.")]


class Slice(NamedTuple):
    """The ids of a page, and whether there are more."""

    ids: list[str]
    has_more: bool


def page_of_ids(
    ids: Sequence[str],
    *,
    after: str | None,
    limit: int,
    newest_first: bool = True,
    keep: Callable[[str], bool] = lambda _: True,
) -> Slice:
    """Up to ``limit`` of these ids, which are in order. ``after`` may name one that is gone: its place is known by its id."""
    if newest_first:
        end = bisect_left(ids, after) if after is not None else len(ids)
        found: Iterable[int] = range(end - 1, -1, -1)
    else:
        found = range(bisect_right(ids, after) if after is not None else 0, len(ids))
    page, has_more = first_of((ids[place] for place in found if keep(ids[place])), limit)
    return Slice(page, has_more)


def first_of(items: Iterable[T], limit: int) -> tuple[list[T], bool]:
    """The first items, and whether there are more."""
    page = list(islice(items, limit + 1))
    return page[:limit], len(page) > limit
