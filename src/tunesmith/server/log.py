"""Where the server's own log goes: standard error, and beside that a file when standard error is a terminal.

Text for people, JSON for collectors. The logs of runs are none of this.
"""

from __future__ import annotations

import contextlib
import logging
import re
import sys
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Self, TextIO, cast

import structlog

from tunesmith.terminal import printable

_FILE_BYTES = 10 * 1024 * 1024
_OLDER_FILES = 3
_STYLES = re.compile(r"\x1b\[[0-9;]*m")


class ServerLog:
    """The output that structlog prints to. Where it leads to a full disk a line is lost, and not the work it tells of."""

    def __init__(self) -> None:
        self._file: _File | None = None

    @classmethod
    def configure(cls, *, as_json: bool) -> Self:
        """Have structlog write here from now on."""
        output = cls()
        structlog.configure(
            processors=[
                structlog.contextvars.merge_contextvars,
                structlog.processors.add_log_level,
                structlog.processors.TimeStamper(fmt="iso", utc=True),
                structlog.processors.format_exc_info,
                *(
                    [structlog.processors.JSONRenderer()]
                    if as_json
                    else [_escape_controls, structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())]
                ),
            ],
            wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
            logger_factory=structlog.PrintLoggerFactory(cast(TextIO, output)),
            cache_logger_on_first_use=True,
        )
        return output

    def keep_in(self, path: Path) -> None:
        """Write every line into this file, too; it is renamed to ``<name>.1`` and so on when it has become large."""
        self._file = _File(path, maxBytes=_FILE_BYTES, backupCount=_OLDER_FILES, encoding="utf-8", delay=True)

    def write(self, text: str) -> None:
        """A line, or the newline after it."""
        with contextlib.suppress(OSError):
            sys.stderr.write(text)
        if self._file is not None and text.strip():
            self._file.emit(logging.makeLogRecord({"msg": _STYLES.sub("", text.rstrip("\n"))}))

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            sys.stderr.flush()


class _File(RotatingFileHandler):
    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  # the standard library's name
        """A line that the disk does not take is on the terminal all the same."""


def _escape_controls(_logger: object, _method: str, fields: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Names that users gave must not steer the terminal that shows the log, nor begin a line of their own in it."""
    return {
        printable(name): printable(value, lines=name == "exception")
        if isinstance(value, str)
        else printable(repr(value))
        for name, value in fields.items()
    }
