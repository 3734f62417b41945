"""Calling the command line on a real terminal, and reading what stays on its screen."""

from __future__ import annotations

import os
import pty
import re
import subprocess
from collections.abc import Mapping, Sequence

from support.server import clean_environment

_STYLES = re.compile(r"\x1b\[[0-9;]*m")


def on_terminal(command: Sequence[str], env: Mapping[str, str], *, columns: int = 80) -> str:
    """All that a program writes to a terminal of this width until it ends; colours and the like are still in it."""
    ours, theirs = pty.openpty()
    environment = clean_environment({"TERM": "xterm-256color", "COLUMNS": str(columns), **env})
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment) as process:
        os.close(theirs)
        seen = b""
        while piece := _read(ours):
            seen += piece
    os.close(ours)
    assert process.returncode == 0, seen.decode()
    return seen.decode().replace("\r\n", "\n")


def without_styles(text: str) -> str:
    """The text with bold, colours and the like taken out; any other escape sequence stays in it."""
    return _STYLES.sub("", text)


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:
        return b""  # the program has ended
