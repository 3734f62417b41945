"""Reads one recipe folder and checks all of it, gathering every fault. Follows no link and opens no pipe or device.

What stands below ``config`` and ``schema`` is checked in ``schema``.
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import Any

from tunesmith import safe_yaml
from tunesmith.errors import TunesmithError
from tunesmith.files import raise_shortage
from tunesmith.recipes.faults import Faults, at
from tunesmith.recipes.options import Option
from tunesmith.recipes.recipe import DATA_SHAPES, RECIPE_FILE, SCRIPT_FILE, BrokenRecipe, Recipe, RecipeResources
from tunesmith.recipes.schema import options_of, sections
from tunesmith.recipes.suggest import described, did_you_mean
from tunesmith.records import RunKind

MAX_FILE_BYTES = 256 * 1024
MOST_GPUS = 1024

VALID_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_KEYS = ("name", "kind", "summary", "data", "resources", "saves_when_stopped", "aliases", "config", "schema")
_REQUIRED = ("name", "kind", "summary", "data", "resources", "config")


def read_recipe(folder: Path) -> Recipe | BrokenRecipe:
    """Read and check ``folder``. Never raises for what is in it."""
    faults = Faults()
    recipe = _recipe(folder, faults) if _is_usable(folder, faults) else None
    if recipe is None or faults.found:
        return BrokenRecipe(name=folder.name, folder=folder, faults=tuple(faults.found))
    return recipe


def _is_usable(folder: Path, faults: Faults) -> bool:
    if not VALID_NAME.fullmatch(folder.name):
        faults.add(
            "the folder's name cannot name a recipe",
            folder.name,
            "use up to 64 small letters, digits, - and _, or start it with _ to have it ignored",
        )
    if folder.is_symlink():
        faults.add("the folder is a symbolic link", folder.name, "copy the folder here")
        return False
    return True


def _recipe(folder: Path, faults: Faults) -> Recipe | None:
    _check_script(folder, faults)
    text = _text_of(folder / RECIPE_FILE, faults)
    if text is None:
        return None
    about = opening_comment(text)
    if not about:
        faults.hint("has no opening comment", RECIPE_FILE, "say what it does, needs, and how to start it by hand")
    try:
        content = safe_yaml.load(text, source=RECIPE_FILE, max_bytes=MAX_FILE_BYTES)
    except TunesmithError as error:
        faults.add(error.message, error.where or RECIPE_FILE, error.mend)
        return None
    if not isinstance(content, dict):
        faults.add("must be a mapping", RECIPE_FILE, f"it needs the keys {', '.join(_REQUIRED)}")
        return None
    _check_names(folder.name, content, faults)
    config = sections(content.get("config"), folder.name, faults)
    options = options_of(config, _mapping(content, "schema", faults), faults)
    return Recipe(
        name=folder.name,
        kind=_kind(content, faults),
        summary=_summary(content, faults),
        data=_data(content, faults),
        resources=_resources(content, faults),
        aliases=_aliases(content, config, options, faults),
        config=config,
        schema=options,
        folder=folder,
        run_sh=folder / SCRIPT_FILE,
        about=about,
        saves_when_stopped=_saves_when_stopped(content, faults),
        warnings=tuple(faults.hints),
    )


def _check_script(folder: Path, faults: Faults) -> None:
    text = _text_of(folder / SCRIPT_FILE, faults)
    if text is None:
        return
    if not text.startswith("#!"):
        faults.add("does not open with a shebang", f"{SCRIPT_FILE}:1", "start it with `#!/usr/bin/env bash`")
    if not opening_comment(text):
        faults.hint("has no opening comment", SCRIPT_FILE, "say below the shebang what it starts")
    if not any(line.partition("#")[0].strip() == "set -euo pipefail" for line in text.splitlines()):
        faults.add(
            "lacks `set -euo pipefail`",
            SCRIPT_FILE,
            "add that line below the opening comment: no failure may pass unseen",
        )
    if "\r\n" in text:
        faults.add("has Windows line ends, which bash cannot read", SCRIPT_FILE, "save it with Unix line ends")


def _text_of(path: Path, faults: Faults) -> str | None:
    """The text of a regular file, looked at before it is opened: opening a pipe would wait for a writer."""
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            faults.add("is not a regular file", path.name, "put a plain file there: no link, pipe, device or folder")
            return None
        # The flags close the gap between the look and the opening.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        faults.add("is missing", path.name, "add it; docs/recipes.md shows what it holds")
        return None
    except OSError as error:
        raise_shortage(error)
        faults.add(f"cannot be read: {error.strerror}", path.name, "check its owner and permissions")
        return None
    if len(content) > MAX_FILE_BYTES:
        faults.add(f"is longer than {MAX_FILE_BYTES} bytes", path.name, "move large parts to files of their own")
        return None
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        faults.add("is not UTF-8", f"{path.name}:{line}", "save the file as UTF-8")
        return None


def opening_comment(text: str) -> str:
    """The comment lines at the top, below a shebang, without their marks."""
    comment: list[str] = []
    for line in text.splitlines()[text.startswith("#!") :]:
        stripped = line.strip()
        if stripped.startswith("#"):
            comment.append(stripped.removeprefix("#").removeprefix(" ").rstrip())
        elif stripped or comment:
            break
    return "\n".join(comment).strip()


def _check_names(name: str, content: dict[str, Any], faults: Faults) -> None:
    faults.add_unknown_keys(content, _KEYS)
    for key in _REQUIRED:
        if key not in content:
            faults.add("is missing", at(key), "docs/recipes.md says what it is for")
    if "name" in content and content["name"] != name:
        faults.add(
            f"must equal the folder's name, not {described(content['name'])}", at("name"), f"write `name: {name}`"
        )


def _kind(content: dict[str, Any], faults: Faults) -> RunKind:
    kinds = tuple(map(str, RunKind))
    kind = content.get("kind")
    if kind in kinds:
        return RunKind(kind)
    if "kind" in content:
        faults.add(f"must be one of {', '.join(kinds)}; not {described(kind)}", at("kind"), did_you_mean(kind, kinds))
    return RunKind.TRAIN


def _summary(content: dict[str, Any], faults: Faults) -> str:
    summary = content.get("summary")
    if isinstance(summary, str) and summary.strip() and "\n" not in summary.strip():
        return summary.strip()
    if "summary" in content:
        faults.add("must be one line of text", at("summary"), "say in one line what the recipe does")
    return ""


def _data(content: dict[str, Any], faults: Faults) -> tuple[str, ...]:
    shapes = content.get("data", [])
    if not isinstance(shapes, list):
        faults.add(f"must be a list, not {described(shapes)}", at("data"), "name the row shapes it accepts, or []")
        return ()
    for shape in shapes:
        if shape not in DATA_SHAPES:
            faults.add(
                f"{described(shape)} is no row shape: they are {', '.join(DATA_SHAPES)}",
                at("data"),
                did_you_mean(shape, DATA_SHAPES),
            )
    return tuple(shape for shape in DATA_SHAPES if shape in shapes)


def _resources(content: dict[str, Any], faults: Faults) -> RecipeResources:
    given = _mapping(content, "resources", faults)
    faults.add_unknown_keys(given, ("gpus", "cpu"), "resources")
    gpus, cpu = given.get("gpus", 0), given.get("cpu", False)
    if type(gpus) is not int or not 0 <= gpus <= MOST_GPUS:
        faults.add(
            f"must be a whole number from 0 to {MOST_GPUS}", at("resources.gpus"), "how many a run takes by default"
        )
    elif type(cpu) is not bool:
        faults.add("must be true or false", at("resources.cpu"), "whether a run can do without a GPU")
    elif isinstance(content.get("resources", ""), dict | None) and not gpus and not cpu:
        faults.add(
            "takes neither a GPU nor a CPU, so nothing could run it", at("resources"), "such as {gpus: 1, cpu: true}"
        )
    else:
        return RecipeResources(gpus=gpus, cpu=cpu)
    return RecipeResources(gpus=0, cpu=True)


def _saves_when_stopped(content: dict[str, Any], faults: Faults) -> bool:
    saves = content.get("saves_when_stopped", True)
    if type(saves) is not bool:
        faults.add(
            "must be true or false", at("saves_when_stopped"), "whether it writes a checkpoint when asked to stop"
        )
        return True
    return saves


def _aliases(
    content: dict[str, Any], config: dict[str, Any], options: dict[str, Option], faults: Faults
) -> dict[str, str]:
    given = _mapping(content, "aliases", faults)
    targets = [*options, *config]
    for alias, target in given.items():
        where = at(f"aliases.{alias}")
        if target not in targets:
            faults.add(f"{described(target)} is no option of this recipe", where, did_you_mean(target, targets))
            continue
        hidden = [alias] * (alias in config) + [path for path in options if path.rpartition(".")[2] == alias]
        if hidden and target not in hidden:
            faults.add(f"hides {hidden[0]}", where, "choose another name")
    return given


def _mapping(content: dict[str, Any], key: str, faults: Faults) -> dict[str, Any]:
    given = content.get(key)
    if given is None or isinstance(given, dict):
        return given or {}
    faults.add(f"must be a mapping, not {described(given)}", at(key))
    return {}
