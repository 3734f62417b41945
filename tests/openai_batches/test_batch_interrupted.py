"""A batch that is cancelled, or whose server is killed, keeps each answer that it has, and asks nothing twice that was answered."""

from __future__ import annotations

import json
import resource
import shutil
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest
from batch_parts import URL, again, create, files_of, lines_of, once, request, shown, start_server, started, upload

from support.deployed import remove_all
from support.server import ServerProcess, polled


def half_way(client: httpx.Client, engine: Any) -> str:
    """The id of a batch that has 10 answers, 2 refusals, and 12 requests that are held."""
    requests = [request(f"n{number}", f"number {number}") for number in range(10)]
    requests += [request(f"x{number}", f"refuse {number}") for number in range(2)]
    requests += [request(f"h{number}", f"hold {number}") for number in range(12)]
    batch_id = started(client, requests)
    counts = {"total": 24, "completed": 10, "failed": 2}
    assert any(shown(client, batch_id)["request_counts"] == counts for _ in polled(lambda: None))
    assert any(sum("hold" in said for said in engine.asked) == 12 for _ in polled(lambda: None))
    return batch_id


def test_a_cancelled_batch_keeps_what_was_answered(client, engine):
    batch_id = half_way(client, engine)
    answer = client.post(f"/v1/batches/{batch_id}/cancel").raise_for_status().json()
    assert answer["status"] == "cancelling"
    batch = once(client, batch_id)
    assert batch["status"] == "cancelled"
    assert batch["request_counts"] == {"total": 24, "completed": 10, "failed": 2}
    assert batch["created_at"] <= batch["cancelling_at"] <= batch["cancelled_at"]
    output, errors = files_of(client, batch)
    assert set(output) == {f"n{number}" for number in range(10)}
    assert set(errors) == {"x0", "x1"}
    assert client.post(f"/v1/batches/{batch_id}/cancel").raise_for_status().json() == batch
    engine.go()


def test_a_batch_that_nobody_has_begun_is_cancelled_too(client):
    batch_id = create(client, upload(client, lines_of([request("a", "hold")]))).json()["id"]
    client.post(f"/v1/batches/{batch_id}/cancel").raise_for_status()
    batch = once(client, batch_id)
    assert (batch["status"], batch["output_file_id"], batch["error_file_id"]) == ("cancelled", None, None)


@pytest.mark.parametrize(
    "torn", [b"", b'{"id":"batch_req_1","custom_id":"h3","resp', b"\0" * 400], ids=["", "torn", "zeros"]
)
def test_a_killed_server_goes_on_where_it_was(server: ServerProcess, engine, tmp_path: Path, torn: bytes):
    with server.client() as client:
        batch_id = half_way(client, engine)
    server.kill9()
    lines = tmp_path / "state/batches" / batch_id / "output.jsonl"
    with lines.open("ab") as file:
        file.write(torn)
    server.up()
    with server.client() as client:
        counts = {"total": 24, "completed": 10, "failed": 2}
        assert any(shown(client, batch_id)["request_counts"] == counts for _ in polled(lambda: None))
        engine.go()
        batch = once(client, batch_id)
        assert batch["status"] == "completed"
        assert batch["request_counts"] == {"total": 24, "completed": 22, "failed": 2}
        output, errors = files_of(client, batch)
    assert (len(output), len(errors)) == (22, 2)
    asked = Counter(engine.asked)
    assert {said for said, times in asked.items() if times > 1} == {f"hold {number}" for number in range(12)}
    assert not lines.exists()


def test_a_batch_whose_folder_cannot_be_used_keeps_no_server_from_starting(
    server: ServerProcess, engine, tmp_path: Path
):
    """It ends with what is known of it, and others are worked on."""
    with server.client() as client:
        batch_id = half_way(client, engine)
    server.kill9()
    folder = tmp_path / "state/batches" / batch_id
    shutil.rmtree(folder)
    folder.write_bytes(b"")
    engine.go()
    server.up()
    with server.client() as client:
        batch = once(client, batch_id)
        assert (batch["status"], batch["request_counts"]["total"]) == ("failed", 24)
        assert [fault["code"] for fault in batch["errors"]["data"]] == ["file_unreadable"]
        assert once(client, started(client, [request("a")]))["status"] == "completed"


def test_a_server_that_is_asked_to_stop_does_not_wait_for_answers(server: ServerProcess, engine):
    with server.client() as client:
        batch_id = half_way(client, engine)
    assert server.stop() == 0
    engine.go()
    server.up()
    with server.client() as client:
        assert once(client, batch_id)["request_counts"] == {"total": 24, "completed": 22, "failed": 2}


