"""What a delivery is called and what it says: the same for the same occurrence, so that offering it twice is harmless."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec

from tunesmith.errors import InvalidInput
from tunesmith.records import Callback, CallbackEvent


def id_of(run_id: str, key: str) -> str:
    """Without a full stop in it, which the signature uses as a separator."""
    return f"dlv_{hashlib.sha256(f'{run_id}/{key}'.encode()).hexdigest()[:32]}"


def body_of(run_id: str, callback: Callback, kind: CallbackEvent, body: Mapping[str, Any], at: datetime) -> str:
    """The JSON text to be sent. Raises InvalidInput when there is none."""
    content = (
        body
        if callback.shape == "finetune"
        else {"type": f"run.{kind}", "timestamp": at, "data": {"run_id": run_id, **body}}
    )
    try:
        return msgspec.json.encode(content).decode()
    except (msgspec.MsgspecError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise InvalidInput(f"the body of a callback cannot be written as JSON: {error}", where=run_id) from error
