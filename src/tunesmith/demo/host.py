"""The service that the demo talks to: the one that already holds the state folder, or one started for as long as needed."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from tunesmith.cli.client import Service, address_of, locator
from tunesmith.demo import interrupts
from tunesmith.errors import Unavailable
from tunesmith.paths import StatePaths
from tunesmith.server.state_lock import holder
from tunesmith.settings import Settings

_READY_SECONDS = 30.0
_STOP_SECONDS = 20.0
_POLL_SECONDS = 0.02
_LAST_BYTES = 2000


class Host(msgspec.Struct, frozen=True, kw_only=True):
    """A service that answers."""

    url: str
    is_ours: bool
    """Whether it ends with the demo."""


@contextmanager
def hosting(settings: Settings, log: Path) -> Iterator[Host]:
    """A service on the settings' state folder.

    Raises:
        Unavailable: it did not come up; with the end of what it printed.
    """
    address = address_of(settings.state_dir)
    if address is not None:
        yield Host(url=address, is_ours=False)
        return
    command = [sys.executable, "-m", "tunesmith", "serve", "--host", "127.0.0.1", "--port", "0"]
    command += ["--state-dir", str(settings.state_dir), "--recipes-dir", str(settings.recipes_dir)]
    with log.open("wb") as output:
        # In a session of its own: Ctrl-C is for the demo, which then stops the run before the service.
        server = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
    try:
        yield Host(url=_address_when_ready(server, settings.state_dir, log), is_ours=True)
    except KeyboardInterrupt:
        interrupts.heard()  # once more would end the waiting below
        raise
    finally:
        _stop(server)


def _address_when_ready(server: subprocess.Popen[bytes], state_dir: Path, log: Path) -> str:
    deadline = time.monotonic() + _READY_SECONDS
    lock = StatePaths(state_dir).lock
    while time.monotonic() < deadline and server.poll() is None:
        held_by = holder(lock)
        # Once it has an address it listens; the connection waits until it also accepts.
        address = held_by.address if held_by is not None and held_by.pid == server.pid else None
        if address:
            with Service(locator(address)) as service:
                service.get("/healthz")
            return address
        time.sleep(_POLL_SECONDS)
    said = log.read_bytes()[-_LAST_BYTES:].decode(errors="replace").strip()
    raise Unavailable(f"the service did not start:\n{said}", where=str(log), mend="mend that and run the demo again")


def _stop(server: subprocess.Popen[bytes]) -> None:
    server.terminate()
    try:
        server.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()