@pytest.mark.parametrize("fail_at", ["upload.before_fsync#2", "upload.after_rename#2", "batch.before_end"])
def test_a_crash_while_lines_become_files_makes_no_second_file(engine, tmp_path: Path, fail_at: str):
    with start_server(tmp_path, engine, TUNESMITH_FAILPOINT=fail_at) as crashes:
        with crashes.client() as client:
            batch_id = started(client, [request("a"), request("b", "refuse")])
        assert crashes.wait() == -signal.SIGKILL
    with again(tmp_path, engine) as server, server.client() as client:
        batch = once(client, batch_id)
        output, errors = files_of(client, batch)
        assert (set(output), set(errors)) == ({"a"}, {"b"})
        names = [one["filename"] for one in client.get("/v1/files").json()["data"]]
        assert sorted(names) == [f"{batch_id}_error.jsonl", f"{batch_id}_output.jsonl", "requests.jsonl"]
        assert sorted(engine.asked) == ["hello", "refuse"]
        remove_all(client)


def test_a_full_disk_is_waited_for_and_leaves_no_half_line(server: ServerProcess, client, engine, tmp_path: Path):
    batch_id = half_way(client, engine)
    lines = tmp_path / "state/batches" / batch_id / "output.jsonl"
    before = lines.read_bytes()
    soft, hard = resource.prlimit(server.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (len(before) + 10, hard))
    engine.go()
    assert any("batch_waits_for_room" in server.output for _ in polled(lambda: None))
    assert lines.read_bytes() == before
    resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (soft, hard))
    batch = once(client, batch_id)
    assert batch["request_counts"] == {"total": 24, "completed": 22, "failed": 2}
    assert len(files_of(client, batch)[0]) == 22
    assert set(Counter(engine.asked).values()) == {1}


def test_its_lines_can_be_followed_on_the_disk(client, engine, tmp_path: Path):
    batch_id = half_way(client, engine)
    folder = tmp_path / "state/batches" / batch_id
    text = "".join((folder / f"{name}.jsonl").read_text() for name in ("output", "errors"))
    written = [json.loads(line) for line in text.splitlines()]
    assert len({one["custom_id"] for one in written}) == len(written) == 12
    engine.go()
    once(client, batch_id)
    assert not folder.exists()


def test_its_input_cannot_be_deleted_before_it_is_over(client, engine):
    batch_id = half_way(client, engine)
    input_id = shown(client, batch_id)["input_file_id"]
    refused = client.delete(f"/v1/files/{input_id}")
    assert refused.status_code == 400
    assert batch_id in refused.json()["error"]["message"]
    dataset = client.get("/api/v1/datasets").json()["datasets"][0]["id"]
    assert client.delete(f"/api/v1/datasets/{dataset}").status_code == 409
    engine.go()
    once(client, batch_id)
    assert client.delete(f"/v1/files/{input_id}").status_code == 200


def test_one_batch_that_holds_does_not_keep_another_waiting(client, engine):
    held = started(client, [request(f"h{number}", f"hold {number}") for number in range(8)])
    once(client, held, "in_progress")
    other = once(client, started(client, [request(f"o{number}", f"other {number}") for number in range(40)]))
    assert other["request_counts"]["completed"] == 40
    assert shown(client, held)["status"] == "in_progress"
    engine.go()
    assert once(client, held)["request_counts"]["completed"] == 8


def test_batches_never_take_more_than_their_share(client, engine):
    batches = [started(client, [request(f"{n}-{i}", f"hold {n} {i}") for i in range(20)]) for n in range(3)]
    for batch_id in batches:
        once(client, batch_id, "in_progress")
    assert any(len(engine.asked) >= 16 for _ in polled(lambda: None))
    person = client.post(URL, json=request("", "a person's")["body"]).raise_for_status().json()
    assert person["choices"][0]["message"]["content"] == "you said: a person's"
    assert len(engine.asked) == 17
    engine.go()
    assert {once(client, batch_id)["request_counts"]["completed"] for batch_id in batches} == {20}
    order = [said.split()[1] for said in engine.asked if "hold" in said]
    assert {order[place] for place in range(16, 22)} >= {"1", "2"}


def test_a_state_folder_from_before_there_were_batches_starts(tmp_path: Path, server: ServerProcess):
    server.stop()
    (tmp_path / "state/batches.jsonl").unlink()
    (tmp_path / "state/batches").rmdir()
    marks = tmp_path / "state/journals.json"
    noted = json.loads(marks.read_text())
    del noted["journals"]["batches.jsonl"]
    marks.write_text(json.dumps(noted))
    server.up()
    with server.client() as client:
        assert once(client, started(client, [request("a")]))["status"] == "completed"
