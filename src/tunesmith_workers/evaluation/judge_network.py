"""Where requests to a judge may go: its name is resolved for each, every address is looked at, and such a one is used.

The service has refused bad addresses when the run was created, but a name may lead elsewhere since. Who starts a recipe by hand
is asked nothing.
"""

from __future__ import annotations

import os
import socket
from functools import partial
from ipaddress import ip_address

import anyio.to_thread
import httpx

from tunesmith.contract.addresses import THIS_MACHINE, Address, Reach, reach
from tunesmith.contract.environment import ALLOW_PRIVATE_URLS, RUN_ID
from tunesmith_workers.process.faults import BadConfig


class GuardedTransport(httpx.AsyncBaseTransport):
    """Sends requests to addresses that were looked at, under the name that they were meant for."""

    def __init__(self, inner: httpx.AsyncBaseTransport) -> None:
        self._inner = inner
        self._widest = _widest()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Raises BadConfig: the name leads to where nothing may be sent."""
        host, port = request.url.host, request.url.port or (443 if request.url.scheme == "https" else 80)
        failure: httpx.TransportError = httpx.ConnectError(f"{host} has no address")
        # The certificate is still that of the name, and so is the header Host, which is in the request already.
        extensions = {**request.extensions, "sni_hostname": host}
        for address in await self._addresses(host, port):
            url = request.url.copy_with(host=str(address))
            sent = httpx.Request(
                request.method, url, headers=request.headers, stream=request.stream, extensions=extensions
            )
            try:
                return await self._inner.handle_async_request(sent)
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                failure = error
        raise failure

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def _addresses(self, host: str, port: int) -> list[Address]:
        lookup = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
        try:
            found = await anyio.to_thread.run_sync(lookup, abandon_on_cancel=True)
        except OSError as error:
            raise httpx.ConnectError(f"{host} does not resolve: {error}") from error
        addresses = [ip_address(str(address[0])) for *_, address in found]
        for address in addresses:
            if reach(address) > self._widest:
                raise BadConfig(
                    f"{host} leads to {address}, where nothing may be sent",
                    where="evaluation.judge.url",
                    mend="name another server; for one in a private network the operator sets allow_private_urls",
                )
        return list(dict.fromkeys(THIS_MACHINE.get(address, address) for address in addresses))


def _widest() -> Reach:
    by_hand = RUN_ID not in os.environ
    return Reach.PRIVATE if by_hand or os.environ.get(ALLOW_PRIVATE_URLS) == "1" else Reach.PUBLIC
