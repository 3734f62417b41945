"""Refusals that speak of an uploaded file by the name that its owner gave it, not by where it is kept."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import msgspec

from tunesmith.api.services import Services
from tunesmith.errors import TunesmithError


@contextmanager
def own_names(services: Services) -> Iterator[None]:
    """Raises what is raised inside, with the paths of uploads replaced."""
    try:
        yield
    except TunesmithError as error:

        def named(text: str | None) -> str | None:
            return services.uploads.in_own_names(text) if text is not None else None

        error.message, error.where, error.mend = named(error.message) or "", named(error.where), named(error.mend)
        error.faults = tuple(
            msgspec.structs.replace(
                fault, message=named(fault.message) or "", where=named(fault.where), mend=named(fault.mend)
            )
            for fault in error.faults
        )
        raise
