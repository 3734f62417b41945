"""Doing from the command line what the README does with curl: an experiment, a run of it, and naming both."""

from __future__ import annotations

import json

from support.commands import Cli
from support.server import ServerProcess, start_run, wait_for_run


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
    assert ask("runs", "start", "--recipe", "nothing").returncode == 1
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
