"""Faults in the words of the door: a client that wrote ``dataset_path`` is told of that, not of ``dataset.name``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import msgspec

from tunesmith.errors import TunesmithError


@contextmanager
def in_words_of_door(
    fields: Mapping[str, str], spelled: Mapping[str, str], *, place: str = "config", prefix: str = "config."
) -> Iterator[None]:
    """Have what is raised meanwhile name the fields of the request.

    Args:
        fields: what services call a field, and how the request does.
        spelled: dotted paths of options, and how the request spells them.
        place: what faults call the place where options come from.
        prefix: what stands before the spelling of an option in the request.
    """
    words = {**fields, **{f"{place}.{path}": f"{prefix}{name}" for path, name in spelled.items()}}
    try:
        yield
    except TunesmithError as error:
        faults = tuple(msgspec.structs.replace(fault, where=_renamed(fault.where, words)) for fault in error.faults)
        where = _renamed(error.where, words)
        if (where, faults) == (error.where, error.faults):
            raise
        raise type(error)(error.message, where=where, mend=error.mend, faults=faults) from error


def _renamed(where: str | None, words: Mapping[str, str]) -> str | None:
    """The field's name; one of several items of a list keeps its number."""
    if where is None:
        return None
    name, bracket, rest = where.partition("[")
    return words[name] + bracket + rest if name in words else where
