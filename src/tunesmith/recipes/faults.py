"""Gathers what is wrong in one recipe folder, so that all of it is reported at once."""

from __future__ import annotations

from collections.abc import Iterable

from tunesmith.errors import Fault
from tunesmith.recipes.recipe import RECIPE_FILE
from tunesmith.recipes.suggest import did_you_mean


class Faults:
    """A growing list of faults."""

    def __init__(self) -> None:
        self.found: list[Fault] = []
        self.hints: list[Fault] = []
        """What a reader would miss, and no reason not to run the recipe."""

    def add(self, message: str, where: str, mend: str | None = None) -> None:
        self.found.append(Fault(message=message, where=where, mend=mend))

    def hint(self, message: str, where: str, mend: str) -> None:
        self.hints.append(Fault(message=message, where=where, mend=mend))

    def add_unknown_keys(self, given: Iterable[str], known: tuple[str, ...], group: str = "") -> None:
        for key in given:
            if key not in known:
                mend = did_you_mean(key, known) or f"the keys are {', '.join(known)}"
                self.add("no such key", at(f"{group}.{key}" if group else key), mend)


def at(key: str) -> str:
    """How a fault names a key of recipe.yaml."""
    return f"{RECIPE_FILE}: {key}"
