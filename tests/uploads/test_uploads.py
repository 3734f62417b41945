"""Uploads over HTTP: what arrives is on disk, whole; what goes wrong leaves nothing and is told in words."""

from __future__ import annotations

import contextlib
import resource
import socket

import httpx
import pytest
from dataset_parts import (
    BOUNDARY,
    LIMIT,
    MULTIPART,
    ROW,
    HalfUpload,
    end,
    folders,
    in_flight,
    in_pieces,
    new_dataset,
    part,
    put_file,
    put_raw,
    wait_until_nothing_comes_in,
    whole,
)

from support.server import ServerProcess


@pytest.fixture
def dataset(client: httpx.Client) -> str:
    return new_dataset(client)


def assert_nothing_kept(client: httpx.Client, server: ServerProcess, dataset: str, before: set[str]) -> None:
    shown = client.get(f"/api/v1/datasets/{dataset}").json()
    assert (shown["files"], shown["upload_progress"]) == ([], {"files_count": 0, "in_flight": []})
    assert folders(server) == before


# -- the limit ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("announced", [True, False], ids=["announced", "chunked"])
def test_a_file_may_be_as_large_as_the_limit_and_not_a_byte_larger(client, server, dataset, announced) -> None:
    """Counted on the file itself, however its length is told; the boundary may be split anywhere."""
    fits, exceeds = whole(b"x" * LIMIT), whole(b"x" * (LIMIT + 1))
    answer = put_raw(client, dataset, fits if announced else in_pieces(fits))
    assert (answer.status_code, answer.json()["bytes"]) == (200, LIMIT)
    client.delete(f"/api/v1/uploads/{answer.json()['upload_id']}").raise_for_status()
    before = folders(server)
    answer = put_raw(client, dataset, exceeds if announced else in_pieces(exceeds))
    assert answer.status_code == 413
    assert "max_upload_bytes" in answer.json()["mend"]
    assert_nothing_kept(client, server, dataset, before)


def test_a_length_that_is_too_large_is_refused_unread(server, dataset) -> None:
    """A client that announces a terabyte is told before it sends the first byte of it."""
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        head = f"PUT /api/v1/datasets/{dataset}/files HTTP/1.1\r\nHost: {host}\r\nContent-Type: {MULTIPART}\r\n"
        connection.sendall(f"{head}Content-Length: 1000000000000\r\n\r\n".encode())
        assert connection.recv(4096).startswith(b"HTTP/1.1 413 ")


def test_nothing_beside_the_file_can_be_endless(client, server, dataset) -> None:
    """Neither what comes before the first boundary, nor what comes after the last."""
    before = folders(server)
    endless = b"y" * (LIMIT + 70_000)
    assert put_raw(client, dataset, in_pieces(endless)).status_code == 422
    assert put_raw(client, dataset, in_pieces(whole() + endless)).status_code == 413
    assert_nothing_kept(client, server, dataset, before)


# -- what clients send ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 3, 57, 1000])
def test_the_bytes_arrive_unchanged_however_they_are_cut(client, dataset, size) -> None:
    """Also such that look like a boundary."""
    content = b"\r\n--" + BOUNDARY.encode()[:-1] + b"\r\n--\r\n\r" + bytes(range(256)) + b"\r\n"
    answer = put_raw(client, dataset, in_pieces(whole(content), size))
    assert answer.status_code == 200, answer.text
    assert client.get(f"/api/v1/datasets/{dataset}/files/{answer.json()['upload_id']}/content").content == content


@pytest.mark.parametrize(
    "name",
    [
        "../../etc/passwd",
        "..",
        "/etc/shadow",
        "..%2f..%2fkeys.jsonl",
        "a\\b\\..\\c.jsonl",
        "nul\0inside.jsonl",
        "x" * 3000 + ".jsonl",
        "二十四\u202e节气.jsonl",
        "CON",
        ".part",
    ],
)
def test_a_name_is_data_and_never_a_path(client, server, dataset, name) -> None:
    """It is shown as it was sent, and the file lies in its own folder under a name made here."""
    answer = put_raw(client, dataset, whole(name=name.encode()))
    assert answer.status_code == 200, answer.text
    assert answer.json()["filename"] == name
    (shown,) = client.get(f"/api/v1/datasets/{dataset}").json()["files"]
    assert shown["name"] == name
    assert shown["stored_name"] in ("data.jsonl", "data.bin")
    assert [path.name for path in (server.state_dir / "uploads" / shown["upload_id"]).iterdir()] == [
        shown["stored_name"]
    ]


