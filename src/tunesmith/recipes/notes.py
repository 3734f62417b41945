"""Free values that people attach to records, such as a dataset's metadata: kept as they are, so checked before."""

from __future__ import annotations

from typing import Any

import msgspec

from tunesmith.errors import InvalidInput, TooLarge
from tunesmith.recipes.options import plain_faults

_MOST_BYTES = 64 * 1024
_MOST_FAULTS = 100


def check_notes(value: dict[str, Any], where: str, *, instead: str) -> None:
    """What is stored must be readable by everybody later: with any JSON reader, from any depth of the stack, in a list.

    Args:
        value: as a client sent it.
        where: the field.
        instead: what to do with a value that is too large.

    Raises:
        InvalidInput: with everything that cannot be kept.
        TooLarge: more than a list of records should carry.
    """
    try:
        size = len(msgspec.json.encode(value))
    except RecursionError:
        raise InvalidInput("is nested too deeply", where=where, mend="flatten it") from None
    if size > _MOST_BYTES:
        raise TooLarge(f"takes {size} bytes, and may take {_MOST_BYTES}", where=where, mend=instead)
    faults = plain_faults(value, where)
    if faults:
        raise InvalidInput(f"{where} cannot be stored as it is", faults=tuple(faults[:_MOST_FAULTS]))
