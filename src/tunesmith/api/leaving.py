"""Work that is only worth doing while somebody waits for it: it is cancelled when the client is gone."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TypeVar

import anyio
import structlog
from litestar.exceptions import ClientException

from tunesmith.api.services import HttpRequest

_log = structlog.get_logger()
_T = TypeVar("_T")


async def while_connected(request: HttpRequest, work: Awaitable[_T]) -> _T:
    """What ``work`` answers. The body of the request must have been read.

    Raises:
        ClientException: the client left, and the work was cancelled. Nobody gets to see this.
    """
    done: list[_T] = []
    failed: list[Exception] = []
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_leave, request, tasks.cancel_scope)
        try:
            done.append(await work)
        except Exception as error:  # noqa: BLE001  # raised below, where no group is made of it
            failed.append(error)
        tasks.cancel_scope.cancel()
    if failed:
        raise failed[0]
    if not done:
        _log.info("client_left", path=request.url.path)
        raise ClientException("the client left before its answer was ready")
    return done[0]


async def _leave(request: HttpRequest, scope: anyio.CancelScope) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        continue
    scope.cancel()
