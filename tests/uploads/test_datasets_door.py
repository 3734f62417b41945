"""Datasets over HTTP: what was given is shown, what is in them adds up, and a deleted one is gone."""

from __future__ import annotations

import hashlib
import json
import re

import httpx
import pytest
from dataset_parts import ROW, new_dataset, put_file

from support.openai_door import operations
from support.server import ServerProcess


def test_a_dataset_is_shown_as_it_was_given(client: httpx.Client) -> None:
    """Every field comes back, in any language, and the answer to the creation is its id and its time."""
    given = {
        "name": "客服对话 v1",
        "type": "chat",
        "source": "export of March",
        "task_type": "sft",
        "description": "什么都有",
        "metadata": {
            "description": "d",
            "version": "1.0",
            "records": 12,
            "license": "CC0",
            "tags": ["a"],
            "language": "zh",
        },
    }
    created = client.post("/api/v1/datasets", json=given)
    assert created.status_code == 201
    assert set(created.json()) == {"id", "created_at"}
    shown = client.get(f"/api/v1/datasets/{created.json()['id']}").json()
    totals = {"total_files": 0, "total_bytes": 0, "has_train_config": False}
    assert shown == {
        **given,
        "metadata": {**given["metadata"], **totals},
        "id": created.json()["id"],
        "created_at": created.json()["created_at"],
        "status": "empty",
        "files": [],
        "train_config": None,
        "upload_progress": {"files_count": 0, "in_flight": []},
        "deleted_at": None,
    }


def test_a_dataset_answers_to_its_name_as_to_its_id(client: httpx.Client) -> None:
    """Wherever a path has its id; the answers carry the id. A name that is not there is told with the nearest."""
    dataset = new_dataset(client, "orders of May 订单")
    base = "/v1/datasets/orders%20of%20May%20%E8%AE%A2%E5%8D%95"
    assert client.get(base).json() == client.get(f"/api/v1/datasets/{dataset}").json()
    upload = client.put(f"{base}/files", files={"file": ("a.jsonl", ROW)}).json()
    assert upload["dataset_id"] == dataset
    assert client.get(f"{base}/files/{upload['upload_id']}/content").content == ROW
    config = client.put(f"{base}/train-config", files={"file": ("c.yaml", b"job: {type: trains}\n")}).json()
    assert config["dataset_id"] == dataset
    assert client.get(f"{base}/train-config").json() == config
    assert client.delete(f"{base}/train-config").json()["dataset_id"] == dataset
    missing = client.get("/v1/datasets/orders of Mai 订单")
    assert missing.status_code == 404
    assert "did you mean orders of May 订单?" in missing.json()["mend"]
    assert client.delete(base).json()["id"] == dataset
    assert client.get(base).status_code == 404


def test_totals_are_right_after_every_change(client: httpx.Client) -> None:
    """Files are counted from what is there; nobody can set the totals."""
    dataset = new_dataset(client, metadata={"total_files": 99, "total_bytes": "many", "has_train_config": True})

    def totals() -> tuple[str, int, int, bool, int]:
        shown = client.get(f"/api/v1/datasets/{dataset}").json()
        meta = shown["metadata"]
        files = shown["upload_progress"]["files_count"]
        assert files == len(shown["files"])
        return shown["status"], meta["total_files"], meta["total_bytes"], meta["has_train_config"], files

    assert totals() == ("empty", 0, 0, False, 0)
    first = put_file(client, dataset, "a.jsonl", ROW)
    second = put_file(client, dataset, "b.json", ROW * 2)
    assert totals() == ("ready", 2, 3 * len(ROW), False, 2)
    client.put(f"/api/v1/datasets/{dataset}/train-config", files={"file": ("c.yaml", b"job: {type: trains}\n")})
    assert totals() == ("ready", 2, 3 * len(ROW), True, 2)
    client.delete(f"/api/v1/uploads/{first['upload_id']}").raise_for_status()
    assert totals() == ("ready", 1, 2 * len(ROW), True, 1)
    client.delete(f"/api/v1/datasets/{dataset}/train-config").raise_for_status()
    client.delete(f"/api/v1/uploads/{second['upload_id']}").raise_for_status()
    assert totals() == ("empty", 0, 0, False, 0)


