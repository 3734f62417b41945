"""``limit`` and ``cursor`` for lists that are short and have names: recipes, policies, keys.

The cursor is the last name of the page before, so what comes or goes between two pages repeats and skips nothing else.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterable
from typing import TypeVar

from tunesmith.errors import InvalidInput

T = TypeVar("T")


def page_by_name(
    items: Iterable[T], name_of: Callable[[T], str], *, limit: int, cursor: str | None
) -> tuple[list[T], str | None]:
    """Up to ``limit`` items in order of their names, after the one that the cursor names; and the next cursor.

    Raises:
        InvalidInput: the cursor is none of ours.
    """
    after = _name_in(cursor) if cursor is not None else None
    ordered = sorted((item for item in items if after is None or name_of(item) > after), key=name_of)
    page = ordered[:limit]
    return page, _cursor_of(name_of(page[-1])) if len(ordered) > limit else None


def _cursor_of(name: str) -> str:
    return base64.urlsafe_b64encode(name.encode(errors="surrogateescape")).rstrip(b"=").decode()


def _name_in(cursor: str) -> str:
    try:
        return base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode(
            errors="surrogateescape"
        )
    except (binascii.Error, ValueError):
        raise InvalidInput("is not a cursor of this list", where="cursor", mend="leave it out to begin anew") from None
