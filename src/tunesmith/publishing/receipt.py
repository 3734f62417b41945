"""What came of publishing a run's output, in the run's folder: so it is published once, also when somebody moves it away."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import msgspec

from tunesmith.errors import Fault
from tunesmith.files import raise_shortage, read_regular, write_atomically

_MOST_BYTES = 64 * 1024


class Receipt(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where it went and when, or why it could not."""

    to: str
    at: datetime
    error: Fault | None = None


_decode = msgspec.json.Decoder(Receipt).decode


def read_receipt(path: Path) -> Receipt | None:
    """None where nothing came of it yet. A damaged one is none. Raises OSError where descriptors are short."""
    try:
        return _decode(read_regular(path, _MOST_BYTES))
    except msgspec.DecodeError:
        return None
    except OSError as error:
        raise_shortage(error)
        return None


def write_receipt(path: Path, receipt: Receipt) -> None:
    """Raises OSError."""
    write_atomically(path, msgspec.json.format(msgspec.json.encode(receipt), indent=2) + b"\n")
