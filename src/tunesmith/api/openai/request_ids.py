"""``x-request-id`` on every answer of every door: what a user can quote, and what the SDKs show with an error."""

from __future__ import annotations

import random

from litestar.types import Message, Scope

NAME = "x-request-id"


def new_request_id() -> str:
    """Unlike any other, and no secret."""
    return f"req_{random.getrandbits(128):032x}"


async def add_request_id(message: Message, _scope: Scope) -> None:
    """A hook for what is about to be sent."""
    if message["type"] == "http.response.start":
        message["headers"] = [*message.get("headers", ()), (NAME.encode(), new_request_id().encode())]
