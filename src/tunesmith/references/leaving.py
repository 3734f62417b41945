"""Models that are about to be deleted: for whoever asks they are gone already. Deletes nothing, and touches no disk."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tunesmith.errors import Fault, MissingReference
from tunesmith.references.paths import shown


class LeavingModels:
    """Their folders. Whoever begins to use a model says so and then looks here, without an await between: so either the
    deletion sees the use, or the use is refused.
    """

    def __init__(self) -> None:
        self._folders: dict[str, tuple[str, str]] = {}
        """As a run names it, and without links; by the first of them."""

    @contextmanager
    def leaving(self, folder: Path, real: Path) -> Iterator[None]:
        """While this is entered, the model is gone. ``real`` is the folder without links.

        Raises:
            MissingReference: somebody else is deleting it.
        """
        key = str(folder)
        self.refuse([key], "model")
        self._folders[key] = (key, str(real))
        try:
            yield
        finally:
            del self._folders[key]

    def refuse(self, paths: Iterable[str], where: str) -> None:
        """Refuse to use any of these paths that lies in a folder that is about to be deleted. Raises MissingReference."""
        gone = [path for path in paths if self._is_leaving(path)]
        if gone:
            raise gone_models(gone, where)

    def _is_leaving(self, path: str) -> bool:
        return any(is_within(path, folders) for folders in tuple(self._folders.values()))


def is_within(path: str, folders: Iterable[str]) -> bool:
    """Whether it is one of these folders, or lies in one of them, by its name."""
    return any(path == folder or path.startswith(f"{folder}/") for folder in folders)


def gone_models(paths: Iterable[str], where: str) -> MissingReference:
    """Of models that were there when the request came in."""
    faults = tuple(
        Fault(message=f"the model at {shown(path)} was just deleted", where=where, mend="name another")
        for path in paths
    )
    if len(faults) == 1:
        return MissingReference(faults[0].message, where=where, mend=faults[0].mend)
    return MissingReference("models were just deleted", where=where, mend="name others", faults=faults)
