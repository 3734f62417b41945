"""How serious a log line is: by the level of a message event, otherwise by how programs usually begin such lines.

Every line is judged by itself, so that a page needs nothing that came before it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType

from tunesmith.contract.events import read_line
from tunesmith.runner.logs.tail import Line

_LONGEST_PREFIX = 400
"""Whatever says how serious a line is stands near its beginning."""


class LogLevel(StrEnum):
    """From the least serious on."""

    DEBUG = "debug"
    INFO = "info"  # also whatever says nothing about itself, and all events but messages
    WARNING = "warning"
    ERROR = "error"

    @classmethod
    def _missing_(cls, value: object) -> LogLevel | None:
        return _WORDS.get(value.lower()) if isinstance(value, str) else None

    def reaches(self, least: LogLevel) -> bool:
        order = tuple(LogLevel)
        return order.index(self) >= order.index(least)


_WORDS: Mapping[str, LogLevel] = MappingProxyType(
    {
        **{str(level): level for level in LogLevel},
        "trace": LogLevel.DEBUG,
        "notice": LogLevel.INFO,
        "warn": LogLevel.WARNING,
        "critical": LogLevel.ERROR,
        "fatal": LogLevel.ERROR,
    }
)
_GLOG = MappingProxyType(
    {"I": LogLevel.INFO, "W": LogLevel.WARNING, "E": LogLevel.ERROR, "F": LogLevel.ERROR, "C": LogLevel.ERROR}
)
_ANY_WORD = "|".join(_WORDS)

# `2026-11-20 21:00:00,123 - trainer - ERROR - text`, `WARNING:root:text`, `[WARNING|trainer.py:12] text`: the word in
# capitals, after at most a date, a time and a name that ends with a separator.
_IN_CAPITALS = re.compile(
    rf"\W*(?:\d[\w:.,+/-]*\W+){{0,2}}(?:[\w.]+(?:\s+-|:|\||\])\W*)?({_ANY_WORD.upper()})(?![A-Za-z0-9_])"
)
# `error: text`, `bash: Error: text`
_WITH_COLON = re.compile(rf"\s*(?:[\w./-]+: )?(?i:({_ANY_WORD})): ")
# `W1120 21:00:00.000000 text`, with a bracket before it as torch prints it
_AS_GLOG = re.compile(r"\W*(?:rank\d+\W+)?([IWEFC])\d{4} \d\d:\d\d:\d\d")
_PYTHON_ERROR = re.compile(
    r"""\W*(?:rank\d+\]:\s*)?(?:
        Traceback\ \(most\ recent\ call\ last\)
      | File\ ".*",\ line\ \d
      | (?:[A-Za-z_]\w*\.)*[A-Z]\w*(?:Error|Exception|Interrupt)(?::|$)
    )""",
    re.VERBOSE,
)
_PYTHON_WARNING = re.compile(r"(?:.*?:\ ?\d+:\s)?(?:[A-Za-z_]\w*\.)*[A-Z]\w*Warning:")


def level_of(line: Line) -> LogLevel:
    """The level of one line as it was printed."""
    event = read_line(line.content)
    if event is not None:
        kind, fields = event
        said = fields.get("level") if kind == "message" else None
        return _WORDS.get(said.lower(), LogLevel.INFO) if isinstance(said, str) else LogLevel.INFO
    # A progress bar that shares the line rewinds with a carriage return before the rest is printed.
    return _level_of_text(line.text.rpartition("\r")[2][:_LONGEST_PREFIX])


def _level_of_text(text: str) -> LogLevel:
    if _PYTHON_ERROR.match(text):
        return LogLevel.ERROR
    if _PYTHON_WARNING.match(text):
        return LogLevel.WARNING
    if found := _AS_GLOG.match(text):
        return _GLOG[found[1]]
    found = _IN_CAPITALS.match(text) or _WITH_COLON.match(text)
    return _WORDS[found[1].lower()] if found else LogLevel.INFO
