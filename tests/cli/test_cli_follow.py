"""Following runs: each event once, also when the server is killed in the middle; bars on terminals."""

from __future__ import annotations

import itertools
import os
import pty
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.commands import Cli, command
from support.server import ServerProcess, clean_environment, polled, start_run, wait_for_run
from tunesmith.cli.events import Event, read_events


@pytest.fixture
def own(tmp_path: Path, recipes_dir: Path) -> Iterator[ServerProcess]:
    """A server that the test may kill."""
    with ServerProcess.start(tmp_path / "state", recipes_dir) as server:
        yield server


def _let_go(server: ServerProcess, run_id: str) -> None:
    (server.state_dir / "runs" / run_id / "go").touch()


def _halfway(server: ServerProcess) -> str:
    with server.client() as client:
        run_id = start_run(client, "waits")
        wait_for_run(client, run_id, lambda run: run["current_step"] == 10)
    return run_id


def test_a_killed_server_costs_a_follower_no_line(own: ServerProcess, cli: Cli) -> None:
    """`logs -f` prints each line exactly once although the server was killed and replaced, and the run had gone on."""
    run_id = _halfway(own)
    with cli.start("logs", run_id, "-f") as follower:
        assert follower.stdout is not None
        seen = [follower.stdout.readline() for _ in range(11)]
        own.kill9()
        _let_go(own, run_id)
        own.up()
        rest, errors = follower.communicate(timeout=60)
    lines = [line for line in "".join([*seen, rest]).split("\n") if line.startswith("line")]
    assert lines == [f"line {number}" for number in range(1, 21)]
    assert follower.returncode == 0
    assert "the service is away" in errors


def test_a_server_that_stops_politely_is_waited_for_too(own: ServerProcess, cli: Cli) -> None:
    """A restart for an upgrade looks to `watch` like a pause, also when the new server listens elsewhere."""
    run_id = _halfway(own)
    with cli.start("watch", run_id) as watcher:
        assert watcher.stdout is not None
        assert any("step 10/20" in line for line in iter(watcher.stdout.readline, ""))
        own.stop()
        _let_go(own, run_id)
        with ServerProcess.start(own.state_dir, own.recipes_dir):
            rest, _ = watcher.communicate(timeout=60)
    assert watcher.returncode == 0
    assert rest.count("step 20/20  loss 0.25  ETA 0:00") == 1
    assert re.search(r"state +succeeded", rest)
    assert str(own.state_dir / "runs" / run_id) in rest


def test_watch_prints_a_line_per_metrics_event_when_piped(ask: Cli, server: ServerProcess) -> None:
    """Without a terminal there is no bar: states, metrics, checkpoints, then the summary; 1 for a failure."""
    with server.client() as client:
        start_run(client, "counts")
    watched = ask("watch", "@latest")
    assert watched.returncode == 0, watched.stderr
    assert [line for line in watched.stdout.splitlines() if line.startswith("step")] == [
        "step 1/3  loss 0.1",
        "step 2/3  loss 0.2  ETA 0:01",
        "step 3/3  loss 0.3  ETA 0:00",
    ]
    assert "\x1b" not in watched.stdout
    with server.client() as client:
        start_run(client, "fails")
    failed = ask("watch", "@latest")
    assert failed.returncode == 1
    assert "train.jsonl:7: no row is left (add rows)" in failed.stdout


def test_watch_draws_a_bar_on_a_terminal(ask: Cli, server: ServerProcess) -> None:
    """On a terminal there is a bar with steps, loss, speed and time left, and --lines shows the log below it."""
    run_id = _halfway(server)
    ours, theirs = pty.openpty()
    env = clean_environment({"TUNESMITH_URL": server.url, "TERM": "xterm", "COLUMNS": "120"})
    with subprocess.Popen(
        command("watch", run_id, "--lines", "2"), stdin=theirs, stdout=theirs, stderr=theirs, env=env
    ) as watcher:
        os.close(theirs)
        screen = _read_until(ours, "10/20  loss 0.5")
        _let_go(server, run_id)
        screen += _read_until(ours, None)
    os.close(ours)
    assert watcher.returncode == 0
    assert "━" in screen
    assert "10/20  loss 0.5" in screen
    assert "20/20  loss 0.25" in screen
    assert re.search(r"steps/s|ETA", screen)


def test_what_a_preflight_tries_is_shown(ask: Cli, server: ServerProcess) -> None:
    """The part of a phase is in the bar, in the lines of `watch` and `logs`, and in the status while it goes on."""
    with server.client() as client:
        run_id = start_run(client, "tries")
        tried = polled(lambda: client.get(f"/v1/runs/{run_id}/status").json())
        assert next(status for status in tried if status["part"] == "a save")["phase"] == "preflight"
        ours, theirs = pty.openpty()
        env = clean_environment({"TUNESMITH_URL": server.url, "TERM": "xterm", "COLUMNS": "120"})
        with subprocess.Popen(command("watch", run_id), stdin=theirs, stdout=theirs, stderr=theirs, env=env):
            os.close(theirs)
            screen = _read_until(ours, "a save")
            _let_go(server, run_id)
            _read_until(ours, None)
        os.close(ours)
        assert "a save" in screen
        assert client.get(f"/v1/runs/{run_id}/status").json()["part"] is None
    shown = ["preflight: the longest batch  step 0/9", "preflight: a save  step 0/9", "training  step 0/9"]
    for words in (("watch", run_id), ("logs", run_id)):
        assert [line for line in ask(*words).stdout.splitlines() if "step 0/9" in line] == shown


def _read_until(terminal: int, wanted: str | None) -> str:
    seen = b""
    for _ in polled(lambda: None):
        try:
            piece = os.read(terminal, 65536)
        except OSError:
            break  # the other end is closed: the program has ended
        seen += piece
        if not piece or (wanted is not None and wanted in seen.decode(errors="replace")):
            break
    return seen.decode(errors="replace")


_events = st.lists(
    st.builds(
        Event,
        st.just("log"),
        st.fixed_dictionaries({"line": st.text()}),
        st.from_regex(r"\A[0-9]{1,6}\.[0-9]{1,3}\Z"),
    ),
    max_size=8,
)


@given(events=_events, cuts=st.lists(st.integers(min_value=0, max_value=400)), keep_alive=st.booleans())
def test_events_do_not_depend_on_how_their_bytes_arrive(
    *, events: list[Event], cuts: list[int], keep_alive: bool
) -> None:
    """Any split of the stream reads the same; text may hold anything that Unicode calls a line end."""
    stream = b": keep-alive\n\n" if keep_alive else b""
    for event in events:
        data = msgspec.json.encode(event.fields)
        stream += b"event: %b\nid: %b\ndata: %b\n\n" % (event.kind.encode(), event.id.encode(), data)
    bounds = sorted({0, *(min(cut, len(stream)) for cut in cuts), len(stream)})
    chunks = [stream[start:end] for start, end in itertools.pairwise(bounds)]
    assert list(read_events(chunks)) == events
    assert list(read_events([stream[:-1]])) == events[:-1]
