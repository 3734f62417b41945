"""The commands for projects, artifacts and filtered logs, called as a user does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from support.commands import Cli
from support.server import wait_for_run


@pytest.fixture
def ask(tmp_path: Path, server) -> Cli:
    return Cli(tmp_path, {"TUNESMITH_URL": server.url})


def test_a_project_is_made_started_and_shown(ask, client, server):
    """From `projects create` to a run with its own settings; every command prints JSON when asked."""
    made = ask("projects", "create", "from cli", "--dataset", "orders.jsonl", "--config", "orders.yaml", "--tag", "cli")
    assert made.returncode == 0, made.stderr
    assert "orders.yaml" in made.stdout
    run = ask(
        "projects", "run", "from cli", "--set", "lr=1e-2", "--set", "training.max_steps=3", "--notes", "x", "--json"
    )
    assert run.returncode == 1
    assert "hyperparams.lr" in run.stderr
    started = ask("projects", "run", "from cli", "--set", "learning_rate=1e-2", "--seed", "5", "--notes", "x", "--json")
    assert started.returncode == 0, started.stderr
    run_id = json.loads(started.stdout)["id"]
    assert "learning_rate: 0.01" in (server.state_dir / "runs" / run_id / "config.yaml").read_text()
    wait_for_run(client, run_id)
    shown = ask("projects", "show", "from cli").stdout
    assert run_id in shown
    assert "100%" in shown
    listed = json.loads(ask("projects", "list", "--tag", "cli", "--json").stdout)
    assert [one["name"] for one in listed] == ["from cli"]
    assert "from cli" in ask("projects", "list").stdout
    assert "no projects" in ask("projects", "list", "--owner", "nobody").stderr


@pytest.mark.parametrize("name", ["nothing", "../keys", "..", "a b?c#d"])
def test_a_project_that_is_not_there_is_an_error(ask, name):
    """An argument is one name and reaches no other address; all that is missing is told."""
    result = ask("projects", "show", name)
    assert result.returncode == 1
    assert "there is no project" in result.stderr
    assert ask("projects", "run", "orders", "--set", "novalue").returncode == 2


def test_what_is_missing_is_told(ask):
    """Both files of a project that has neither."""
    assert ask("projects", "create", "bare", "--dataset", "no.jsonl", "--config", "no.yaml").returncode == 0
    refused = ask("projects", "run", "bare")
    assert refused.returncode == 1
    assert "dataset_name" in refused.stderr
    assert "training_yaml_name" in refused.stderr


def test_artifacts_are_listed_and_fetched(ask, done, tmp_path):
    """A table, JSON, and the files themselves below a folder; nothing half-fetched beside them."""
    table = ask("runs", "artifacts", done["id"]).stdout
    assert "output/adapter_model.safetensors" in table
    listed = json.loads(ask("runs", "artifacts", done["id"], "--json").stdout)
    assert listed == done["artifacts"]
    fetched = ask("runs", "artifacts", done["id"], "--download", "here")
    assert fetched.returncode == 0, fetched.stderr
    assert (tmp_path / "here/output/adapter_model.safetensors").read_text() == "0123456789"
    files = {str(path.relative_to(tmp_path / "here")) for path in (tmp_path / "here").rglob("*") if path.is_file()}
    assert files == {one["path"] for one in listed}
    ask("runs", "artifacts", done["id"], "--kind", "report", "--download", "report")
    assert [path.name for path in (tmp_path / "report").rglob("*.*")] == ["report.json"]


def test_a_log_is_filtered(ask, done):
    """By level and by text, in words, raw and as JSON."""
    assert ask("logs", done["id"], "--level", "error").stdout.splitlines() == [
        "2026-11-20 21:00:00,123 - trainer - ERROR - nearly failed"
    ]
    assert ask("logs", done["id"], "--grep", "CAREFUL", "--raw").stdout == "WARNING:root:careful now\n"
    warned = [
        json.loads(line)["level"]
        for line in ask("logs", done["id"], "--level", "warning", "--json").stdout.splitlines()
    ]
    assert warned == ["warning", "error"]
    assert ask("logs", done["id"], "--grep", "nowhere").stdout == ""
    assert ask("logs", done["id"], "-f", "--level", "error").returncode == 2
