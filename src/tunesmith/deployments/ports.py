"""Which ports deployments use: none is given twice, and none that somebody else listens on. The engine binds it itself."""

from __future__ import annotations

import random
import socket

from tunesmith.errors import Unavailable

FIRST, LAST = 20_000, 29_999
"""Below those that the system gives to outgoing connections: nothing takes one of these by chance."""


class Ports:
    """Ports on loopback, from when one is chosen until its deployment has ended."""

    def __init__(self, first: int = FIRST, last: int = LAST) -> None:
        self._range = range(first, last + 1)
        self._used: set[int] = set()

    def reserve(self) -> int:
        """One that is free now, and from now on nobody else's here.

        Raises:
            Unavailable: there is none.
        """
        begin = random.randrange(len(self._range))
        for step in range(len(self._range)):
            port = self._range[(begin + step) % len(self._range)]
            if port not in self._used and is_free(port):
                self._used.add(port)
                return port
        raise Unavailable(
            f"no port from {self._range[0]} to {self._range[-1]} is free", mend="delete deployments that nobody needs"
        )

    def adopt(self, port: int) -> None:
        """Note the port of a deployment that is there already."""
        self._used.add(port)

    def release(self, port: int) -> None:
        self._used.discard(port)


def is_free(port: int) -> bool:
    """Whether a server could listen on it, for those that go about it as servers do."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
