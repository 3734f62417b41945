"""Takes the fields of a request apart, and keeps everything that is wrong with them, by name.

A getter that finds a fault notes it and returns something harmless, so that the next field is looked at, too.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec

from tunesmith_workers.process.faults import WorkerFault

LONGEST_NAME = 200
_MOST_OTHERS = 20
"""More fields that are none are counted, not listed."""
_MEND = "docs/graders.md has the fields of every type"
_One = TypeVar("_One", bound=str)


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is wrong."""

    message: str
    where: str
    mend: str


class BadGrader(WorkerFault):
    """A grader cannot be used; ``faults`` says everything that is wrong with it."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        lines = [f"{one.where} {one.message}" for one in faults[:20]]
        more = [f"and {len(faults) - 20} more"] if len(faults) > 20 else []
        first = faults[0]
        super().__init__("; ".join([*lines, *more]), where=first.where, mend=first.mend)
        self.faults = tuple(faults)


class Fields:
    """The fields of one object of the request. ``faults`` is shared by all objects of a request."""

    def __init__(self, value: Any, where: str, faults: list[Fault]) -> None:
        self._value: dict[str, Any] = value if isinstance(value, dict) else {}
        self._asked: list[str] = []
        self.where = where
        self.faults = faults
        self.is_object = isinstance(value, dict)
        if not self.is_object:
            self.fault("", "is not a JSON object")

    def get(self, name: str) -> Any:
        """The value, or None."""
        self._asked.append(name)
        return self._value.get(name)

    def text(self, name: str, default: str | None = None, *, longest: int = LONGEST_NAME) -> str:
        value = self.get(name)
        if value is None and default is not None:
            return default
        if isinstance(value, str) and 0 < len(value) <= longest:
            return value
        if value is None:
            self.fault(name, "is required", mend="give it a text")
        else:
            self.fault(name, f"must be a text of 1 to {longest:,} characters")
        return ""

    def choice(self, name: str, choices: Sequence[_One]) -> _One:
        value = self.get(name)
        for one in choices:
            if value == one:
                return one
        self.fault(name, *_not_one_of(value, choices))
        return choices[0]

    def flag(self, name: str) -> bool:
        value = self.get(name)
        if value is None or isinstance(value, bool):
            return bool(value)
        self.fault(name, "must be true or false")
        return False

    def number(self, name: str, low: float = -math.inf, high: float = math.inf) -> float | None:
        value = self.get(name)
        if value is None or (is_number(value) and low <= value <= high):
            return value  # type: ignore[no-any-return]  # is_number saw it
        self.fault(name, f"must be a number between {low:g} and {high:g}" if high < math.inf else "must be a number")
        return None

    def whole(self, name: str, least: int) -> int | None:
        value = self.get(name)
        if value is None or (isinstance(value, int) and not isinstance(value, bool) and least <= value < 2**63):
            return value
        self.fault(name, f"must be a whole number, {least} at the least" if least >= 0 else "must be a whole number")
        return None

    def objects(self, name: str, most: int) -> list[Any]:
        """A list with something in it."""
        value = self.get(name)
        if isinstance(value, list) and 0 < len(value) <= most:
            return value
        self.fault(name, f"must be a list of 1 to {most} objects")
        return []

    def fault(self, name: str, message: str, mend: str | None = None) -> None:
        """``name`` may be a path below this object; nothing for the object itself."""
        where = f"{self.where}.{name}" if name else self.where
        self.faults.append(Fault(message=message, where=where, mend=mend or _MEND))

    def refuse_others(self) -> None:
        """Call it when all fields were asked for."""
        others = [name for name in self._value if name not in self._asked]
        for name in others[:_MOST_OTHERS]:
            near = difflib.get_close_matches(name[:100], self._asked, n=1)
            hint = f"did you mean {near[0]}?" if near else f"the fields are {', '.join(sorted(self._asked))}"
            self.fault(name[:100], "is no field of this grader", mend=hint)
        if len(others) > _MOST_OTHERS:
            self.fault("", f"has {len(others) - _MOST_OTHERS:,} more fields that are none of this grader's")


def is_number(value: Any) -> bool:
    """Whether it is a finite number that a float can be."""
    try:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:
        return False


def _not_one_of(value: Any, choices: Sequence[str]) -> tuple[str, str]:
    names = ", ".join(choices)
    if value is None:
        return "is required", f"give one of {names}"
    near = difflib.get_close_matches(value[:100], choices, n=1) if isinstance(value, str) else []
    return f"is not one of {names}", f"did you mean {near[0]}?" if near else f"choose from {names}"
