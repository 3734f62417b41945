"""Whether an engine is well: who listens on its port, and only then what that answers. Changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import anyio.to_thread
import msgspec

from tunesmith.errors import Unavailable
from tunesmith.records import Deployment, Handle
from tunesmith.runner import PortHolder, port_holder

_SECONDS = 3.0


class Answer(Protocol):
    """What an engine answered."""

    @property
    def ok(self) -> bool: ...

    @property
    def status(self) -> int: ...

    @property
    def body(self) -> bytes: ...


class Loopback(Protocol):
    """HTTP to engines on this machine; see ``net.loopback``."""

    async def get(self, port: int, path: str, *, seconds: float) -> Answer: ...

    async def post_json(self, port: int, path: str, content: object, *, seconds: float, most: int = ...) -> Answer: ...


class Verdict(msgspec.Struct, frozen=True):
    """What a health check found."""

    healthy: bool
    reason: str = ""
    """Why it is not healthy, in words that are the same each time."""
    port_taken: bool = False
    """Whether its port is held by a process that is not its own."""


HEALTHY = Verdict(healthy=True)


class HealthCheck:
    """Asks engines."""

    def __init__(
        self, loopback: Loopback, holder_of: Callable[[int, str, Handle | None], PortHolder] = port_holder
    ) -> None:
        self._loopback = loopback
        self._holder_of = holder_of

    async def of(self, deployment: Deployment) -> Verdict:
        """One check. Takes three seconds at most, and whatever the machine needs to look at its processes."""
        port, path = deployment.port, deployment.health_path
        holder = await anyio.to_thread.run_sync(self._holder_of, port, deployment.id, deployment.process)
        if holder is PortHolder.NOBODY:
            return Verdict(healthy=False, reason=f"nothing listens on port {port} yet, or any more")
        if holder is PortHolder.OTHERS:
            return Verdict(healthy=False, reason=f"port {port} is held by another process", port_taken=True)
        try:
            answer = await self._loopback.get(port, path, seconds=_SECONDS)
        except Unavailable as error:
            return Verdict(healthy=False, reason=f"GET {path} on port {port}: {error.message}")
        return (
            HEALTHY
            if answer.ok
            else Verdict(healthy=False, reason=f"GET {path} on port {port} answers {answer.status}")
        )