def test_a_file_is_shown_with_its_hash(client: httpx.Client) -> None:
    """What a client needs to check that its bytes arrived."""
    dataset = new_dataset(client)
    received = put_file(client, dataset, "训练.jsonl", ROW)
    assert {"upload_id", "dataset_id", "bytes", "filename"} <= set(received)
    assert (received["dataset_id"], received["bytes"], received["filename"]) == (dataset, len(ROW), "训练.jsonl")
    (shown,) = client.get(f"/api/v1/datasets/{dataset}").json()["files"]
    assert set(shown) == {"upload_id", "name", "stored_name", "bytes", "sha256", "uploaded_at", "replaced_by"}
    assert (shown["name"], shown["stored_name"]) == ("训练.jsonl", "data.jsonl")
    assert shown["sha256"] == hashlib.sha256(ROW).hexdigest()


def test_lists_go_page_by_page_newest_first(client: httpx.Client) -> None:
    """Each comes once, deleted ones do not come, and one can be looked up by its name."""
    made = [new_dataset(client) for _ in range(5)]
    client.delete(f"/api/v1/datasets/{made[2]}").raise_for_status()
    seen, cursor = [], None
    while len(seen) < 4:
        page = client.get("/api/v1/datasets", params={"limit": 2, **({"cursor": cursor} if cursor else {})}).json()
        seen += [one["id"] for one in page["datasets"]]
        cursor = page["cursor"]
    assert seen[:4] == [made[4], made[3], made[1], made[0]]
    name = client.get(f"/api/v1/datasets/{made[0]}").json()["name"]
    found = client.get("/api/v1/datasets", params={"name": name}).json()
    assert [one["id"] for one in found["datasets"]] == [made[0]]
    assert client.get("/api/v1/datasets", params={"name": "no such"}).json() == {"datasets": [], "cursor": None}
    assert client.get("/api/v1/datasets", params={"limit": 0}).status_code == 422


def test_a_deleted_dataset_is_gone_with_its_bytes(client: httpx.Client, server: ServerProcess) -> None:
    """The answer says what it was; its folder, files and config are gone, and its name is free again."""
    dataset = new_dataset(client, "to be deleted")
    upload = put_file(client, dataset, "a.jsonl")["upload_id"]
    client.put(f"/api/v1/datasets/{dataset}/train-config", files={"file": ("c.yml", b"job: {type: trains}\n")})
    before = set((server.state_dir / "train_configs").iterdir())
    answer = client.delete(f"/api/v1/datasets/{dataset}")
    assert answer.status_code == 200
    assert (answer.json()["id"], answer.json()["status"]) == (dataset, "deleted")
    assert len(answer.json()["files"]) == 1
    assert not (server.state_dir / "uploads" / upload).exists()
    assert len(set((server.state_dir / "train_configs").iterdir())) == len(before) - 1
    for method, path in [
        ("GET", f"/api/v1/datasets/{dataset}"),
        ("DELETE", f"/api/v1/datasets/{dataset}"),
        ("DELETE", f"/api/v1/uploads/{upload}"),
        ("GET", f"/api/v1/datasets/{dataset}/files/{upload}/content"),
        ("GET", f"/api/v1/datasets/{dataset}/train-config"),
        ("DELETE", f"/api/v1/datasets/{dataset}/train-config"),
        ("PUT", f"/api/v1/datasets/{dataset}/files"),
        ("PUT", f"/api/v1/datasets/{dataset}/train-config"),
    ]:
        assert client.request(method, path).status_code == 404, (method, path)
    assert new_dataset(client, "to be deleted") != dataset


@pytest.mark.parametrize("name", ["", "   ", "/etc/passwd", "./train.jsonl", "../x", "~/x"])
def test_a_name_must_be_one(client: httpx.Client, name: str) -> None:
    """An empty one, and one that a run would read as a path, are refused."""
    answer = client.post("/api/v1/datasets", json={"name": name})
    assert answer.status_code == 422
    assert answer.json()["where"] == "name"


