"""Log files, whoever writes them: reading one while it grows, in pages, by line number, by level.

Knows the line format and nothing of runs.
"""

from tunesmith.runner.logs.levels import LogLevel
from tunesmith.runner.logs.pages import (
    LogFilter,
    LogLine,
    LogPage,
    MetricsPage,
    latest_lines,
    read_log,
    read_metrics,
)
from tunesmith.runner.logs.tail import LONGEST_LINE, Line, LogReader, log_size, open_log

__all__ = [
    "LONGEST_LINE",
    "Line",
    "LogFilter",
    "LogLevel",
    "LogLine",
    "LogPage",
    "LogReader",
    "MetricsPage",
    "latest_lines",
    "log_size",
    "open_log",
    "read_log",
    "read_metrics",
]
