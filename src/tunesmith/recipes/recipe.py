"""What a recipe is once its folder has been read: frozen records and the words they may use. Reads nothing itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from tunesmith.errors import Fault
from tunesmith.recipes.options import Option
from tunesmith.records import RunKind

RECIPE_FILE = "recipe.yaml"
SCRIPT_FILE = "run.sh"

SECTIONS = ("job", "model", "data", "lora", "training", "evaluation", "checkpoint", "reporting", "export")
"""The sections that a config may have, in the order people expect them."""

DATA_SHAPES = ("messages", "conversations", "instruction", "prompt_completion", "preference", "scored", "prompt")
"""The row shapes that a recipe may accept."""


class RecipeResources(msgspec.Struct, frozen=True, kw_only=True):
    """What a run of the recipe wants when the request does not say."""

    gpus: int
    """How many GPUs by default, on a machine that has some."""
    cpu: bool
    """Whether it may run without any."""


class Recipe(msgspec.Struct, frozen=True, kw_only=True):
    """A recipe whose folder checked out."""

    name: str
    kind: RunKind
    summary: str
    data: tuple[str, ...]
    """Accepted row shapes; empty when it needs no data, and no model either unless it requires ``model.base``."""
    resources: RecipeResources
    aliases: dict[str, str]
    """Short names for hyperparameters of a request, and the dotted paths they stand for."""
    config: dict[str, Any]
    """The defaults, nested. Shared by all runs: copy before changing."""
    schema: dict[str, Option]
    """Every option by its dotted path, in the order of ``config``."""
    folder: Path
    run_sh: Path
    about: str
    """The opening comment of recipe.yaml."""
    saves_when_stopped: bool = True
    """Whether it writes a checkpoint when it is asked to stop; else what it wrote before is all there is."""
    warnings: tuple[Fault, ...] = ()
    """What its readers would miss, such as an opening comment; it runs all the same."""


class BrokenRecipe(msgspec.Struct, frozen=True, kw_only=True):
    """A folder that cannot be used, with everything that is wrong with it."""

    name: str
    folder: Path
    faults: tuple[Fault, ...]


def start_command(recipe: Recipe, config_path: Path) -> tuple[str, ...]:
    """The words that start a run of the recipe. ``run.sh`` need not be executable."""
    return ("bash", str(recipe.run_sh), str(config_path))