def test_names_are_unique_among_those_that_are_there(client: httpx.Client) -> None:
    """A run that names a dataset by its name means exactly one; an id is no name either."""
    dataset = new_dataset(client, "the only one")
    for name in ("the only one", dataset):
        answer = client.post("/api/v1/datasets", json={"name": name})
        assert answer.status_code == 409, name
        assert answer.json()["where"] == "name"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("metadata", {"note": "x" * 70_000}),
        ("metadata", []),
        ("tags", ["unknown field"]),
        ("description", "x" * 20_001),
        ("name", "x" * 501),
    ],
)
def test_what_cannot_be_kept_is_refused(client: httpx.Client, field: str, value: object) -> None:
    """Too much of it, of the wrong kind, or unknown."""
    answer = client.post("/api/v1/datasets", json={"name": "refused", field: value})
    assert answer.status_code in (413, 422), answer.text


@pytest.mark.parametrize(
    "body", [b'{"name": "x", "metadata": ' + b'{"a":' * 200 + b"1" + b"}" * 201, b'{"name": "\xff"}']
)
def test_json_that_no_reader_could_take_is_refused(client: httpx.Client, body: bytes) -> None:
    """Nested without end, or not UTF-8."""
    answer = client.post("/api/v1/datasets", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code in (400, 422)


def test_every_call_works_under_its_aliases(client: httpx.Client) -> None:
    """/v1 is the same as /api/v1, and an upload is found wherever its path may be read to be."""
    dataset = client.post("/v1/datasets", json={"name": "by its alias"}).json()["id"]
    assert dataset in [one["id"] for one in client.get("/v1/datasets").json()["datasets"]]
    for prefix in ("/v1", "/api/v1", "/v1/datasets", "/api/v1/datasets", ""):
        answer = client.put(f"/v1/datasets/{dataset}/files", files={"file": ("a.jsonl", ROW)})
        upload = answer.json()["upload_id"]
        assert client.get(f"/v1/datasets/{dataset}/files/{upload}/content").content == ROW
        assert client.delete(f"{prefix}/uploads/{upload}").json() == {"upload_id": upload, "status": "aborted"}
        assert client.delete(f"{prefix}/uploads/{upload}").status_code == 404
    config = {"file": ("c.yaml", b"job: {type: trains}\n")}
    for prefix in (f"/v1/datasets/{dataset}/train-config", "/v1/train-config", "/api/v1/train-config"):
        assert client.put(prefix, files=config).status_code == 200
        assert client.get(prefix).status_code == 200
        assert client.delete(prefix).json()["status"] == "train_config_deleted"
        assert client.get(prefix).status_code == 404
    assert client.delete(f"/v1/datasets/{dataset}").status_code == 200


def test_the_document_has_each_call_once(client: httpx.Client) -> None:
    """Aliases stay out of it, and a call that takes a file says so."""
    paths = client.get("/openapi.json").json()["paths"]
    of_openai = {
        path for path, methods in paths.items() if {one["operationId"] for one in methods.values()} <= operations()
    }
    ours = {path for path in paths if re.search("dataset|upload|train-config", path)} - of_openai
    assert {path for path in ours if not path.startswith("/api/v1/")} == set()
    assert {"/api/v1/datasets", "/api/v1/uploads/{upload_id}", "/api/v1/train-config"} <= ours
    for path in ("/api/v1/datasets/{dataset_id}/files", "/api/v1/train-config"):
        body = paths[path]["put"]["requestBody"]["content"]["multipart/form-data"]
        assert "file" in json.dumps(body)


@pytest.mark.parametrize("dataset", ["..", "%2e%2e", "..%2f..%2fkeys", "%252e%252e", "a%00b", "x" * 3000, "null"])
def test_an_id_leads_nowhere_else(client: httpx.Client, dataset: str) -> None:
    """Whatever stands where an id should, the answer is that there is none."""
    for path in (f"/api/v1/datasets/{dataset}", f"/api/v1/datasets/{dataset}/train-config"):
        assert client.get(path).status_code in (404, 405), path
    assert client.delete(f"/api/v1/uploads/{dataset}").status_code in (404, 405)
    owner = new_dataset(client)
    assert client.get(f"/api/v1/datasets/{owner}/files/{dataset}/content").status_code == 404
