"""Listing, showing and cancelling runs, and reading their logs."""

from __future__ import annotations

import json

import pytest

from support.commands import Cli
from support.server import ServerProcess, start_run, wait_for_run


@pytest.fixture(scope="module")
def ended(server: ServerProcess) -> tuple[str, str]:
    """One run that succeeded and one that failed."""
    with server.client() as client:
        good, bad = start_run(client, "counts", notes="two\nlines"), start_run(client, "fails")
        assert wait_for_run(client, good)["status"] == "succeeded"
        assert wait_for_run(client, bad)["status"] == "failed"
    return good, bad


def test_runs_are_listed_newest_first_and_filtered(ask: Cli, ended: tuple[str, str]) -> None:
    """`runs list` shows all, and only what is asked for; as JSON too."""
    good, bad = ended
    plain = ask("runs", "list").stdout
    assert plain.splitlines()[0].split()[:3] == ["RUN", "STATE", "RECIPE"]
    assert plain.index(bad) < plain.index(good)
    failed = json.loads(ask("runs", "list", "--state", "failed", "--json").stdout)
    assert {run["status"] for run in failed} == {"failed"}
    assert failed[0]["run_id"] == bad
    counted = json.loads(ask("runs", "list", "--recipe", "counts", "--limit", "1", "--json").stdout)
    assert [run["run_id"] for run in counted] == [good]
    experiment = counted[0]["experiment_id"]
    assert bad not in ask("runs", "list", "--experiment", experiment).stdout
    assert ask("runs", "list", "--state", "asleep").returncode == 2


def test_a_run_is_shown_with_its_error_and_files(ask: Cli, server: ServerProcess, ended: tuple[str, str]) -> None:
    """`runs show` tells what went wrong, where, the mend, and where the files are."""
    good, bad = ended
    shown = ask("runs", "show", bad).stdout
    assert "train.jsonl:7: no row is left (add rows)" in shown
    assert str(server.state_dir / "runs" / bad) in shown
    assert json.loads(ask("runs", "show", good, "--json").stdout)["status"] == "succeeded"


@pytest.mark.parametrize("words", [("runs", "show"), ("runs", "cancel"), ("logs",), ("logs", "-f"), ("watch",)])
def test_an_unknown_run_is_an_error_everywhere(ask: Cli, words: tuple[str, ...]) -> None:
    """Whatever is asked of a run that is not there, the answer names it and the exit code is 1."""
    result = ask(*words, "run_nothing")
    assert result.returncode == 1
    assert "there is no run 'run_nothing'" in result.stderr


@pytest.mark.parametrize("reference", ["../keys", "..", "a b?c#d", "%2e%2e"])
def test_an_id_cannot_reach_another_address(ask: Cli, reference: str) -> None:
    """An id is one name, whatever is in it."""
    result = ask("runs", "show", reference)
    assert result.returncode == 1
    assert "there is no run" in result.stderr


def test_a_run_is_cancelled(ask: Cli, server: ServerProcess) -> None:
    """`runs cancel` answers when the run has ended; an ended one cannot be cancelled any more."""
    with server.client() as client:
        run_id = start_run(client, "waits")
        wait_for_run(client, run_id, lambda run: run["current_step"] == 10)
        result = ask("runs", "cancel", "@latest")
        assert result.returncode == 0, result.stderr
        assert "cancelled" in result.stdout
        assert client.get(f"/v1/runs/{run_id}").json()["status"] == "cancelled"
        good = start_run(client, "counts")
        wait_for_run(client, good)
    refused = ask("runs", "cancel", good)
    assert refused.returncode == 1
    assert "already ended" in refused.stderr


def test_a_log_is_printed_in_words_raw_or_as_json(ask: Cli, ended: tuple[str, str]) -> None:
    """Metrics are readable, markup is left as it is, odd line ends become visible, and --raw changes nothing."""
    words = ask("logs", ended[0]).stdout.split("\n")
    assert words[0] == r"hello [bold]not markup[/bold] \u2028 still the same line"
    assert words[1:3] == ["step 1/3  loss 0.1", "line 1"]
    assert words[-2] == "checkpoint at step 3: /somewhere/checkpoint-3"
    raw = ask("logs", ended[0], "--raw").stdout
    assert raw.startswith("hello [bold]not markup[/bold] \u2028 still the same line\n")
    assert '{"tunesmith":"metrics","step":1,"total_steps":3,"loss":0.1,"at":1001}\n' in raw
    lines = [json.loads(line) for line in ask("logs", ended[0], "--json").stdout.split("\n")[:-1]]
    assert [line["number"] for line in lines] == list(range(1, len(lines) + 1))


def test_following_a_log_ends_with_the_run(ask: Cli, ended: tuple[str, str]) -> None:
    """`logs -f` prints what `logs` prints and tells by its exit code how the run ended."""
    good, bad = ended
    followed = ask("logs", good, "-f")
    assert followed.returncode == 0
    assert followed.stdout == ask("logs", good).stdout
    assert "succeeded" in followed.stderr
    assert ask("logs", bad, "-f").returncode == 1
    events = [json.loads(line) for line in ask("logs", good, "-f", "--json").stdout.split("\n")[:-1]]
    assert [event["state"] for event in events if event["event"] == "state"][-1] == "succeeded"


def test_a_run_is_paused_and_gone_on_with(ask: Cli, server: ServerProcess) -> None:
    """`runs pause` waits until its process has ended; `runs resume` queues it again; neither works on an ended run."""
    with server.client() as client:
        run_id = start_run(client, "waits")
        wait_for_run(client, run_id, lambda run: run["status"] == "running")
        assert json.loads(ask("runs", "pause", run_id, "--json").stdout)["status"] == "paused"
        assert "queued" in ask("runs", "resume", run_id).stdout
        wait_for_run(client, run_id, lambda run: run["status"] == "running" and run["attempt"] == 2)
        ask("runs", "cancel", run_id)
        refused = ask("runs", "pause", run_id)
        assert refused.returncode == 1
        assert "only a running one can be paused" in refused.stderr
