"""What a run reported that it wrote, by ``artifact``, ``checkpoint`` and ``result`` events. Part of the fold; looks at no file.

Only what lies in the run's folder counts. Whether it is there is looked up when somebody asks; see ``run_files``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import msgspec

MOST_REPORTED = 10_000
"""So many places are kept of one run, and so many bytes of their names: the newest, for results are reported last."""
_MOST_BYTES = 1024 * 1024
"""As they are written down."""
_LONGEST_KIND = 40
_NOT_BELOW = frozenset({"", ".", ".."})


class Reported:
    """Files, and folders that hold one kind of thing, by their place below the run's folder."""

    def __init__(self, folder: Path, kinds: Mapping[str, str] = MappingProxyType({})) -> None:
        """``folder`` with no link in it; ``kinds`` as they were kept where the run could change them."""
        self._folder = folder
        self._kinds: dict[str, str] = {}
        self._bytes = 0
        for place, kind in kinds.items():
            if not _NOT_BELOW & set(place.split("/")) and "\0" not in place and len(kind) <= _LONGEST_KIND:
                self._note(place, kind)

    @property
    def kinds(self) -> dict[str, str]:
        """What each place is for; a copy, which can be had from any thread."""
        return dict(self._kinds)

    def take(self, kind: str, fields: Mapping[str, Any]) -> None:
        """Advance by one event."""
        for path, what in _named_by(kind, fields):
            place = self._place_of(path)
            if place:
                self._note(place, what)

    def _note(self, place: str, what: str) -> None:
        known = self._kinds.pop(place, None)
        self._bytes -= _size(place) if known is not None else 0
        if what == "checkpoint" and place.startswith("checkpoints/"):
            return  # it is listed as that anyway, and there may be very many of them
        self._kinds[place] = what
        self._bytes += _size(place)
        while len(self._kinds) > MOST_REPORTED or self._bytes > _MOST_BYTES:
            oldest = next(iter(self._kinds))
            del self._kinds[oldest]
            self._bytes -= _size(oldest)

    def _place_of(self, path: str) -> str:
        """Where a path lies in the folder; empty when it does not, or is the folder itself."""
        absolute = Path(os.path.abspath(path))  # noqa: PTH100  # links must not be followed; those there are get refused
        if not absolute.is_relative_to(self._folder):
            return ""
        return "/".join(absolute.relative_to(self._folder).parts)


def _size(place: str) -> int:
    return len(msgspec.json.encode(place))


def _named_by(kind: str, fields: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if kind == "artifact":
        said = fields.get("kind")
        named = [("path", said if isinstance(said, str) and 0 < len(said) <= _LONGEST_KIND else "file")]
    elif kind == "checkpoint":
        named = [("path", "checkpoint")]
    else:
        named = [("model", "model"), ("report", "report")] if kind == "result" else []
    for field, what in named:
        path = fields.get(field)
        if isinstance(path, str) and path and "\0" not in path:
            yield path, what
