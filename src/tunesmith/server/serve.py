"""Runs the application under uvicorn: takes the state folder's lock, listens, and ends without ending the runs."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Callable
from types import FrameType

import structlog
import uvicorn

from tunesmith.app import App, open_services
from tunesmith.errors import InvalidInput, SettingsInvalid
from tunesmith.finetune import FunctionDoor
from tunesmith.net.guarded import GuardedClient
from tunesmith.paths import StatePaths
from tunesmith.runner import raise_limit
from tunesmith.server.application import create_app
from tunesmith.server.deadlines import PunctualProtocol
from tunesmith.server.log import ServerLog
from tunesmith.server.state_lock import StateLock
from tunesmith.settings import Settings
from tunesmith.state_folder import tighten

_log = structlog.get_logger()
_GRACEFUL_SECONDS = 5
_BACKLOG = 2048
_SEEN_SECONDS = 3.0
"""For so long health says what is wrong before the process exits."""
# The journal's thread comes back from an fsync and needs the interpreter for microseconds to say so. At Python's default
# of 5 ms a busy event loop lets it wait longer than the disk took; so this is worth 40 % of durable writes a second.
_SWITCH_INTERVAL_SECONDS = 0.0002


def serve(settings: Settings, function: FunctionDoor | None = None) -> None:
    """Serve until SIGTERM or SIGINT; ``function`` is what POST /finetune calls, instead of built-in recipes.

    Raises:
        StateFolderUnusable, StateFolderIncomplete, JournalDamaged, SettingsInvalid: it cannot start; nothing was changed.
    """
    log = ServerLog.configure(as_json=settings.log_format == "json")
    sys.setswitchinterval(_SWITCH_INTERVAL_SECONDS)
    # For us and for all that we start: what is written down about other people's data is for nobody else to read.
    os.umask(0o077)
    paths = StatePaths(settings.state_dir)
    descriptors = raise_limit()
    _vet_webhook(settings)
    with StateLock.acquire(paths.lock, None) as lock:
        tighten(paths)
        if sys.stderr.isatty():
            log.keep_in(paths.server_log)  # what scrolls away on a terminal is read afterwards
        app = open_services(settings, function=function, descriptors=descriptors)
        listener = _listen(settings)
        address = _address(settings, listener)
        lock.set_address(address)
        _log.info("serving", address=address, state_dir=str(settings.state_dir.resolve()))
        serve_app(app, listener)
        _log.info("stopped", note="runs go on; the next server adopts them")


def serve_app(app: App, listener: socket.socket) -> None:
    """Answer on ``listener`` until SIGTERM or SIGINT.

    Raises:
        Unavailable: a background task has ended, which nobody expected: only a new server can do its work.
    """
    config = uvicorn.Config(
        create_app(app),
        loop="uvloop",
        http=PunctualProtocol,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=_GRACEFUL_SECONDS,
        backlog=_BACKLOG,
    )
    server = _Server(config, app.let_go)
    app.vitals.on_end(server.exit_soon)
    server.run(sockets=[listener])
    if app.vitals.ended:
        raise app.vitals.failure()


def _vet_webhook(settings: Settings) -> None:
    if not settings.webhook_url:
        return
    try:
        asyncio.run(GuardedClient(allow_private=settings.allow_private_urls).vet(settings.webhook_url))
    except InvalidInput as error:
        raise SettingsInvalid(error.message, where="webhook_url", mend=error.mend) from error


def _listen(settings: Settings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        return socket.create_server((settings.host, settings.port), family=family, backlog=_BACKLOG)
    except OSError as error:
        raise SettingsInvalid(
            f"cannot listen on {settings.host}:{settings.port}: {error.strerror or error}",
            where="port",
            mend="choose another with --port; 0 picks a free one",
        ) from error


def _address(settings: Settings, listener: socket.socket) -> str:
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return f"http://{host}:{listener.getsockname()[1]}"


class _Server(uvicorn.Server):
    """uvicorn that lets go of event streams and uploads when asked to exit, and then exits with 0."""

    def __init__(self, config: uvicorn.Config, let_go: Callable[[], None]) -> None:
        super().__init__(config)
        self._let_go = let_go

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        # uvicorn raises the signal again when it is done, for whoever handled it before: that is the end we want.
        for asked in (signal.SIGTERM, signal.SIGINT):
            signal.signal(asked, lambda *_: None)
        super().run(sockets)

    def exit_soon(self) -> None:
        """Exit once those who ask had the time to see that the service is not healthy."""
        asyncio.get_running_loop().call_later(_SEEN_SECONDS, self._exit)

    def _exit(self) -> None:
        self._let_go()
        self.should_exit = True

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._let_go()
        super().handle_exit(sig, frame)
