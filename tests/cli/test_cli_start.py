"""Doing from the command line what the README does with curl: an experiment, a run of it, and naming both."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.commands import Cli
from support.server import ServerProcess, start_run, wait_for_run, write_recipe

ROW = '{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"}]}\n'


def test_an_experiment_is_created_listed_and_shown(ask: Cli) -> None:
    """`experiments create` prints the id; `list` filters; `show` takes an id, a name or @latest."""
    made = ask("experiments", "create", "orders", "--task", "counts", "--owner", "ana", "--tag", "json")
    assert made.returncode == 0, made.stderr
    experiment_id = made.stdout.strip()
    assert "orders" in ask("experiments", "list", "--tag", "json").stdout
    for reference in (experiment_id, "orders", "@latest"):
        shown = json.loads(ask("experiments", "show", reference, "--json").stdout)
        assert (shown["id"], shown["owner"], shown["tags"]) == (experiment_id, "ana", ["json"])
    unknown = ask("experiments", "show", "no such thing")
    assert unknown.returncode == 1
    assert "there is no experiment 'no such thing'" in unknown.stderr


def test_a_run_is_started_in_an_experiment(ask: Cli, server: ServerProcess) -> None:
    """`runs start` sends recipe, settings as YAML reads them, notes and seed; what it prints names the run."""
    experiment_id = ask("experiments", "create", "started", "--task", "counts").stdout.strip()
    words = ("--experiment", "started", "--set", "max_steps=3", "--notes", "first try", "--json")
    started = json.loads(ask("runs", "start", *words).stdout)
    assert (started["experiment_id"], started["recipe"]) == (experiment_id, "counts")
    assert (started["hyperparams"], started["notes"]) == ({"max_steps": 3}, "first try")
    with server.client() as client:
        assert wait_for_run(client, started["run_id"])["status"] == "succeeded"


def test_a_run_without_an_experiment_goes_into_one_of_its_own(ask: Cli) -> None:
    """Runs that name only a recipe share one experiment for that recipe; with --watch the exit code is the run's."""
    first = ask("runs", "start", "--recipe", "counts", "--watch")
    assert first.returncode == 0, first.stderr
    assert "step 3/3" in first.stdout
    failed = ask("runs", "start", "--recipe", "fails", "--watch")
    assert failed.returncode == 1
    assert "no row is left" in failed.stdout
    again = [json.loads(ask("runs", "start", "--recipe", "counts", "--json").stdout) for _ in range(2)]
    assert again[0]["experiment_id"] == again[1]["experiment_id"]
    assert again[0]["run_id"] != again[1]["run_id"]


def test_what_is_wrong_with_a_start_is_said_at_once(ask: Cli) -> None:
    """A recipe, an option or an experiment that does not exist, or none at all: the answer names it and what to do."""
    misspelt = ask("runs", "start", "--recipe", "counts", "--set", "max_stesp=3")
    assert misspelt.returncode == 1
    assert "max_steps" in misspelt.stderr
    assert "there is no experiment 'x'" in ask("runs", "start", "--experiment", "x").stderr
    nothing = ask("runs", "start")
    assert nothing.returncode == 2
    assert "--recipe" in nothing.stderr


def test_a_run_is_named_by_the_beginning_of_its_id(ask: Cli, server: ServerProcess) -> None:
    """A prefix is enough when no other id has it, with or without `run_`; otherwise the candidates are shown."""
    with server.client() as client:
        run_id = start_run(client, "counts")
        wait_for_run(client, run_id)
        start_run(client, "counts")
    for reference in (run_id[:-2], run_id.removeprefix("run_")[:-2], run_id):
        shown = ask("runs", "show", reference, "--json")
        assert json.loads(shown.stdout)["run_id"] == run_id
    several = ask("runs", "show", "run_")
    assert several.returncode == 1
    assert "beginning of several run ids" in several.stderr
    assert run_id in several.stderr
    assert ask("logs", "@latest").returncode == 0


