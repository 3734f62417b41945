"""Tables and facts on a terminal: they fit 80 columns, and text from elsewhere cannot steer the terminal."""

from __future__ import annotations

import re

import pytest

from support.commands import command
from support.server import ServerProcess, start_run, wait_for_run, write_recipe
from support.terminal import on_terminal, without_styles

HOSTILE = "\x1b]0;owned\x07\x1b[2J\x9b31mred\u202etxt"
PRINTS_ESCAPES = r"""
printf '\x1b[31mred\x1b[0m \x1b]0;owned\x07 \x1b[2J tail\n'
printf '{"tunesmith":"message","text":"\\u001b[2Jgone","level":"warning"}\n'
printf '{"tunesmith":"metrics","step":1,"\\u001b[2Jloss":0.5}\n'
"""


@pytest.fixture(scope="module")
def filled(server: ServerProcess) -> str:
    """A run, a dataset, an experiment and a project with long and hostile names; answers the run's id."""
    write_recipe(server.recipes_dir, "escapes", PRINTS_ESCAPES)
    name = f"{HOSTILE} a name that is rather long for a column"
    with server.client() as client:
        run_id = start_run(client, "escapes", notes=HOSTILE)
        wait_for_run(client, run_id)
        experiment = {"name": name, "task_type": name, "base_model": name, "owner": name, "tags": [name]}
        client.post("/v1/experiments", json=experiment).raise_for_status()
        client.post("/api/v1/datasets", json={"name": name, "description": name}).raise_for_status()
        project = {"name": "a project" * 8, "dataset_name": "rows.jsonl" * 5, "training_yaml_name": "x.yaml"}
        client.post("/api/projects", json=project).raise_for_status()
    return run_id


TABLES = [
    ("runs", "list"),
    ("experiments", "list"),
    ("datasets", "list"),
    ("projects", "list"),
    ("recipes", "list"),
    ("settings",),
]


@pytest.mark.parametrize("words", TABLES, ids=" ".join)
def test_a_table_fits_80_columns(server: ServerProcess, filled: str, words: tuple[str, ...]) -> None:
    """No line is wider than the terminal, ids are whole, and nothing but styles reaches the terminal."""
    screen = without_styles(on_terminal(command(*words), {"TUNESMITH_URL": server.url}))
    assert max(map(len, screen.splitlines())) <= 80
    assert "\x1b" not in screen
    assert "\x07" not in screen
    assert "\x9b" not in screen
    assert "\u202e" not in screen
    if words == ("runs", "list"):
        assert filled in screen


def test_every_run_is_one_line_of_80_columns(server: ServerProcess, filled: str) -> None:
    """The runs table needs one line a run: its id, state, recipe, share done, loss, age and duration."""
    screen = without_styles(on_terminal(command("runs", "list", "--recipe", "escapes"), {"TUNESMITH_URL": server.url}))
    head, *rows = [line for line in screen.splitlines() if line.strip()]
    assert head.split() == ["run", "state", "recipe", "done", "loss", "age", "took"]
    assert [row.split()[0] for row in rows] == [filled]


@pytest.mark.parametrize("columns", [20, 50, 60, 70])
def test_a_narrow_terminal_cuts_no_id_and_loses_no_column(server: ServerProcess, filled: str, columns: int) -> None:
    """Where a table does not fit, it is printed as into a pipe: every id and every column is whole."""
    words = command("runs", "list", "--recipe", "escapes")
    screen = without_styles(on_terminal(words, {"TUNESMITH_URL": server.url}, columns=columns))
    head, *rows = [line for line in screen.splitlines() if line.strip()]
    assert head.lower().split() == ["run", "state", "recipe", "done", "loss", "age", "took"]
    assert [row.split()[:3] for row in rows] == [[filled, "succeeded", "escapes"]]


@pytest.mark.parametrize("words", [("logs",), ("logs", "-f"), ("runs", "show"), ("watch",)], ids=" ".join)
def test_what_a_run_prints_cannot_steer_the_terminal(
    server: ServerProcess, filled: str, words: tuple[str, ...]
) -> None:
    """Escape sequences in logs, messages, names of metrics and notes are shown, not obeyed; colours are dropped."""
    screen = without_styles(on_terminal(command(*words, filled), {"TUNESMITH_URL": server.url}))
    # What moves the bar of `watch` is its own: cursor up, clear the line, hide and show the cursor.
    screen = re.sub(r"\x1b\[(?:1?[0-9]*A|2K|\?25[hl])", "", screen)
    assert "\x1b" not in screen
    assert "\x07" not in screen
    assert "\x9b" not in screen
    if words[0] == "logs":
        assert r"red \x1b]0;owned\x07  tail" in screen
        assert r"warning: \x1b[2Jgone" in screen


def test_an_error_cannot_steer_the_terminal(server: ServerProcess) -> None:
    """What a person typed or a service answered comes back with its escape sequences made visible."""
    words = command("runs", "show", "x\x1b[2Jy")
    screen = on_terminal(["sh", "-c", '"$@" || true', "sh", *words], {"TUNESMITH_URL": server.url})
    assert "\x1b[2J" not in screen
    assert r"x\x1b[2Jy" in screen or r"x\\x1b[2Jy" in screen or "x%1B" in screen
