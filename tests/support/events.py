"""Reading server-sent events as the HTML standard says, so that tests see exactly what a browser would."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple


class Sent(NamedTuple):
    """One event as a browser dispatches it."""

    id: str
    event: str
    data: Any


def parsed(chunks: Iterable[bytes]) -> Iterator[Sent]:
    """Events out of any chunks of the stream; one that is not finished is not dispatched."""
    last_id, event, data, rest = "", "", [], b""
    for chunk in chunks:
        *lines, rest = re.split(rb"\r\n|\n|\r", rest + chunk)
        for line in lines:
            name, _, value = line.decode().partition(":")
            value = value.removeprefix(" ")
            if not line:
                if data:
                    yield Sent(last_id, event or "message", json.loads("\n".join(data)))
                event, data = "", []
            elif name == "id" and "\0" not in value:
                last_id = value
            elif name == "event":
                event = value
            elif name == "data":
                data.append(value)
