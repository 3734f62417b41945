"""Marks as clients ask for them, and how they are put to others. Pure.

What a tag may not mean besides is checked by the book, which knows who goes by which name.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from tunesmith.errors import InvalidInput
from tunesmith.recipes.notes import check_notes
from tunesmith.records import IdempotentCall, Mark

_MOST_MARKS = 100
_MOST_CALLS = 100
"""The keys that one mark remembers: the latest of them."""

Name = Annotated[str, msgspec.Meta(max_length=500)]


class MarkRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A mark as a client asks for it."""

    run_id: str
    ckpt_path: str
    tag_type: Name
    """Such as ``candidate_base`` or ``release``."""
    release_tag: Name | None = None
    """A name; it is a model reference from then on."""
    metrics: dict[str, Any] = {}


def check(request: MarkRequest) -> None:
    """Raises InvalidInput for a tag that is no name, and what ``check_notes`` raises of the metrics."""
    for field in ("tag_type", "release_tag"):
        tag = getattr(request, field)
        if tag is not None and not tag.strip():
            raise InvalidInput(
                "must not be empty", where=field, mend="leave it out" if field == "release_tag" else "such as candidate"
            )
        if tag is not None and not tag.isprintable():
            raise InvalidInput("must not hold control characters", where=field, mend="use letters, digits, - and _")
    check_notes(request.metrics, "metrics", instead="keep a report as a file, and its figures here")


def with_mark(marks: tuple[Mark, ...], mark: Mark) -> tuple[Mark, ...]:
    """One more mark; it takes the place of the one with the same release tag, or without any, of the same type.

    It remembers the calls that made that one: a late repeat of one of them must not undo this mark.

    Raises:
        InvalidInput: there are too many.
    """
    others = tuple(one for one in marks if _name(one) != _name(mark))
    if len(others) >= _MOST_MARKS:
        raise InvalidInput(f"a checkpoint may have {_MOST_MARKS} marks", where="tag_type", mend="mark another one")
    calls = [call for one in marks if _name(one) == _name(mark) for call in one.idempotency]
    return (*others, msgspec.structs.replace(mark, idempotency=(*calls, *mark.idempotency)[-_MOST_CALLS:]))


def made_by(call: IdempotentCall, marks: tuple[Mark, ...]) -> Mark:
    """The one of these marks that this call, or an earlier one with the same key, has made."""
    wanted = (call.scope, call.key, call.request_sha256)
    return next(
        mark for mark in marks if any((one.scope, one.key, one.request_sha256) == wanted for one in mark.idempotency)
    )


def _name(mark: Mark) -> tuple[str, str | None]:
    return ("" if mark.release_tag is not None else mark.tag_type, mark.release_tag)