def test_a_name_may_come_as_old_clients_write_it(client, dataset) -> None:
    """RFC 5987's form, which some send for what is not ASCII."""
    head = part().replace(b'filename="train.jsonl"', b"filename*=UTF-8''%E8%AE%AD%E7%BB%83.jsonl")
    assert put_raw(client, dataset, head + ROW + end()).json()["filename"] == "训练.jsonl"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (whole(name=b"\xff\xfe.jsonl"), "not UTF-8"),
        (whole(more=b"Content-Type: text/plain; charset=nonsense\r\n"), "unknown charset"),
        (whole(more=b"Content-Type: text/plain; charset=\xff\r\n"), "not UTF-8"),
        (whole(field=b"data"), "named 'data'"),
        (part(b"a.jsonl") + ROW + b"\r\n" + whole(name=b"b.jsonl"), "only one file"),
        (part(b"a.jsonl") + ROW + b"\r\n" + whole(field=b"note"), "second part"),
        (whole(b""), "is empty"),
        (whole(name=b""), "name is empty"),
        (whole(name=b"   "), "name is empty"),
        (part().replace(b'; filename="train.jsonl"', b"") + ROW + end(), "no file name"),
        (whole(name=b"x" * 5000), "longer than"),
        (b"--" + BOUNDARY.encode() + b"--\r\n", "no part"),
        (b"", "is empty"),
        (ROW, "no part begins"),
        (whole().replace(BOUNDARY.encode(), b"another"), "no part begins"),
        (part() + ROW, "ends before"),
        (part()[:-10], "no part begins"),
        (whole().replace(b"form-data", b"attachment"), "cannot be read"),
        (whole(more=b"no colon here\r\n"), "cannot be read"),
    ],
    ids=str,
)
def test_a_broken_upload_is_told_in_words_and_leaves_nothing(client, server, dataset, body, words) -> None:
    """The traps that make other servers answer 500."""
    before = folders(server)
    for sent in (body, in_pieces(body, 700)):
        answer = put_raw(client, dataset, sent)
        assert answer.status_code == 422, answer.text
        assert words in answer.json()["detail"]
        assert "curl -F" in answer.json()["mend"]
    assert_nothing_kept(client, server, dataset, before)


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        ("application/json", 415),
        ("", 415),
        ("text/plain; boundary=a-boundary", 415),
        ("multipart/form-data", 422),
        ("multipart/form-data; boundary=", 422),
        (f"multipart/form-data; boundary={'b' * 300}", 422),
        ("multipart/form-data; boundary=another", 422),
    ],
)
def test_a_wrong_content_type_is_told(client, dataset, content_type, status) -> None:
    """Which one is needed, and how to send it."""
    answer = put_raw(client, dataset, whole(), content_type)
    assert answer.status_code == status
    assert "multipart/form-data" in answer.text


def test_an_unknown_dataset_takes_nothing(client, server) -> None:
    """404 before the body is read."""
    before = folders(server)
    assert put_raw(client, "ds_nothing", whole()).status_code == 404
    assert folders(server) == before


# -- stopping on the way --------------------------------------------------------------------------------------------


