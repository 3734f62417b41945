"""Train configs as text: a YAML mapping of sections. Whether its options fit a recipe is decided in ``config``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tunesmith.errors import InvalidInput, MissingReference
from tunesmith.files import raise_shortage
from tunesmith.safe_yaml import load


def parse_train_config(content: bytes, *, source: str, max_bytes: int) -> dict[str, Any]:
    """The sections.

    Raises:
        InvalidInput: no YAML, or no mapping; with ``where`` as ``source:line`` or ``source``.
        TooLarge: longer than ``max_bytes``.
    """
    sections = load(content, source=source, max_bytes=max_bytes)
    if not isinstance(sections, dict):
        raise InvalidInput(
            "a train config is a mapping of sections", where=source, mend="`tunesmith recipes show NAME` shows one"
        )
    return sections


def read_train_config(path: Path, *, source: str, where: str, max_bytes: int) -> dict[str, Any]:
    """The sections of a file; ``where`` is the field of the request that names it.

    Raises:
        MissingReference: it cannot be read.
        InvalidInput, TooLarge: as ``parse_train_config``.
    """
    try:
        with path.open("rb") as file:
            content = file.read(max_bytes + 1)
    except OSError as error:
        raise_shortage(error)
        raise MissingReference(
            f"{source!r} cannot be read: {error.strerror}", where=where, mend="check its permissions"
        ) from error
    return parse_train_config(content, source=source, max_bytes=max_bytes)
