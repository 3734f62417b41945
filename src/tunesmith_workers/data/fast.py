"""The fast way to know that rows are good: one typed decoding, and a look at the texts by column.

It says yes or "look closer", never what is wrong; whatever it does not vouch for is read by ``shapes``, and what it does
vouch for is read as ``shapes`` would.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import Any, Literal, Protocol

import msgspec
from msgspec import UNSET, UnsetType

from tunesmith_workers.data.by_roles import SameRoles, Wanted, group_by_roles
from tunesmith_workers.data.plain import KINDS, Kind, Plain, has_usual_names


class Sorted(msgspec.Struct, frozen=True, gc=False):
    """Rows by how much has still to be done with them."""

    good: Sequence[SameRoles]
    """``messages`` by their usual names: in processing, they go out as they came."""
    plain: Sequence[Plain]
    """Good, too; in processing, they are written anew."""
    doubtful: Sequence[int]
    """The places of those to look at closely, in order."""

    def others(self) -> Iterator[Plain | Sequence[int]]:
        """What is plain and what is doubtful, in the order of first rows: what is counted keeps the order it is met in."""
        begin = 0
        for plain in sorted(self.plain, key=lambda one: one.places[0]):
            end = bisect_left(self.doubtful, plain.places[0])
            if begin < end:
                yield self.doubtful[begin:end]
            yield plain
            begin = end
        if begin < len(self.doubtful):
            yield self.doubtful[begin:]


class _Message(msgspec.Struct, gc=False):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str
    tool_calls: UnsetType = UNSET
    function_call: UnsetType = UNSET
    weight: UnsetType = UNSET


class _Row(msgspec.Struct, gc=False):
    messages: list[_Message]
    system: UnsetType = UNSET
    tools: list[dict[str, msgspec.Raw]] | None = None
    functions: UnsetType = UNSET


_REFUSALS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_decode = msgspec.json.Decoder(_Row).decode


class Sorting(Protocol):
    """A way to sort rows out. Whichever it is, what comes of them is the same."""

    def __call__(self, rows: Sequence[bytes], wanted: Wanted, kinds: Sequence[Kind] = KINDS) -> Sorted: ...


def sort_out(rows: Sequence[bytes], wanted: Wanted, kinds: Sequence[Kind] = KINDS) -> Sorted:
    """Tell the rows that are good, and have ``wanted`` roles, from the others. ``kinds`` are the plain ones."""
    try:
        found = list(map(_decode, rows))
    except _REFUSALS:
        return _of_one_kind(rows, wanted, kinds) or _one_by_one(rows, wanted, kinds)
    good, doubtful = group_by_roles([row.messages for row in found], range(len(rows)), wanted)
    return Sorted(good, (), sorted(doubtful))


def look_closely(rows: Sequence[bytes], wanted: Wanted, kinds: Sequence[Kind] = KINDS) -> Sorted:  # noqa: ARG001  # a Sorting
    """Vouch for nothing."""
    return Sorted((), (), range(len(rows)))


def _of_one_kind(rows: Sequence[bytes], wanted: Wanted, kinds: Sequence[Kind]) -> Sorted | None:
    """When all rows are of the first one's kind, and none may go out as it came."""
    kind = _likely(rows[0], kinds)
    if kind is None:
        return None
    try:
        found = list(map(kind.decode, rows))
    except _REFUSALS:
        return None
    if kind.shape == "messages" and any(map(has_usual_names, found)):
        return None
    plain, doubtful = kind.sort_out(found, range(len(rows)), wanted)
    return Sorted((), plain, sorted(doubtful))


def _one_by_one(rows: Sequence[bytes], wanted: Wanted, kinds: Sequence[Kind]) -> Sorted:
    found: dict[Kind | None, dict[int, Any]] = {None: {}}
    """``messages`` with the usual names under None."""
    doubtful: list[int] = []
    for place, row in enumerate(rows):
        kind = _likely(row, kinds)
        for attempt in (kind, None) if kind else (None,):
            try:
                value = attempt.decode(row) if attempt else _decode(row)
            except _REFUSALS:
                continue
            usual = attempt and attempt.shape == "messages" and has_usual_names(value)
            found.setdefault(None if usual else attempt, {})[place] = value
            break
        else:
            doubtful.append(place)
    as_they_came = found.pop(None)
    good, others = group_by_roles([row.messages for row in as_they_came.values()], list(as_they_came), wanted)
    doubtful += others
    plain: list[Plain] = []
    for kind, values in found.items():
        assert kind is not None, "taken out above"
        some, others = kind.sort_out(list(values.values()), list(values), wanted)
        plain += some
        doubtful += others
    return Sorted(good, plain, sorted(doubtful))


def _likely(row: bytes, kinds: Sequence[Kind]) -> Kind | None:
    return next((kind for kind in kinds if kind.sign in row), None)
