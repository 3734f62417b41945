"""What reading a row tells besides what the row means: that it cannot be used, or what was taken for granted."""

from __future__ import annotations

Changes = list[str]
"""What reading a row took for granted, one name for each time; counted by whoever wants to know."""


class RowFault(Exception):
    """What is wrong with one row, in words that go on from its place: "has no known shape"."""

    def __init__(self, message: str, *, kind: str, field: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.kind = kind
        """A short name that faults are counted by."""
        self.field = field
