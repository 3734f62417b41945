"""Reading records, those of versions before this one as well.

A record refuses fields that it does not have, so renaming one would make a journal unreadable. What a line of before would be
today is said by its record type (``Record.upgraded``), and only a line that does not read as it is gets asked about: today's
lines cost nothing. Journals are never rewritten: the line stays as it is, and the next change of its id is written as today's.
Summaries are read without this: a summary type names what it needs of old lines itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import msgspec

from tunesmith.records import Record

R = TypeVar("R", bound=Record)


def record_decoder(record_type: type[R]) -> Callable[[bytes | msgspec.Raw], R]:
    """What reads the ``data`` of a line. It raises msgspec.DecodeError for what no version wrote."""
    decode = msgspec.json.Decoder(record_type).decode

    def read(data: bytes | msgspec.Raw) -> R:
        try:
            return decode(data)
        except msgspec.ValidationError:
            given = msgspec.json.decode(data)
            if not isinstance(given, dict) or (upgraded := record_type.upgraded(given)) == given:
                raise
        return decode(msgspec.json.encode(upgraded))

    return read
