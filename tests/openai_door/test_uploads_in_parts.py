"""Files that come in parts: put together in the order that was named, once, or not at all; also over a server's death."""

from __future__ import annotations

import hashlib
import json
import resource
import socket
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from door_parts import new_rows, post_form, processed

from support.app import eventually
from support.openai_door import is_error
from support.server import ServerProcess, polled
from tunesmith.app import open_services
from tunesmith.records import utc_now
from tunesmith.server.application import create_app
from tunesmith.settings import Settings

DOCUMENTED = {
    "purpose": "fine-tune",
    "filename": "training_examples.jsonl",
    "bytes": 2147483648,
    "mime_type": "text/jsonl",
}
"""As OpenAI's reference has it."""


def announce(client: httpx.Client, size: int, **more: Any) -> str:
    answer = client.post("/v1/uploads", json={**DOCUMENTED, "bytes": size, **more})
    assert answer.status_code == 200, answer.text
    upload_id: str = answer.json()["id"]
    return upload_id


def send(client: httpx.Client, upload_id: str, content: bytes) -> httpx.Response:
    """As the SDKs send a part."""
    return client.post(f"/v1/uploads/{upload_id}/parts", files={"data": ("upload", content)})


def sent(client: httpx.Client, upload_id: str, content: bytes) -> str:
    part_id: str = send(client, upload_id, content).raise_for_status().json()["id"]
    return part_id


def complete(client: httpx.Client, upload_id: str, *part_ids: str, **more: Any) -> httpx.Response:
    return client.post(f"/v1/uploads/{upload_id}/complete", json={"part_ids": part_ids, **more})


def wrong(answer: httpx.Response, param: str) -> str:
    assert answer.status_code == 400, answer.text
    assert is_error(answer)
    assert answer.json()["error"]["param"] == param
    message: str = answer.json()["error"]["message"]
    return message


def parts_on_disk(server: ServerProcess, upload_id: str) -> list[Path]:
    return sorted((server.state_dir / "parts").glob(f"{upload_id}/*"))


def test_the_documented_requests_are_answered(client):
    """The announcement, a part as curl's form field without a file name, and a cancellation."""
    made = client.post("/v1/uploads", json=DOCUMENTED).raise_for_status().json()
    assert made["id"].startswith("upload_")
    assert (made["object"], made["status"], made["file"]) == ("upload", "pending", None)
    assert (made["bytes"], made["filename"], made["purpose"]) == (2147483648, "training_examples.jsonl", "fine-tune")
    assert made["expires_at"] == made["created_at"] + 3600
    field = ("data", None, b"aHR0cHM6Ly9hcGkub3BlbmFpLmNvbS92MS91cGxvYWRz" * 200)
    part = post_form(client, field, path=f"/v1/uploads/{made['id']}/parts").raise_for_status().json()
    assert part["id"].startswith("part_")
    assert (part["object"], part["upload_id"]) == ("upload.part", made["id"])
    assert part["created_at"] >= made["created_at"]
    cancelled = client.post(f"/v1/uploads/{made['id']}/cancel").raise_for_status().json()
    assert cancelled == {**made, "status": "cancelled"}


def test_parts_are_put_together_in_the_order_that_is_named(client, server):
    """Whichever came first; the file is there, looked at, a dataset, and its parts are off the disk."""
    rows = new_rows(3)
    pieces = [rows[:100], rows[100:101], rows[101:]]
    upload_id = announce(client, len(rows))
    with ThreadPoolExecutor(3) as threads:
        last_first = list(threads.map(lambda piece: sent(client, upload_id, piece), pieces[::-1]))
    md5 = hashlib.md5(rows, usedforsecurity=False).hexdigest()
    answer = complete(client, upload_id, *last_first[::-1], md5=md5.upper())
    done = answer.raise_for_status().json()
    assert (done["status"], done["file"]["bytes"]) == ("completed", len(rows))
    assert (done["file"]["filename"], done["file"]["purpose"]) == ("training_examples.jsonl", "fine-tune")
    file_id = done["file"]["id"]
    assert client.get(f"/v1/files/{file_id}/content").content == rows
    assert processed(client, file_id)["status"] == "processed"
    assert client.get(f"/api/v1/datasets/{file_id}").json()["files"][0]["sha256"] == hashlib.sha256(rows).hexdigest()
    assert not (server.state_dir / "parts" / upload_id).exists()


