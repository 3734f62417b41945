"""Calling the command line in a process of its own, as a user does."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from support.server import clean_environment


class Cli:
    """``tunesmith``, called from one folder with some variables; each call may add to both."""

    def __init__(self, folder: Path, env: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        self._env = dict(env or {})

    def __call__(
        self, *args: object, cwd: Path | None = None, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run to the end; output is text."""
        return subprocess.run(
            command(*args),
            cwd=cwd or self.folder,
            env=clean_environment({**self._env, **(env or {})}),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )

    def start(self, *args: object, env: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
        """Start and leave it running; both outputs are pipes."""
        return subprocess.Popen(
            command(*args),
            cwd=self.folder,
            env=clean_environment({**self._env, **(env or {})}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )


def command(*args: object) -> list[str]:
    return [sys.executable, "-m", "tunesmith", *map(str, args)]
