"""The paths that a request names: below the allowed roots, symbolic links followed, and never what the server keeps for
itself in its state folder. Nothing is opened here.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tunesmith.errors import Forbidden, InvalidInput, MissingReference
from tunesmith.files import DATA_SUFFIXES, data_files, raise_shortage
from tunesmith.paths import StatePaths
from tunesmith.recipes.suggest import nearest

_LONGEST_SHOWN = 300


class NamedPaths:
    """Resolves paths."""

    def __init__(self, roots: Sequence[Path], paths: StatePaths) -> None:
        self._roots = tuple(roots)
        self._paths = paths

    def file(self, name: str, where: str) -> Path:
        """Any other file that a request names."""
        path = self.existing(name, where)
        if not path.is_file():
            raise MissingReference(f"{shown(name)!r} is not a file", where=where, mend="name a regular file")
        return path

    def file_or_folder(self, name: str, where: str) -> Path:
        """Either of them, for what reads both."""
        path = self.existing(name, where)
        if not path.is_file() and not path.is_dir():
            raise MissingReference(
                f"{shown(name)!r} is neither a file nor a folder", where=where, mend="name one of the two"
            )
        return path

    def whole_folder(self, folder: Path, where: str) -> Path:
        """A folder all of whose data files are read: itself, or its only data file.

        Raises:
            MissingReference: it has none.
            Forbidden: one of them is a link to outside the allowed roots.
        """
        try:
            found = [self.allowed(str(path), where) for path in data_files(folder)]
        except OSError as error:
            raise_shortage(error)
            raise MissingReference(
                f"{shown(str(folder))!r} cannot be read: {error.strerror}", where=where, mend="check its permissions"
            ) from error
        if not found:
            raise MissingReference(
                f"the folder {shown(str(folder))!r} holds no data file",
                where=where,
                mend=f"put files of rows into it, named {', '.join(DATA_SUFFIXES)}; files in folders below do not count",
            )
        return found[0] if len(found) == 1 else folder

    def output_folder(self, name: str, where: str) -> Path:
        """A folder that a request wants something written to; it need not exist yet. Links in it are followed.

        Raises:
            InvalidInput: there is something else than a folder, or a file is on the way to it.
            Forbidden: it lies outside the allowed roots.
        """
        path = self.allowed(name, where)
        if not self._paths.may_be_written(path) and not self._chosen_in_state(path):
            raise Forbidden(
                f"{shown(name)!r} lies in the state folder, which is the server's to write to",
                where=where,
                mend="name a folder elsewhere below the allowed roots",
            )
        nearest_there = next(one for one in (path, *path.parents) if one.exists())
        if not nearest_there.is_dir():
            raise InvalidInput(f"{shown(str(nearest_there))!r} is not a folder", where=where, mend="name a folder")
        return path

    def existing(self, name: str, where: str) -> Path:
        path = self.allowed(name, where)
        if not path.exists():
            raise MissingReference(f"{name!r} does not exist", where=where, mend=_nearest_sibling(path))
        return path

    def allowed(self, name: str, where: str, also: Path | None = None) -> Path:
        """The path with links followed; ``also`` is one more root. Raises Forbidden, and MissingReference for no path at all."""
        path = _resolved(name, where)
        if not any(path.is_relative_to(root) for root in (*self._roots, *((also,) if also else ()))):
            raise Forbidden(
                f"{shown(name)!r} lies outside the allowed roots",
                where=where,
                mend=f"move it below one of {', '.join(map(str, self._roots))}, or add its folder to allowed_roots",
            )
        if not self._paths.may_be_named(path) and not self._chosen_in_state(path):
            raise Forbidden(
                f"{shown(name)!r} is kept by the server for itself",
                where=where,
                mend="in the state folder, uploads, models, and the output and checkpoints of runs can be named",
            )
        return path

    def _chosen_in_state(self, path: Path) -> bool:
        """Whether the operator allowed a folder within the state folder that it lies in."""
        state = self._paths.root.resolve()
        return any(root.parent.is_relative_to(state) and path.is_relative_to(root) for root in self._roots)


def _resolved(name: str, where: str) -> Path:
    try:
        path = Path(name).expanduser().resolve()
        path.exists()  # a name that is too long shows only now
    except (OSError, RuntimeError, ValueError) as error:  # also: a loop of links, an unknown ~user, a NUL character
        reason = error.strerror if isinstance(error, OSError) else shown(str(error))
        raise MissingReference(
            f"{shown(name)!r} is not a usable path: {reason}", where=where, mend="name a file that exists"
        ) from error
    return path


def is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:
        return False


def is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:
        return False


def _nearest_sibling(path: Path) -> str | None:
    try:
        names = [entry.name for entry in path.parent.iterdir()]
    except OSError:
        return f"{path.parent} is no folder that can be read"
    close = nearest(path.name, names)
    return f"did you mean {shown(close)}?" if close else None


def shown(name: str) -> str:
    """A name for a message: not endless, and free of what cannot be encoded (file names may hold any bytes)."""
    brief = name if len(name) <= _LONGEST_SHOWN else name[:_LONGEST_SHOWN] + "..."
    return brief.encode(errors="replace").decode()
