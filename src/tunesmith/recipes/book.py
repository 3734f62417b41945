"""All recipes below one folder, read again when their files change: a folder dropped in needs no restart.

The recipes are checked in ``folder`` and turned into configs in ``config``.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TypeAlias

from tunesmith.errors import Fault, InvalidInput, MissingReference
from tunesmith.files import raise_shortage
from tunesmith.recipes.folder import VALID_NAME, read_recipe
from tunesmith.recipes.recipe import RECIPE_FILE, SCRIPT_FILE, BrokenRecipe, Recipe
from tunesmith.recipes.suggest import nearest, shortened

_Fingerprint: TypeAlias = tuple[tuple[int, ...] | None, ...]


class RecipeBook:
    """Finds recipes by name. Reads small files when they are new or have changed, otherwise only looks at their dates."""

    def __init__(self, recipes_dir: Path) -> None:
        # Runs start in folders of their own, so their commands need the whole path.
        self.folder = recipes_dir.absolute()
        self._root = str(self.folder)
        self._known: dict[str, tuple[_Fingerprint, Recipe | BrokenRecipe]] = {}

    def get(self, name: str) -> Recipe:
        """The recipe of that name.

        Raises:
            MissingReference: there is none; it names the nearest, and all there are.
            InvalidInput: its folder is broken; with everything that is wrong with it.
        """
        found = self._read(name) if VALID_NAME.fullmatch(name) else None
        if found is None:
            raise self._missing(name)
        if isinstance(found, BrokenRecipe):
            raise InvalidInput(
                f"the recipe {name} is broken",
                where=str(found.folder),
                mend=f"fix the files; `tunesmith recipes check {name}` checks them again",
                faults=found.faults,
            )
        return found

    def all(self) -> list[Recipe | BrokenRecipe]:
        """Every recipe by name, the broken ones among them; empty when there is no such folder."""
        try:
            names = sorted(path.name for path in self.folder.iterdir())
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise_shortage(error)
            fault = Fault(message=f"cannot be listed: {error.strerror}", where=self._root, mend="check its permissions")
            return [BrokenRecipe(name=self.folder.name, folder=self.folder, faults=(fault,))]
        self._known = {name: known for name, known in self._known.items() if name in names}
        found = [self._read(name) for name in names if not name.startswith((".", "_")) and _is_text(name)]
        return [recipe for recipe in found if recipe is not None]

    def _read(self, name: str) -> Recipe | BrokenRecipe | None:
        fingerprint = self._fingerprint(name)
        if fingerprint is None:
            self._known.pop(name, None)
            return None
        known = self._known.get(name)
        if known is not None and known[0] == fingerprint:
            return known[1]
        recipe = read_recipe(self.folder / name)
        self._known[name] = (fingerprint, recipe)
        return recipe

    def _fingerprint(self, name: str) -> _Fingerprint | None:
        """What changes when the recipe does; None when ``name`` is not a folder, nor a link to one."""
        path = f"{self._root}/{name}"
        folder = _look(path)
        if folder is None or not (stat.S_ISDIR(folder[0]) or Path(path).is_dir()):
            return None
        # The folder's own dates change with every file that a script leaves in it, and say nothing more.
        return folder[:2], _look(f"{path}/{RECIPE_FILE}"), _look(f"{path}/{SCRIPT_FILE}")

    def _missing(self, name: str) -> MissingReference:
        names = [recipe.name for recipe in self.all() if isinstance(recipe, Recipe)]
        close = nearest(name, names)
        listed = f"the recipes are {', '.join(names)}" if names else f"there are no recipes in {self._root}"
        return MissingReference(
            f"there is no recipe {shortened(name)!r}",
            where="recipe",
            mend=f"did you mean {close}? {listed}" if close else listed,
        )


def _is_text(name: str) -> bool:
    """Whether a file name is UTF-8: one that is not could not even be reported."""
    return name.encode(errors="replace").decode() == name


def _look(path: str) -> tuple[int, ...] | None:
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return found.st_mode, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