def test_the_same_completion_again_answers_the_same(client):
    """The SDKs send a request again when its answer was lost; with other parts it is refused."""
    rows = new_rows()
    upload_id = announce(client, len(rows))
    part = sent(client, upload_id, rows)
    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(lambda _: complete(client, upload_id, part).raise_for_status().json(), range(4)))
    ids = {answer["file"]["id"] for answer in answers}
    assert len(ids) == 1
    assert {answer["status"] for answer in answers} == {"completed"}
    assert "completed" in wrong(complete(client, upload_id, "part_x"), "upload_id")
    assert "completed" in wrong(client.post(f"/v1/uploads/{upload_id}/cancel"), "upload_id")
    assert "completed" in wrong(send(client, upload_id, b"x"), "upload_id")
    client.delete(f"/v1/files/{ids.pop()}").raise_for_status()
    assert complete(client, upload_id, part).json()["file"] is None


def test_what_does_not_fit_is_refused_and_can_be_mended(client, server):
    """A part that is not here, one named twice, too few bytes, another MD5: nothing of a file stays, the parts do."""
    rows = new_rows(2)
    upload_id = announce(client, len(rows))
    first, second = sent(client, upload_id, rows[:50]), sent(client, upload_id, rows[50:])
    files = {path.name for path in (server.state_dir / "uploads").iterdir()}
    of_another = sent(client, announce(client, 5), b"other")
    for name in ("part_nothing", of_another, "../../keys.jsonl", "", "\x00"):
        assert repr(name) in wrong(complete(client, upload_id, first, name), "part_ids")
    assert "twice" in wrong(complete(client, upload_id, first, first), "part_ids")
    assert str(len(rows)) in wrong(complete(client, upload_id, first), "part_ids")
    wrong(complete(client, upload_id), "part_ids")
    right = hashlib.md5(rows, usedforsecurity=False).hexdigest()
    assert f"not {right}" in wrong(complete(client, upload_id, second, first, md5=right), "md5")
    assert {path.name for path in (server.state_dir / "uploads").iterdir()} == files
    assert len(parts_on_disk(server, upload_id)) == 2
    assert complete(client, upload_id, first, second, md5=right).json()["status"] == "completed"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"bytes": 0}, "bytes"),
        ({"bytes": 8 * 1024**3 + 1}, "bytes"),
        ({"bytes": "many"}, "bytes"),
        ({"filename": " "}, "filename"),
        ({"filename": ""}, "filename"),
        ({"purpose": "fun"}, "purpose"),
        ({"expires_after": {"anchor": "created_at", "seconds": 60}}, "expires_after.seconds"),
        ({"expires_after": {"anchor": "now", "seconds": 3600}}, "expires_after.anchor"),
    ],
)
def test_a_wrong_announcement_is_refused(client, fields, param):
    """With the field that is wrong."""
    wrong(client.post("/v1/uploads", json={**DOCUMENTED, **fields}), param)


def test_what_nobody_announced_is_404(client):
    """For every call; the old call to delete an upload keeps its own form."""
    for upload_id in ("upload_nothing", "upl_nothing", "%2e%2e"):
        answers = [
            send(client, upload_id, b"x"),
            complete(client, upload_id, "part_x"),
            client.post(f"/v1/uploads/{upload_id}/cancel"),
        ]
        assert [(answer.status_code, is_error(answer)) for answer in answers] == [(404, True)] * 3
    deleted = client.delete("/v1/uploads/upload_nothing")
    assert deleted.status_code == 404
    assert deleted.headers["content-type"].startswith("application/problem+json")


def test_parts_that_cannot_be_used_leave_nothing(client, server):
    """An empty one, none at all, no multipart, one over 64 MiB; and more than twice what was announced."""
    upload_id = announce(client, 10)
    path = f"/v1/uploads/{upload_id}/parts"
    for answer in (
        send(client, upload_id, b""),
        client.post(path, files={"other": ("x", b"x")}),
        post_form(client, path=path),
    ):
        assert 'in a part named "data"' in wrong(answer, "data")
    assert client.post(path, json={"data": "x"}).status_code == 415
    large = send(client, upload_id, bytes(64 * 1024 * 1024 + 1))
    assert (large.status_code, large.json()["error"]["param"]) == (413, "data")
    assert parts_on_disk(server, upload_id) == []
    sent(client, upload_id, bytes(64 * 1024 * 1024))
    assert "67108864 bytes are here of 10" in wrong(send(client, upload_id, bytes(21)), "upload_id")
    client.post(f"/v1/uploads/{upload_id}/cancel").raise_for_status()
    assert not (server.state_dir / "parts" / upload_id).exists()
    assert client.post(f"/v1/uploads/{upload_id}/cancel").json()["status"] == "cancelled"
    assert "cancelled" in wrong(send(client, upload_id, b"x"), "upload_id")


