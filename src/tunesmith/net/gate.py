"""Where a guarded client may connect to: a name is resolved once, every address is judged, and a judged one is used."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from ipaddress import ip_address

import anyio
import anyio.to_thread
import httpcore

from tunesmith.contract.addresses import THIS_MACHINE, Address, Reach, reach
from tunesmith.errors import InvalidInput, MissingReference

_MOST_LOOKUPS = 64

Resolver = Callable[[str, int], Awaitable[list[str]]]
"""From a host and a port to all addresses of the host; raises OSError when there are none."""


class Gate(httpcore.AsyncNetworkBackend):
    """Connects to what was judged, and to nothing else."""

    def __init__(self, allow_private: bool, resolver: Resolver, network: httpcore.AsyncNetworkBackend) -> None:  # noqa: FBT001  # made in one place
        self._widest = Reach.PRIVATE if allow_private else Reach.PUBLIC
        self._resolver = resolver
        self._network = network

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109  # httpcore's signature
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        failure: Exception = httpcore.ConnectError("it has no address")
        for address in await self.addresses(host, port):
            try:
                return await self._network.connect_tcp(str(address), port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,  # noqa: ASYNC109  # httpcore's signature
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        del timeout, socket_options
        raise httpcore.ConnectError(f"{path} is not on the network")

    async def sleep(self, seconds: float) -> None:
        await anyio.sleep(seconds)

    async def addresses(self, host: str, port: int) -> list[Address]:
        """Resolve once. One bad address spoils the name: whoever answers for it mixes them on purpose.

        Raises:
            InvalidInput: an address must not be reached.
            MissingReference: there is none.
        """
        try:
            found = [ip_address(text) for text in await self._resolver(host, port)]
        except (OSError, ValueError) as error:
            raise MissingReference(f"its name does not resolve: {error}", where=host, mend="check the name") from error
        for address in found:
            if reach(address) > self._widest:
                raise _refused(host, address)
        # What connects to 0.0.0.0 is left to no kernel.
        return list(dict.fromkeys(THIS_MACHINE.get(address, address) for address in found))


class SystemResolver:
    """What the system's resolver says.

    Threads of our own: uvloop's and asyncio's few would let one dead name server delay every other lookup.
    """

    def __init__(self) -> None:
        self._limiter: anyio.CapacityLimiter | None = None

    async def __call__(self, host: str, port: int) -> list[str]:
        if self._limiter is None:
            self._limiter = anyio.CapacityLimiter(_MOST_LOOKUPS)
        lookup = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
        found = await anyio.to_thread.run_sync(lookup, abandon_on_cancel=True, limiter=self._limiter)
        return [str(address[0]) for *_, address in found]


def _refused(host: str, address: Address) -> InvalidInput:
    if reach(address) is Reach.NEVER:
        return InvalidInput(f"{address} must not be reached from here", where=host, mend="name a server of your own")
    return InvalidInput(
        f"{address} is a private or reserved address",
        where=host,
        mend="name a public server, or ask the operator to set allow_private_urls",
    )
