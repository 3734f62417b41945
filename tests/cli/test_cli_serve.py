"""`tunesmith serve` on a terminal, as a person starts it by hand."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
from pathlib import Path

import httpx

from support.commands import command
from support.server import clean_environment, polled
from tunesmith.server.state_lock import holder


def _serve(folder: Path, *, terminal: bool) -> tuple[bytes, int]:
    """What it shows from start to stop, and its exit code."""
    words = command("serve", "--port", "0", "--state-dir", folder / "state", "--recipes-dir", folder / "recipes")
    (folder / "recipes").mkdir()
    ours, theirs = pty.openpty() if terminal else os.pipe()
    environment = clean_environment({"TERM": "xterm-256color"})
    with subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs, env=environment) as server:
        os.close(theirs)
        assert any(polled(lambda: _healthy(folder / "state" / "lock")))
        server.send_signal(signal.SIGTERM)
        shown = b""
        while piece := _rest(ours):
            shown += piece
    os.close(ours)
    return shown, server.returncode


def _healthy(lock: Path) -> bool:
    held_by = holder(lock)
    if held_by is None or held_by.address is None:
        return False
    try:
        return httpx.get(f"{held_by.address}/healthz", trust_env=False).is_success
    except httpx.HTTPError:
        return False


def _rest(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65536)
    except OSError:
        return b""  # a terminal whose other end is closed


def test_on_a_terminal_the_log_is_kept_in_a_file(tmp_path: Path) -> None:
    """What scrolls away is in state/server.log, without colours, readable by its owner only."""
    shown, code = _serve(tmp_path, terminal=True)
    assert code == 0
    assert b"\x1b[" in shown
    log = tmp_path / "state" / "server.log"
    lines = log.read_text().splitlines()
    assert "serving" in lines[0]
    assert "stopped" in lines[-1]
    assert "\x1b" not in log.read_text()
    assert log.stat().st_mode & 0o777 == 0o600


def test_elsewhere_the_log_is_on_standard_error_only(tmp_path: Path) -> None:
    """Under systemd or in a container somebody else keeps it: there is no second copy."""
    shown, code = _serve(tmp_path, terminal=False)
    assert code == 0
    assert b"serving" in shown
    assert b"\x1b" not in shown
    assert not (tmp_path / "state" / "server.log").exists()
