"""What a delivery is called and what it says: the same for the same occurrence, so that offering it twice is harmless.
And how its address is shown, which may hold what only its receiver should know.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

import msgspec

from tunesmith.errors import InvalidInput
from tunesmith.records import Callback, CallbackEvent


def id_of(subject_id: str, key: str) -> str:
    """Without a full stop in it, which the signature uses as a separator."""
    return f"dlv_{hashlib.sha256(f'{subject_id}/{key}'.encode()).hexdigest()[:32]}"


def body_of(subject_id: str, callback: Callback, kind: CallbackEvent, body: Mapping[str, Any], at: datetime) -> str:
    """The JSON text to be sent. Raises InvalidInput when there is none."""
    content = (
        {"type": f"run.{kind}", "timestamp": at, "data": {"run_id": subject_id, **body}}
        if callback.shape == "tunesmith"
        else body
    )
    try:
        return msgspec.json.encode(content).decode()
    except (msgspec.MsgspecError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise InvalidInput(f"the body of a callback cannot be written as JSON: {error}", where=subject_id) from error


_HIDDEN = "***"


def shown_url(url: str) -> str:
    """An address as it may be shown: without user and password, values of the query, and the fragment."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return _HIDDEN
    user, at, host = parts.netloc.rpartition("@")
    pairs = [piece.partition("=") for piece in parts.query.split("&") if piece]
    query = "&".join(f"{name}={_HIDDEN}" if equals else _HIDDEN for name, equals, _ in pairs)
    netloc = f"{_HIDDEN}@{host}" if user or at else host
    return parts._replace(netloc=netloc, query=query, fragment="").geturl()