def test_a_full_disk_keeps_nothing_of_what_did_not_fit(tmp_path, recipes):
    """Neither of a part nor of the file; what was there stays, and is put together when there is room again."""
    rows = new_rows(6000)
    with ServerProcess.start(tmp_path / "state", recipes) as server, server.client() as client:
        upload_id = announce(client, len(rows))
        parts = [sent(client, upload_id, piece) for piece in (rows[:900_000], rows[900_000:])]
        soft, hard = resource.prlimit(server.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (1_000_000, hard))
        full = [send(client, upload_id, bytes(1_000_001)), complete(client, upload_id, *parts)]
        resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (soft, hard))
        for answer in full:
            assert (answer.status_code, is_error(answer)) == (507, True)
            assert "free" in answer.json()["error"]["message"]
        assert [path.name for path in parts_on_disk(server, upload_id)] == sorted(parts)
        assert list((tmp_path / "state" / "uploads").iterdir()) == []
        done = complete(client, upload_id, *parts).raise_for_status().json()
        assert client.get(f"/v1/files/{done['file']['id']}/content").content == rows


class HalfPart:
    """A part over a socket of its own that is not at its end."""

    def __init__(self, server: ServerProcess, upload_id: str, content: bytes) -> None:
        host, port = server.url.removeprefix("http://").split(":")
        self._socket = socket.create_connection((host, int(port)), timeout=60)
        head = f"POST /v1/uploads/{upload_id}/parts HTTP/1.1\r\nHost: {host}\r\nContent-Length: 10000000\r\n"
        head += "Content-Type: multipart/form-data; boundary=b\r\n\r\n"
        part = b'--b\r\nContent-Disposition: form-data; name="data"; filename="upload"\r\n\r\n'
        self._socket.sendall(head.encode() + part + content)

    def answer(self) -> str:
        return self._socket.recv(65536).decode()

    def leave(self) -> None:
        self._socket.close()


def wait_for_files(server: ServerProcess, upload_id: str, count: int) -> None:
    for found in polled(lambda: parts_on_disk(server, upload_id)):
        if len(found) == count:
            return
    raise AssertionError(f"there are {found}")


def test_a_part_whose_client_leaves_is_not_kept(client, server):
    """Nothing of it is left, and it can be sent again."""
    upload_id = announce(client, 5)
    half = HalfPart(server, upload_id, bytes(300_000))
    wait_for_files(server, upload_id, 1)
    half.leave()
    wait_for_files(server, upload_id, 0)
    assert complete(client, upload_id, sent(client, upload_id, b"12345")).json()["status"] == "completed"


def test_a_server_that_stops_waits_for_no_part(tmp_path, recipes):
    """Its client is told to send it again, and the next server goes on with the others."""
    with ServerProcess.start(tmp_path / "state", recipes) as server:
        with server.client() as client:
            upload_id = announce(client, 10)
            first = sent(client, upload_id, b"12345")
        half = HalfPart(server, upload_id, bytes(300_000))
        wait_for_files(server, upload_id, 2)
        assert server.stop() == 0
        assert half.answer().startswith("HTTP/1.1 503")
        half.leave()
        assert [path.name for path in parts_on_disk(server, upload_id)] == [first]
        server.up()
        with server.client() as client:
            assert complete(client, upload_id, first, sent(client, upload_id, b"67890")).is_success


STEPS = ["part.before_write", "part.before_fsync", "part.before_rename", "part.after_rename"]
ENDS = [
    *(f"journal.{step}#{nth}" for step in ("before_write", "after_fsync") for nth in range(2, 6)),
    *("upload.before_write", "upload.before_fsync", "upload.after_rename"),
]
"""The announcement takes the first line; the completion four: what is to be done, the file, its dataset, that it is done."""


