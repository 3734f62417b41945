"""Starts ``tunesmith serve`` where it must refuse, and answers what it says. Real processes only."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from support.server import clean_environment

_SECONDS = 5.0


def refusal(state: Path, *flags: str, user: int | None = None) -> str:
    """What a server on this folder writes before it ends with 1, at once.

    At once: hardly later than loading the program takes just before or just after, so that a busy machine is no failure.
    On an idle one that is well within two seconds.
    """
    before = _loading(user)
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "tunesmith", "serve", "--port", "0", *flags, "--state-dir", str(state)],
        env=clean_environment(),
        cwd="/",
        user=user,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    took = time.monotonic() - began
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    loading = max(before, _loading(user))
    assert took < 2 * loading + _SECONDS, f"took {took:.1f} s, loading alone {loading:.1f} s"
    return done.stderr


def _loading(user: int | None) -> float:
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", "import tunesmith.server.serve"], cwd="/", user=user, check=True, timeout=60)
    return time.monotonic() - began