def test_an_upload_on_its_way_is_seen_and_can_be_stopped(client, server, dataset) -> None:
    """It is listed with its bytes so far; DELETE answers when nothing of it is left, and its client is told."""
    before = folders(server)
    with HalfUpload(server, dataset, b"half.jsonl").send(b"x" * 100_000) as upload:
        (shown,) = in_flight(client, dataset, at_least=100_000)
        assert (shown["name"], shown["bytes"]) == ("half.jsonl", 100_000)
        progress = client.get(f"/api/v1/datasets/{dataset}").json()
        assert (progress["status"], progress["metadata"]["total_files"]) == ("empty", 0)
        answer = client.delete(f"/api/v1/uploads/{shown['upload_id']}")
        assert answer.json() == {"upload_id": shown["upload_id"], "status": "aborted"}
        assert_nothing_kept(client, server, dataset, before)
        assert "409 Conflict" in upload.answer()
    assert client.delete(f"/api/v1/uploads/{shown['upload_id']}").status_code == 404


def test_a_client_that_leaves_leaves_nothing(client, server, dataset) -> None:
    """The connection breaks in the middle of the file, or of the head of its part."""
    before = folders(server)
    upload = HalfUpload(server, dataset).send(b"x" * 200_000)
    in_flight(client, dataset, at_least=200_000)
    upload.leave()
    wait_until_nothing_comes_in(client, dataset)
    assert_nothing_kept(client, server, dataset, before)
    assert "Traceback" not in server.output


def test_a_dataset_that_is_deleted_takes_what_is_coming_in_along(client, server) -> None:
    """No upload outlives its dataset."""
    dataset, before = new_dataset(client), folders(server)
    with HalfUpload(server, dataset).send(b"x" * 1000) as upload:
        in_flight(client, dataset)
        assert client.delete(f"/api/v1/datasets/{dataset}").status_code == 200
        assert folders(server) == before
        assert "409 Conflict" in upload.answer()


def test_uploads_on_their_way_do_not_hinder_others(client, server, dataset) -> None:
    """Others begin and end while one stands still; then that one ends well."""
    with HalfUpload(server, dataset, b"standing.jsonl").send(b"x" * 1000) as standing:
        in_flight(client, dataset, at_least=1000)
        put_file(client, dataset, "quick.jsonl")
        assert "200 OK" in standing.finish()
    names = [one["name"] for one in client.get(f"/api/v1/datasets/{dataset}").json()["files"]]
    assert sorted(names) == ["quick.jsonl", "standing.jsonl"]


def test_a_server_that_stops_says_so_to_who_is_uploading(tmp_path, recipes) -> None:
    """At once, with 503, and nothing is left behind."""
    with ServerProcess.start(tmp_path / "state", recipes) as server:
        with server.client() as client:
            dataset = new_dataset(client)
            with HalfUpload(server, dataset).send(b"x" * 300_000) as upload:
                in_flight(client, dataset, at_least=300_000)
                assert server.stop() == 0
                assert "503 Service Unavailable" in upload.answer()
        assert folders(server) == set()
        assert "Traceback" not in server.output


# -- no room --------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def files_limited_to(pid: int, size: int):
    soft, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_is_told_and_over_when_there_is_room(tmp_path, recipes) -> None:
    """507 for the file, and for its record; nothing of it is left, what was there stays, and no restart is needed."""
    with ServerProcess.start(tmp_path / "state", recipes) as server, server.client() as client:
        dataset = new_dataset(client)
        kept = put_file(client, dataset, "kept.jsonl", ROW * 10)
        before = folders(server)
        journal = (server.state_dir / "uploads.jsonl").stat().st_size
        for limit in (journal + 10, 500_000):
            with files_limited_to(server.pid, limit):
                size = 100 if limit < 500_000 else 900_000
                answer = client.put(f"/api/v1/datasets/{dataset}/files", files={"file": ("a.jsonl", b"x" * size)})
                assert answer.status_code == 507, answer.text
                assert "free" in answer.json()["mend"]
                shown = client.get(f"/api/v1/datasets/{dataset}").json()
                assert [one["upload_id"] for one in shown["files"]] == [kept["upload_id"]]
                assert folders(server) == before
        put_file(client, dataset, "again.jsonl", b"x" * 900_000)
        with files_limited_to(server.pid, 100):
            config = {"file": ("c.yaml", b"job: {type: trains}\n# " + b"x" * 200)}
            assert client.put("/v1/train-config", files=config).status_code == 507
            assert list((server.state_dir / "train_configs").iterdir()) == []