def test_killed_at_any_step_of_a_part(tmp_path, recipes):
    """What was acknowledged is there after the restart, what was cut short is not; the upload goes on where it was."""
    rows = new_rows(2)
    with ServerProcess.start(tmp_path / "state", recipes) as server:
        with server.client() as client:
            upload_id = announce(client, len(rows))
            first = sent(client, upload_id, rows[:70])
        server.stop()
        for step in STEPS:
            fragile = ServerProcess(tmp_path / "state", recipes, {"TUNESMITH_FAILPOINT": step})
            fragile.up()
            with fragile.client() as client, pytest.raises(httpx.HTTPError):
                send(client, upload_id, rows[70:])
            fragile.kill9()
        server.up()
        left = [path.name for path in parts_on_disk(server, upload_id)]
        assert first in left
        assert len(left) == 2  # the other one had its name, though nobody was told
        with server.client() as client:
            second = sent(client, upload_id, rows[70:])
            done = complete(client, upload_id, first, second).raise_for_status().json()
            assert client.get(f"/v1/files/{done['file']['id']}/content").content == rows


@pytest.mark.parametrize("step", ENDS)
def test_killed_while_it_is_completed(tmp_path, recipes, step):
    """The same call after the restart answers one file, whole: never none, never two."""
    rows = new_rows()
    fragile = ServerProcess(tmp_path / "state", recipes, {"TUNESMITH_FAILPOINT": step})
    fragile.up()
    with fragile.client() as client:
        upload_id = announce(client, len(rows))
        part = sent(client, upload_id, rows)
        with pytest.raises(httpx.HTTPError):
            complete(client, upload_id, part)
    fragile.kill9()
    with ServerProcess.start(tmp_path / "state", recipes) as server, server.client() as client:
        done = complete(client, upload_id, part).raise_for_status().json()
        (file,) = client.get("/v1/files").json()["data"]
        assert file["id"] == done["file"]["id"]
        assert client.get(f"/v1/files/{file['id']}/content").content == rows
        assert client.get(f"/api/v1/datasets/{file['id']}").status_code == 200
    assert list((tmp_path / "state" / "parts").iterdir()) == []


def test_what_nobody_completes_in_an_hour_expires(tmp_path):
    """Its parts are removed; from that moment it takes none, whether or not anybody has looked at it."""
    now = [utc_now()]

    def clock() -> datetime:
        return now[0]

    async def made() -> None:
        app = open_services(Settings(state_dir=tmp_path / "state", recipes_dir=tmp_path), clock=clock)
        transport = httpx.ASGITransport(create_app(app))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", trust_env=False) as client:
            made = (await client.post("/v1/uploads", json={**DOCUMENTED, "bytes": 5})).raise_for_status().json()
            path = f"/v1/uploads/{made['id']}"
            part = (await client.post(f"{path}/parts", files={"data": ("x", b"12345")})).raise_for_status().json()["id"]
            kept = (await client.post("/v1/uploads", json={**DOCUMENTED, "bytes": 5})).json()
            now[0] += timedelta(hours=1)
            late = await client.post(f"{path}/complete", json={"part_ids": [part]})
            assert "expired" in wrong(late, "upload_id")
            async with anyio.create_task_group() as tasks:
                await tasks.start(app.services.openai.uploads_in_parts.run)
                await eventually(lambda: not (tmp_path / "state" / "parts" / made["id"]).exists())
                tasks.cancel_scope.cancel()
            assert "expired" in wrong(await client.post(f"{path}/cancel"), "upload_id")
            assert "expired" in wrong(await client.post(f"/v1/uploads/{kept['id']}/cancel"), "upload_id")

    anyio.run(made)


def test_a_file_from_parts_expires_when_it_was_asked_to(client):
    """So long after it was whole."""
    rows = new_rows()
    upload_id = announce(client, len(rows), expires_after={"anchor": "created_at", "seconds": 7200})
    file = complete(client, upload_id, sent(client, upload_id, rows)).raise_for_status().json()["file"]
    assert file["expires_at"] == file["created_at"] + 7200


@pytest.mark.parametrize("is_noted", [True, False])
def test_a_state_folder_of_before_is_taken_as_it_is(tmp_path, recipes, is_noted):
    """One without this journal, whether its other journals are noted or nothing is."""
    with ServerProcess.start(tmp_path / "state", recipes) as server:
        server.stop()
        (tmp_path / "state" / "uploads_in_parts.jsonl").unlink()
        (tmp_path / "state" / "parts").rmdir()
        file = tmp_path / "state" / "journals.json"
        noted = json.loads(file.read_text())
        del noted["journals"]["uploads_in_parts.jsonl"]
        file.unlink()
        if is_noted:
            file.write_text(json.dumps(noted))
        server.up()
        with server.client() as client:
            assert announce(client, 5).startswith("upload_")
