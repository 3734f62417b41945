"""What is counted while rows go by: shapes, roles, turns, lengths in characters, duplicates, and faults with their lines.

``Tally.conversations`` is on the fast path: it looks at rows by column, not one by one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from functools import reduce
from itertools import pairwise, repeat
from operator import add
from typing import Any

import msgspec

from tunesmith_workers.data.by_roles import Roles
from tunesmith_workers.data.duplicates import Duplicates
from tunesmith_workers.data.plain import Plain
from tunesmith_workers.data.shapes import Conversation, Reading, RowFault, texts_of

_MOST_PATTERNS = 1000
_MOST_NEW = 4000
_MOST_DISTINCT = 4000
_MOST_TURNS = 64
"""Rows with more messages than this are counted together."""


class Error(msgspec.Struct, frozen=True, kw_only=True):
    """A fault and its line."""

    line: int
    field: str | None
    message: str


class Lengths:
    """A histogram over powers of two: bin n holds lengths of n bits, so 0, 1, 2-3, 4-7, 8-15, ..."""

    def __init__(self) -> None:
        self._new: list[int] = []
        self._each: Counter[int] = Counter()
        """How often each length came: mostly it is one of the same few thousand."""
        self._bins: Counter[int] = Counter()
        self._count = self._total = self._longest = 0
        self._shortest: int | None = None

    def add(self, lengths: Iterable[int]) -> None:
        self._new += lengths
        if len(self._new) > _MOST_NEW:
            self._each.update(self._new)
            self._new.clear()
            if len(self._each) > _MOST_DISTINCT:
                self._fold()

    @property
    def count(self) -> int:
        self._fold()
        return self._count

    def told(self) -> dict[str, Any]:
        self._fold()
        return {
            "count": self._count,
            "total": self._total,
            "mean": round(self._total / self._count, 1) if self._count else 0,
            "min": self._shortest or 0,
            "max": self._longest,
            "histogram": [
                {"from": (1 << bits) >> 1, "to": max((1 << bits) - 1, 0), "count": self._bins[bits]}
                for bits in range(min(self._bins), max(self._bins) + 1)
            ]
            if self._bins
            else [],
        }

    def _fold(self) -> None:
        self._each.update(self._new)
        self._new.clear()
        if not self._each:
            return
        for length, count in self._each.items():
            self._bins[length.bit_length()] += count
            self._count += count
            self._total += length * count
        longest, shortest = max(self._each), min(self._each)
        self._longest = max(self._longest, longest)
        self._shortest = shortest if self._shortest is None else min(self._shortest, shortest)
        self._each.clear()


class Tally:
    """Counts rows, good and bad."""

    def __init__(self, duplicates: Duplicates, *, most_errors: int = 100) -> None:
        self.errors: list[Error] = []
        self.error_count = 0
        self.blank_lines = 0
        self.shapes: Counter[str] = Counter()
        self._duplicates = duplicates
        self._most_errors = most_errors
        self._faults: Counter[str] = Counter()
        self._patterns: Counter[Roles] = Counter()
        self._turns: Counter[int] = Counter()
        self._rows = Lengths()
        self._texts: dict[str, Lengths] = {}
        self._consecutive = 0

    @property
    def valid(self) -> int:
        return self.shapes.total()

    def conversations(self, shape: str, roles: Roles, columns: Sequence[Sequence[str]]) -> None:
        """Good rows of messages that have the same roles: all first contents, all second ones, and so on."""
        self._patterns[roles] += len(columns[0])
        self._columns(shape, roles, columns)
        self._duplicates.add(map(hash, zip(repeat(roles), *columns, strict=False)))

    def plain(self, rows: Plain) -> None:
        """Good rows of any shape, by column."""
        if rows.is_conversation:
            self.conversations(rows.shape, rows.names, rows.columns)
            return
        self._columns(rows.shape, rows.names, rows.columns)
        scores = repeat(None) if rows.scores is None else rows.scores
        said = zip(repeat(rows.shape), repeat(rows.names), *rows.columns, scores, strict=False)
        self._duplicates.add(map(hash, said))

    def readings(self, readings: Sequence[Reading]) -> None:
        """Good rows of any shape."""
        lengths: dict[str, list[int]] = {}
        rows: list[int] = []
        hashes: list[int] = []
        for reading in readings:
            texts = texts_of(reading)
            self.shapes[reading.shape] += 1
            rows.append(sum(len(text) for _, text in texts))
            for name, text in texts:
                lengths.setdefault(name, []).append(len(text))
            names, contents = zip(*texts, strict=True)
            if isinstance(reading, Conversation):
                self._patterns[names] += 1
                calls = [message["tool_calls"] for message in reading.messages if message.get("tool_calls")]
                marks = (msgspec.json.encode(calls),) if calls else ()
                hashes.append(hash((names, *contents, *marks)))
            else:
                hashes.append(hash((reading.shape, names, *contents, reading.score)))
        self._rows.add(rows)
        for name, some in lengths.items():
            self._lengths(name).add(some)
        self._duplicates.add(hashes)

    def keep_bounded(self) -> None:
        """Between batches: forget what has been summed up."""
        if len(self._patterns) > _MOST_PATTERNS:
            self._fold_patterns()

    def fault(self, line: int, fault: RowFault) -> None:
        self.error_count += 1
        self._faults[fault.kind] += 1
        if len(self.errors) < self._most_errors:
            self.errors.append(Error(line=line, field=fault.field, message=_printable(str(fault))))

    def stats(self) -> dict[str, Any]:
        """Everything, as plain values. Asked once, at the end."""
        self._fold_patterns()
        roles = {name: lengths for name, lengths in self._texts.items() if name in _ROLES}
        return {
            "shapes": dict(self.shapes.most_common()),
            "roles": {name: lengths.count for name, lengths in roles.items()},
            "turns": {str(turns): count for turns, count in sorted(self._turns.items())},
            "consecutive_turns": self._consecutive,
            "characters": {
                "row": self._rows.told(),
                **{name: lengths.told() for name, lengths in sorted(self._texts.items())},
            },
            "duplicates": self._duplicates.total(),
            "empty_contents": self._faults["empty_content"],
            "blank_lines": self.blank_lines,
            "faults": dict(self._faults.most_common()),
        }

    def _columns(self, shape: str, names: Roles, columns: Sequence[Sequence[str]]) -> None:
        self.shapes[shape] += len(columns[0])
        lengths = [list(map(len, column)) for column in columns]
        self._rows.add(reduce(_added, lengths))
        for name, column in zip(names, lengths, strict=True):
            self._lengths(name).add(column)

    def _lengths(self, name: str) -> Lengths:
        found = self._texts.get(name)
        if found is None:
            found = self._texts[name] = Lengths()
        return found

    def _fold_patterns(self) -> None:
        for roles, count in self._patterns.items():
            self._turns[min(len(roles), _MOST_TURNS)] += count
            self._consecutive += count * sum(a == b != "tool" for a, b in pairwise(roles))
        self._patterns.clear()


_ROLES = frozenset({"system", "developer", "user", "assistant", "tool"})


def _added(some: Iterable[int], others: Iterable[int]) -> list[int]:
    return list(map(add, some, others))


def _printable(text: str) -> str:
    return text.encode(errors="backslashreplace").decode()
