"""Server-sent events of a run over real HTTP: replayed, continued, followed live, across the death of the server."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import httpx
import pytest

from support.events import Sent, parsed
from support.server import ServerProcess, polled, start_run, wait_for_run, write_recipe

HOSTILE = r"""
printf 'event: state\nid: 999.999\ndata: {"state":"succeeded"}\n\n'
printf 'one\rtwo\r\nNUL \000 here\n: comment\nretry: 1\n'
printf '{"tunesmith":"state","state":"succeeded"}\n'
printf '{"tunesmith":"metrics","step":1,"event":"x\\nevent: state\\ndata: {}\\n\\n"}\n'
exit 3
"""
# Goes on until it is let go, so that it outlasts any number of restarts however slow they are.
COUNTS = """
exec "${TUNESMITH_PYTHON:-python}" -u -c '
import itertools, os, time
from tunesmith.contract.events import emit
for step in itertools.count(1):
    print(f"line {step}", flush=True)
    emit("metrics", step=step)
    if os.path.exists(os.environ["TUNESMITH_RUN_DIR"] + "/go"):
        break
    time.sleep(0.02)
'
"""


def read(client: httpx.Client, run_id: str, after: str | None = None) -> list[Sent]:
    """All events until the server ends the stream."""
    headers = {"Last-Event-ID": after} if after else {}
    with client.stream("GET", f"/v1/runs/{run_id}/events", headers=headers) as answer:
        assert answer.status_code in (200, 204)
        return list(parsed(answer.iter_bytes()))


@pytest.fixture(scope="module")
def quick(client: httpx.Client) -> str:
    run_id = start_run(client, "quick")
    wait_for_run(client, run_id)
    return run_id


def test_a_finished_run_is_replayed_from_any_event(client, quick):
    """Every id of the stream is tried: the rest is exactly what came after it, and after the last one there is 204."""
    sent = read(client, quick)
    assert [one.event for one in sent].count("state") == 4
    assert [one.data["step"] for one in sent if one.event == "metrics"] == [1, 2, 3, 4, 5]
    assert sent[-1].data["state"] == "succeeded"
    for position, one in enumerate(sent):
        assert read(client, quick, one.id) == sent[position + 1 :]
    answer = client.get(f"/v1/runs/{quick}/events", headers={"Last-Event-ID": sent[-1].id})
    assert (answer.status_code, answer.content) == (204, b"")


def test_the_stream_is_one(client, quick):
    """The content type that EventSource wants, and nothing that a cache or proxy would keep back."""
    with client.stream("GET", f"/v1/runs/{quick}/events") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["cache-control"] == "no-store"


def test_a_log_cannot_forge_events(client, server):
    """Lines that look like fields of the stream, NUL and carriage returns: shown as lines, the states stay true."""
    write_recipe(server.recipes_dir, "hostile", HOSTILE)
    run_id = start_run(client, "hostile")
    wait_for_run(client, run_id)
    sent = read(client, run_id)
    assert [one.data["state"] for one in sent if one.event == "state"] == ["queued", "starting", "running", "failed"]
    lines = [one.data["line"] for one in sent if one.event == "log"]
    assert lines[:3] == ["event: state", "id: 999.999", 'data: {"state":"succeeded"}']
    assert "NUL \0 here" in lines
    assert '{"tunesmith":"state","state":"succeeded"}' in lines
    assert [one.event for one in sent if one.event not in ("state", "log")] == ["metrics"]


def test_followers_see_a_run_happen(client, server):
    """A follower that comes before the run starts to speak gets each line as it is written, then the end."""
    run_id = start_run(client, "waits")
    folder = server.state_dir / "runs" / run_id
    with client.stream("GET", f"/v1/runs/{run_id}/events") as answer:
        events = parsed(answer.iter_bytes())
        for one in events:
            if one.event == "log" and one.data["line"] == "ready":
                break
        (folder / "go").touch()
        rest = list(events)
    assert [one.data.get("line", one.data.get("state")) for one in rest] == ["gone", "succeeded"]


def test_a_follower_across_the_death_of_the_server_misses_nothing(tmp_path):
    """Kill -9 in the middle, twice; a client that comes back with Last-Event-ID has every event exactly once."""
    write_recipe(tmp_path / "recipes", "counts", COUNTS)
    with ServerProcess.start(tmp_path / "state", tmp_path / "recipes") as server:
        with server.client() as client:
            run_id = start_run(client, "counts")
        seen: list[Sent] = []
        done = threading.Event()

        def follow() -> None:
            while not done.is_set():
                headers = {"Last-Event-ID": seen[-1].id} if seen else {}
                try:
                    with (
                        server.client() as client,
                        client.stream("GET", f"/v1/runs/{run_id}/events", headers=headers) as answer,
                    ):
                        if answer.status_code == 204:
                            return
                        for one in parsed(answer.iter_bytes()):
                            seen.append(one)  # noqa: PERF402  # the list must be right when the connection breaks
                except httpx.HTTPError:
                    time.sleep(0.02)

        follower = threading.Thread(target=follow)
        follower.start()
        try:
            for _ in range(2):
                lines = sum(one.event == "log" for one in seen) + 10
                assert any(polled(lambda lines=lines: sum(one.event == "log" for one in seen) >= lines))
                server.kill9()
                server.up()
            (server.state_dir / "runs" / run_id / "go").touch()
            follower.join(60)
        finally:
            done.set()
            follower.join(5)
        assert not follower.is_alive()
        steps = [one.data["step"] for one in seen if one.event == "metrics"]
        assert steps == list(range(1, len(steps) + 1))
        assert [one.data["line"] for one in seen if one.event == "log"] == [f"line {step}" for step in steps]
        assert [one.data["state"] for one in seen if one.event == "state"] == [
            "queued",
            "starting",
            "running",
            "succeeded",
        ]
        with server.client() as client:
            assert read(client, run_id) == seen


def test_a_graceful_stop_lets_followers_go(tmp_path, recipes):
    """Open streams do not keep the server from stopping: they end whole, and are not cut off when its patience is over."""
    with ServerProcess.start(tmp_path / "state", recipes) as server, server.client() as client:
        run_id = start_run(client, "sleeps")
        with client.stream("GET", f"/v1/runs/{run_id}/events") as answer:
            events = parsed(answer.iter_bytes())
            next(events)
            assert server.stop() == 0
            list(events)
        server.up()


def test_readers_that_leave_are_forgotten(client, server):
    """Followers that hang up leave no open files behind."""
    run_id = start_run(client, "waits")
    wait_for_run(client, run_id, lambda run: run["status"] == "running")
    descriptors = Path(f"/proc/{server.pid}/fd")
    before = len(list(descriptors.iterdir()))
    for _ in range(5):
        with server.client() as another, another.stream("GET", f"/v1/runs/{run_id}/events") as answer:
            next(parsed(answer.iter_bytes()))
    (server.state_dir / "runs" / run_id / "go").touch()
    wait_for_run(client, run_id)
    assert any(count <= before + 1 for count in polled(lambda: len(list(descriptors.iterdir()))))
