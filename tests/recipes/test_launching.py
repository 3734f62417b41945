"""How the shipped recipes start their programs: as one process, or as one for each GPU, in the place of the shell."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
from pathlib import Path

import pytest

SHIPPED = Path(__file__).parents[2] / "recipes"
# As they were before they shared a launcher; somebody may have copied them.
COPIED = """#!/usr/bin/env bash
# A copy of an earlier version.
set -euo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
exec "${TUNESMITH_PYTHON:-python}" -m tunesmith_workers.%s "$1" "$here/recipe.yaml"
"""


def started(recipe: Path, folder: Path, gpus: str | None) -> list[str]:
    """The words that Python would have been started with."""
    python = folder / "python"
    python.write_text(f'#!/bin/sh\necho "$$" >"{folder}/pid"\nfor word in "$@"; do echo "$word"; done\n')
    python.chmod(0o755)
    env = {**os.environ, "TUNESMITH_PYTHON": str(python), "PATH": "/usr/bin:/bin"}
    env.pop("CUDA_VISIBLE_DEVICES", None)
    with subprocess.Popen(
        ["bash", str(recipe / "run.sh"), "a config.yaml"],
        env=env if gpus is None else {**env, "CUDA_VISIBLE_DEVICES": gpus},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        said, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert int((folder / "pid").read_text()) == process.pid, "a signal for the shell must reach the program"
    return said.splitlines()


@pytest.mark.parametrize("recipe", ["sft", "lora", "evaluate"])
@pytest.mark.parametrize("gpus", [None, "", "3", "GPU-5f2c"])
def test_without_a_second_gpu_it_is_one_process(tmp_path, recipe, gpus):
    """With the config and the recipe's own defaults."""
    module = f"tunesmith_workers.programs.{recipe}"
    defaults = str(SHIPPED / recipe / "recipe.yaml")
    assert started(SHIPPED / recipe, tmp_path, gpus) == ["-m", module, "a config.yaml", defaults]


@pytest.mark.parametrize("recipe", ["sft", "lora"])
def test_a_training_has_a_process_for_each_gpu(tmp_path, recipe):
    """Which are found by their number only: what they are called does not matter."""
    words = started(SHIPPED / recipe, tmp_path, "0,GPU-5f2c,2")
    assert words[:7] == [
        "-m",
        "accelerate.commands.launch",
        "--multi_gpu",
        "--num_machines",
        "1",
        "--num_processes",
        "3",
    ]
    assert words[-4:] == [
        "-m",
        f"tunesmith_workers.programs.{recipe}",
        "a config.yaml",
        str(SHIPPED / recipe / "recipe.yaml"),
    ]


def test_an_evaluation_is_one_process_however_many_gpus_there_are(tmp_path):
    assert "accelerate.commands.launch" not in started(SHIPPED / "evaluate", tmp_path, "0,1")


@pytest.mark.parametrize("recipe", ["sft", "lora", "evaluate"])
def test_a_recipe_that_was_copied_earlier_still_starts(tmp_path, recipe):
    """Alone, without what the shipped ones share."""
    folder = tmp_path / "recipes/mine"
    shutil.copytree(SHIPPED / recipe, folder)
    (folder / "run.sh").write_text(COPIED % recipe)
    words = started(folder, tmp_path, "")
    assert words == ["-m", f"tunesmith_workers.{recipe}", "a config.yaml", str(folder / "recipe.yaml")]
    assert importlib.util.find_spec(words[1]) is not None
