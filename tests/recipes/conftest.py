"""A throwaway recipe that the tests of the recipe book change to their needs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tunesmith.recipes import Recipe, read_recipe

RECIPE = """\
# Trains nothing; it is here for the tests.
# By hand: bash run.sh config.yaml
name: tiny
kind: train
summary: a recipe for the tests
data: [messages, prompt_completion]
resources: {gpus: 1, cpu: true}
aliases:
  lr: training.learning_rate
  batch_size: training.per_device_train_batch_size
config:
  model: {base: null, dtype: auto}
  data: {max_length: 1024, shuffle: true}
  lora:
    r: 8
    dropout: 0.05
    target_modules: [all-linear]
  training:
    learning_rate: 1e-4
    per_device_train_batch_size: 8
    max_steps: null
    bf16: true
    scheduler: {name: cosine, warmup: 0.1}
    scheduler_kwargs: {}
    seed: 42
  evaluation:
    seed: 7
    strategy: steps
schema:
  training.max_steps: {type: int, min: 1}
  training.learning_rate: {type: float, min: 0, max: 1}
  lora.target_modules: {items: str}
  evaluation.strategy: {choices: ["no", steps, epoch]}
"""

SCRIPT = """\
#!/usr/bin/env bash
# Prints its argument and the file it names.
set -euo pipefail
printf '%s\\n' "$1"
cat -- "$1"
"""


@pytest.fixture
def recipes_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "recipes"
    folder.mkdir()
    return folder


@pytest.fixture
def write_recipe(recipes_dir: Path) -> Callable[..., Path]:
    """Writes the recipe, under another name or with pieces of its text replaced, and returns its folder."""

    def write(name: str = "tiny", *changes: tuple[str, str]) -> Path:
        script = SCRIPT
        recipe = RECIPE.replace("name: tiny", f"name: {name}")
        for old, new in changes:
            assert old in recipe + script, old
            recipe, script = recipe.replace(old, new), script.replace(old, new)
        folder = recipes_dir / name
        folder.mkdir(exist_ok=True)
        (folder / "recipe.yaml").write_text(recipe)
        (folder / "run.sh").write_text(script)
        return folder

    return write


@pytest.fixture
def recipe(write_recipe: Callable[..., Path]) -> Recipe:
    found = read_recipe(write_recipe())
    assert isinstance(found, Recipe)
    return found


@pytest.fixture(scope="session")
def shared_recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """One recipe for all examples of a property."""
    folder = tmp_path_factory.mktemp("recipes") / "tiny"
    folder.mkdir()
    (folder / "recipe.yaml").write_text(RECIPE)
    (folder / "run.sh").write_text(SCRIPT)
    found = read_recipe(folder)
    assert isinstance(found, Recipe)
    return found
