"""What is counted while rows go by: shapes, roles, turns, lengths in characters, duplicates, and faults with their lines.

``Tally.conversations`` is on the fast path: it looks at rows by column, not one by one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise, repeat
from typing import Any

import msgspec

from tunesmith_workers.data.duplicates import Duplicates
from tunesmith_workers.data.fast import Roles
from tunesmith_workers.data.shapes import Conversation, Reading, RowFault, texts_of

_MOST_PATTERNS = 1000
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
        self.bins: Counter[int] = Counter()
        self.count = self.total = self.longest = 0
        self.shortest: int | None = None

    def add(self, lengths: Sequence[int]) -> None:
        if not lengths:
            return
        self.bins.update(map(int.bit_length, lengths))
        self.count += len(lengths)
        self.total += sum(lengths)
        longest, shortest = max(lengths), min(lengths)
        self.longest = max(self.longest, longest)
        self.shortest = shortest if self.shortest is None else min(self.shortest, shortest)

    def told(self) -> dict[str, Any]:
        return {
            "count": self.count,
            "total": self.total,
            "mean": round(self.total / self.count, 1) if self.count else 0,
            "min": self.shortest or 0,
            "max": self.longest,
            "histogram": [
                {"from": (1 << bits) >> 1, "to": max((1 << bits) - 1, 0), "count": self.bins[bits]}
                for bits in range(min(self.bins), max(self.bins) + 1)
            ]
            if self.bins
            else [],
        }


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

    def conversations(self, shape: str, roles: Roles, contents: Sequence[Sequence[str]]) -> None:
        """Good rows of messages that have the same roles, each as its contents."""
        self.shapes[shape] += len(contents)
        self._patterns[roles] += len(contents)
        columns = list(zip(*contents, strict=True))
        lengths = [list(map(len, column)) for column in columns]
        self._rows.add(list(map(sum, zip(*lengths, strict=True))))
        for role, column in zip(roles, lengths, strict=True):
            self._lengths(role).add(column)
        self._duplicates.add(map(hash, zip(repeat(roles), *columns, strict=False)))

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


def _printable(text: str) -> str:
    return text.encode(errors="backslashreplace").decode()
