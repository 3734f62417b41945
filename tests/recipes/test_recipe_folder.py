"""A recipe folder is read whole or reported with everything that is wrong with it; nothing in it is followed or run."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
from pathlib import Path

import pytest

from tunesmith.recipes import BrokenRecipe, Recipe, read_recipe, resolve, start_command, to_yaml
from tunesmith.records import RunKind
from tunesmith.safe_yaml import load


def faults_of(folder: Path) -> list[str]:
    recipe = read_recipe(folder)
    return [str(fault) for fault in recipe.faults] if isinstance(recipe, BrokenRecipe) else []


def test_a_good_folder_becomes_a_recipe(write_recipe) -> None:
    """Everything in recipe.yaml is there, typed, with the opening comment as its description."""
    folder = write_recipe()
    recipe = read_recipe(folder)
    assert isinstance(recipe, Recipe)
    assert (recipe.name, recipe.kind, recipe.summary) == ("tiny", RunKind.TRAIN, "a recipe for the tests")
    assert recipe.data == ("messages", "prompt_completion")
    assert (recipe.resources.gpus, recipe.resources.cpu) == (1, True)
    assert recipe.about == "Trains nothing; it is here for the tests.\nBy hand: bash run.sh config.yaml"
    assert recipe.saves_when_stopped, "unless it says otherwise"
    assert recipe.schema["training.learning_rate"].type == "float"
    assert recipe.schema["training.max_steps"].optional
    assert recipe.schema["training.scheduler.warmup"].default == 0.1
    assert recipe.schema["training.scheduler_kwargs"].type == "mapping"
    assert start_command(recipe, Path("/c.yaml")) == ("bash", str(folder / "run.sh"), "/c.yaml")


def test_every_recipe_has_the_job_section(write_recipe) -> None:
    """A recipe need not declare the options by which a train config names it."""
    recipe = read_recipe(write_recipe())
    assert recipe.config["job"] == {"type": "tiny", "method": None, "project": None}
    assert next(iter(recipe.config)) == "job"


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("name: tiny", "name: small", "recipe.yaml: name: must equal the folder's name"),
        ("name: tiny", "name: 5", "must equal the folder's name, not the number 5"),
        ("kind: train", "kind: trian", "recipe.yaml: kind: must be one of train, evaluate, export"),
        ("kind: train\n", "", "recipe.yaml: kind: is missing"),
        ("kind: train\n", "kind: train\nkind: export\n", "recipe.yaml:5: gives the key 'kind' twice"),
        ("summary: a recipe for the tests", "summary:", "summary: must be one line"),
        ("summary: a", "shema: {}\nsummary: a", "recipe.yaml: shema: no such key (did you mean schema?)"),
        ("[messages, prompt_completion]", "[message]", "(did you mean messages?)"),
        ("[messages, prompt_completion]", "messages", "data: must be a list"),
        ("{gpus: 1, cpu: true}", "{gpus: -1, cpu: true}", "resources.gpus: must be a whole number"),
        ("{gpus: 1, cpu: true}", "{gpus: true, cpu: true}", "resources.gpus: must be a whole number"),
        ("{gpus: 1, cpu: true}", "{gpus: 1, cpu: yes}", "resources.cpu: must be true or false"),
        ("{gpus: 1, cpu: true}", "{gpus: 0, cpu: false}", "neither a GPU nor a CPU"),
        ("{gpus: 1, cpu: true}", "", "neither a GPU nor a CPU"),
        ("{gpus: 1, cpu: true}", "5", "resources: must be a mapping"),
        ("summary: a", "saves_when_stopped: no\nsummary: a", "saves_when_stopped: must be true or false"),
        ("{gpus: 1, cpu: true}", "{gpu: 1, gpus: 1, cpu: true}", "resources.gpu: no such key (did you mean gpus?)"),
        ("lr: training.learning_rate", "lr: training.learning_rte", "(did you mean training.learning_rate?)"),
        ("lr: training.learning_rate", "seed: lora.r", "aliases.seed: hides training.seed"),
        ("lr: training.learning_rate", "lora: lora.r", "aliases.lora: hides lora"),
        ("model: {base: null, dtype: auto}", "model: 5", "config.model: must be a mapping"),
        ("bf16: true", "bf.16: true", "cannot be the name of an option"),
        ("seed: 42", "seed: null", "config.training.seed: has the default null"),
        ("seed: 42", "seed: .nan", "config.training.seed: must be a finite number"),
        ("learning_rate: 1e-4", "learning_rate: '1e-4'", "config.training.learning_rate: must be a number"),
        ("learning_rate: 1e-4", "learning_rate: 2.0", "config.training.learning_rate: must be at most 1"),
        ("strategy: steps", "strategy: step", "(did you mean steps?)"),
        ("[all-linear]", "[1]", "config.lora.target_modules[0]: must be text"),
        ("{type: int, min: 1}", "{type: integer, min: 1}", "schema.training.max_steps.type: must be one of"),
        ("{type: int, min: 1}", "{type: int, minimum: 1}", "schema.training.max_steps.minimum: no such key"),
        ("{type: int, min: 1}", "{type: int, min: one}", "schema.training.max_steps.min: must be a number"),
        ("{type: int, min: 1}", "{type: int, min: 5, max: 1}", "min is larger than max"),
        ("{type: int, min: 1}", "{type: int, optional: maybe}", "optional: must be true or false"),
        ("{type: int, min: 1}", "{type: int, items: str}", "items: must be one of"),
        ("{type: int, min: 1}", "int", "schema.training.max_steps: must be a mapping"),
        ('choices: ["no", steps, epoch]', "choices: [true, steps]", "choices: must be a list, each item text"),
        ("#!/usr/bin/env bash\n", "", "run.sh:1: does not open with a shebang"),
        ("set -euo pipefail", "# set -euo pipefail", "run.sh: lacks `set -euo pipefail`"),
        ("set -euo pipefail\n", "set -euo pipefail\r\n", "run.sh: has Windows line ends"),
    ],
)
def test_a_mistake_is_reported_where_it_is(write_recipe, old: str, new: str, fault: str) -> None:
    """One mistake, one fault, with its place and, where there is one, the nearest right name."""
    folder = write_recipe("tiny", (old, new))
    found = faults_of(folder)
    assert len(found) == 1
    assert fault in found[0]


def test_a_folder_without_opening_comments_works_and_is_told_of(write_recipe) -> None:
    """Whoever reads it misses them; whoever runs it does not."""
    about = "# Trains nothing; it is here for the tests.\n# By hand: bash run.sh config.yaml\n"
    recipe = read_recipe(write_recipe("tiny", (about, ""), ("# Prints its argument and the file it names.\n", "")))
    assert isinstance(recipe, Recipe)
    assert [(hint.where, hint.message) for hint in recipe.warnings] == [
        ("run.sh", "has no opening comment"),
        ("recipe.yaml", "has no opening comment"),
    ]
    assert all(hint.mend for hint in recipe.warnings)


def test_files_that_are_something_else_entirely_are_reported(write_recipe) -> None:
    """A list instead of a mapping, text instead of defaults: reported like any other mistake."""
    folder = write_recipe()
    (folder / "recipe.yaml").write_text("# about\n- a\n")
    assert faults_of(folder)[0].startswith("recipe.yaml: must be a mapping")
    (folder / "recipe.yaml").write_text(
        "# about\nname: tiny\nkind: train\nsummary: s\ndata: []\nresources: {cpu: true}\nconfig: x\n"
    )
    assert faults_of(folder) == [
        'recipe.yaml: config: must be a mapping, not the text "x" (nest the defaults by sections)'
    ]


def test_what_points_at_a_misnamed_thing_is_reported_too(write_recipe) -> None:
    """A section or option under a wrong name leaves the schema pointing nowhere; both ends are named."""
    section, schema = faults_of(write_recipe("tiny", ("  lora:\n", "  lorra:\n")))
    assert section.endswith("(did you mean lora?)")
    assert schema.startswith("recipe.yaml: schema.lora.target_modules: is no option")
    schema, option = faults_of(write_recipe("tiny", ("training.max_steps:", "training.max_step:")))
    assert schema.endswith("(did you mean training.max_steps?)")
    assert option.startswith("recipe.yaml: config.training.max_steps: has the default null")


def test_all_mistakes_are_reported_at_once(write_recipe) -> None:
    """Mending a recipe takes one round, not one for each mistake."""
    folder = write_recipe(
        "tiny",
        ("kind: train", "kind: tune"),
        ("seed: 42", "seed: null"),
        ("set -euo pipefail", "set -e"),
        ("cpu: true", "cpu: 1"),
    )
    assert len(faults_of(folder)) == 4


@pytest.mark.parametrize("name", ["recipe.yaml", "run.sh"])
@pytest.mark.parametrize("kind", ["link", "fifo", "socket", "folder", "missing", "huge", "binary"])
def test_only_small_regular_files_are_read(write_recipe, tmp_path: Path, name: str, kind: str) -> None:
    """RELIABILITY 29: links, pipes, devices and folders are refused without being opened; a pipe would block for ever."""
    folder = write_recipe()
    path = folder / name
    content = path.read_bytes()
    path.unlink()
    listening = socket.socket(socket.AF_UNIX)
    try:
        if kind == "link":
            (tmp_path / name).write_bytes(content)
            path.symlink_to(tmp_path / name)
        elif kind == "fifo":
            os.mkfifo(path)
        elif kind == "socket":
            with contextlib.chdir(folder):  # the address must be short
                listening.bind(name)
        elif kind == "folder":
            path.mkdir()
        elif kind == "huge":
            path.write_bytes(content + b"#" * 300_000)
        elif kind == "binary":
            path.write_bytes(content + b"\xff\xfe")
        found = faults_of(folder)
    finally:
        listening.close()
    wanted = {"missing": "is missing", "huge": "is longer than", "binary": "is not UTF-8"}.get(
        kind, "not a regular file"
    )
    assert len(found) == 1
    assert found[0].startswith(name)
    assert wanted in found[0]


def test_a_linked_folder_is_refused(write_recipe, recipes_dir: Path) -> None:
    """A link could lead anywhere, and change its mind between the check and the run."""
    (recipes_dir / "linked").symlink_to(write_recipe())
    assert "symbolic link" in faults_of(recipes_dir / "linked")[0]


def test_an_alias_may_pick_one_of_two_options_with_its_name(write_recipe) -> None:
    """`seed` alone would be ambiguous here; the recipe says which one is meant."""
    recipe = read_recipe(write_recipe("tiny", ("  lr: ", "  seed: training.seed\n  lr: ")))
    assert resolve(recipe, request={"seed": 1}, filled={})["training"]["seed"] == 1


@pytest.mark.parametrize(
    "config_name", ["config.yaml", "a b.yaml", "$(touch owned).yaml", "; touch owned", "-n", "学习.yaml"]
)
def test_the_program_sees_exactly_its_argument(write_recipe, tmp_path: Path, config_name: str) -> None:
    """RELIABILITY 34: neither the config's path nor a value in it is read by a shell."""
    recipe = read_recipe(write_recipe())
    hostile = {"model.base": "$(touch owned); `touch owned`\n'\"; touch owned #"}
    config = resolve(recipe, filled=hostile)
    path = tmp_path / config_name
    path.write_bytes(to_yaml(config))
    work = tmp_path / "work"
    work.mkdir()
    done = subprocess.run(start_command(recipe, path), capture_output=True, cwd=work, timeout=20, check=True)
    first, _, rest = done.stdout.partition(b"\n")
    assert first.decode() == str(path)
    assert load(rest, source="stdout") == config
    assert list(work.iterdir()) == []


def test_the_recipe_in_the_docs_is_a_good_one(recipes_dir: Path) -> None:
    """What docs/recipes.md tells people to start with checks out as it stands there."""
    page = (Path(__file__).parents[2] / "docs" / "recipes.md").read_text()
    folder = recipes_dir / "my-trainer"
    folder.mkdir()
    for name, language in (("recipe.yaml", "yaml"), ("run.sh", "bash")):
        (folder / name).write_text(page.partition(f"```{language}\n")[2].partition("```")[0])
    assert faults_of(folder) == []
