"""``x-request-id`` on every answer of every door: what a user can quote, and what the SDKs show with an error."""

from __future__ import annotations

import random

from litestar.types import Message, Scope

_NAME = b"x-request-id"


async def add_request_id(message: Message, _scope: Scope) -> None:
    """A hook for what is about to be sent."""
    if message["type"] == "http.response.start":
        message["headers"] = [*message.get("headers", ()), (_NAME, b"req_%032x" % random.getrandbits(128))]