def test_an_empty_list_is_said_in_a_word(ask: Cli) -> None:
    """Filters that match nothing say so on standard error; standard output stays empty for scripts."""
    lists = [("runs", "--recipe"), ("experiments", "--owner"), ("projects", "--owner")]
    for words in [(name, "list", option, "nobody") for name, option in lists]:
        found = ask(*words)
        assert (found.returncode, found.stdout) == (0, "")
        assert found.stderr == f"no {words[0]} match\n"


@pytest.mark.parametrize("recipe", ["nothing", "lörä", "a/b", "..", "count", "x\x1b\r\ny"])
def test_a_recipe_that_does_not_exist_leaves_nothing_behind(ask: Cli, recipe: str) -> None:
    """It is refused in words, with the nearest name, and no experiment is made for it."""
    before = ask("experiments", "list", "--json").stdout
    refused = ask("runs", "start", "--recipe", recipe)
    assert refused.returncode == 1
    assert refused.stderr.startswith("error: --recipe: there is no recipe")
    assert "tunesmith recipes list" in refused.stderr
    assert ("did you mean counts?" in refused.stderr) == (recipe == "count")
    assert ask("experiments", "list", "--json").stdout == before


def test_an_experiment_may_be_called_last(ask: Cli) -> None:
    """Only @latest stands for the newest; `last` is a name like any other."""
    named = ask("experiments", "create", "last", "--task", "counts").stdout.strip()
    ask("experiments", "create", "newer", "--task", "counts")
    assert json.loads(ask("experiments", "show", "last", "--json").stdout)["id"] == named
    assert ask("runs", "show", "last").returncode == 1


@pytest.fixture(scope="module")
def trainer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cli]:
    """The command line beside a server with a recipe that takes data, and with a dataset called rows."""
    home = tmp_path_factory.mktemp("trainer")
    config = {"model": {"base": None}, "training": {"max_steps": 1}}
    schema = {"model.base": {"type": "str", "optional": True}}
    write_recipe(home / "recipes", "trains", "true", config, data=["messages"], schema=schema)
    with ServerProcess.start(home / "state", home / "recipes", {"TUNESMITH_ALLOWED_ROOTS": str(home)}) as server:
        cli = Cli(home, {"TUNESMITH_URL": server.url})
        assert cli("datasets", "create", "rows").returncode == 0
        (home / "train.jsonl").write_text(ROW)
        assert cli("datasets", "upload", home / "train.jsonl", "--dataset", "rows").returncode == 0
        (home / "both" / "rows").mkdir(parents=True)
        (home / "both" / "rows" / "train.jsonl").write_text(ROW)
        yield cli


def _data(cli: Cli, name: str, folder: Path) -> str:
    """Where the data lies that a run with this ``--data`` gets."""
    words = ("--recipe", "trains", "--model", "org/base", "--data", name, "--json")
    started = cli("runs", "start", *words, cwd=folder)
    assert started.returncode == 0, started.stderr
    return str(json.loads(started.stdout)["dataset"]["path"])


def test_data_is_a_dataset_before_it_is_a_file_here(trainer: Cli) -> None:
    """A plain name is an uploaded dataset where there is one, else a file of the folder; ./NAME is always a path."""
    assert "/uploads/" in _data(trainer, "rows", trainer.folder)
    assert _data(trainer, "train.jsonl", trainer.folder) == str(trainer.folder / "train.jsonl")
    assert _data(trainer, "both/rows", trainer.folder) == str(trainer.folder / "both" / "rows" / "train.jsonl")
    assert _data(trainer, "./rows", trainer.folder / "both") == str(trainer.folder / "both" / "rows" / "train.jsonl")


def test_data_that_could_be_either_is_refused(trainer: Cli) -> None:
    """A dataset and a folder of one name: no run is started, and the answer says how to name each of them."""
    dataset = json.loads(trainer("datasets", "show", "rows", "--json").stdout)["id"]
    words = ("--recipe", "trains", "--model", "org/base", "--data", "rows")
    refused = trainer("runs", "start", *words, cwd=trainer.folder / "both")
    assert refused.returncode == 1
    assert "is a dataset, and also a folder here" in refused.stderr
    assert "./rows" in refused.stderr
    assert dataset in refused.stderr
    assert "/uploads/" in _data(trainer, dataset, trainer.folder / "both")
