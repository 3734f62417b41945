"""POST /api/v1/deidentify:test over a real server: what it answers, what it refuses, and what stays behind."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from support.server import ServerProcess, polled
from tunesmith.runner.local.identity import identify

URL = "/api/v1/deidentify:test"
CANARY = "我叫张伟，手机13812345678，邮箱canary@secret.example"


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[ServerProcess]:
    place = tmp_path_factory.mktemp("deid")
    policies = place / "state/policies"
    policies.mkdir(parents=True)
    (policies / "own.yaml").write_text("id: own\nversion: 2024-11\nkinds: {PHONE: {action: mask, first: 3, last: 4}}\n")
    (policies / "broken.yaml").write_text("id: broken\nkinds: {PERSN: {action: mask}}\n")
    with ServerProcess.start(place / "state", place / "recipes") as server:
        yield server


@pytest.fixture(scope="module")
def client(server) -> Iterator[httpx.Client]:
    with server.client() as client:
        yield client


def worker_of(server: ServerProcess) -> int | None:
    """The process id of the server's worker."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            command = (folder / "cmdline").read_bytes()
        except (OSError, ProcessLookupError):
            continue
        if parent == server.pid and b"tunesmith_workers.deid.serve" in command:
            return int(folder.name)
    return None


def test_the_agreed_request_gets_the_agreed_answer(client):
    """All fields of both; the same seed gives the same answer, also under the alias."""
    request = {
        "policy_id": "default",
        "text": [CANARY, "张伟住在北京市朝阳区建国路88号", "没有什么"],
        "options": {"locale": "zh-CN", "format": "text", "return_mapping": True, "seed": 42},
    }
    answer = client.post(URL, json=request)
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert set(body) == {"deidentified", "policy_id", "policy_version", "counts", "mapping"}
    assert body["policy_version"] == "1"
    assert body["counts"] == {"ADDRESS": 1, "EMAIL": 1, "PERSON": 2, "PHONE": 1}
    assert len(body["deidentified"]) == 3
    assert body["deidentified"][2] == "没有什么"
    for text, done, pairs in zip(request["text"], body["deidentified"], body["mapping"], strict=True):
        restored = done
        for original, replacement in pairs.items():
            assert original in text
            assert original not in done
            restored = restored.replace(replacement, original)
        assert restored == text
    assert body["mapping"][0]["张伟"] == body["mapping"][1]["张伟"]
    assert client.post("/v1/deidentify:test", json=request).json() == body


def test_without_asking_there_is_no_mapping(client):
    """It holds the personal data itself."""
    body = client.post(URL, json={"text": [CANARY]}).json()
    assert set(body) == {"deidentified", "policy_id", "policy_version", "counts"}


def test_an_own_policy(client):
    """From the state folder, with its version."""
    body = client.post(URL, json={"policy_id": "own", "text": ["张伟 13812345678"]}).json()
    assert body["deidentified"] == ["张伟 138****5678"]
    assert body["policy_version"] == "2024-11"


def test_policies_are_listed_with_what_is_wrong(client):
    """Shipped ones and own ones, broken ones too."""
    listed = {policy["id"]: policy for policy in client.get("/api/v1/deidentify/policies").json()["policies"]}
    assert set(listed) == {"default", "mask", "redact", "own", "broken"}
    assert (listed["own"]["source"], listed["mask"]["source"]) == ("state", "shipped")
    assert listed["default"]["kinds"]["PERSON"] == "replace"
    assert {fault["where"] for fault in listed["broken"]["faults"]} == {"version", "kinds.PERSN"}
    assert not listed["own"]["faults"]


@pytest.mark.parametrize(
    ("request_body", "told"),
    [
        ({"text": ["x"], "policy_id": "defalt"}, "did you mean default?"),
        ({"text": ["x"], "policy_id": "broken"}, "did you mean PERSON?"),
        ({"text": ["x"], "policy_id": "../own"}, "policy_id"),
        ({"text": []}, "text"),
        ({}, "text"),
        ({"text": "x"}, "text"),
        ({"text": [1]}, "text"),
        ({"text": ["x"], "polcy_id": "default"}, "polcy_id"),
        ({"text": ["x"], "options": {"locale": "fr-FR"}}, "locale"),
        ({"text": ["x"], "options": {"format": "html"}}, "format"),
        ({"text": ["x"], "options": {"seed": "a"}}, "seed"),
        ({"text": ["x"], "options": {"seed": -1}}, "seed"),
        ({"text": ["x"], "options": {"sead": 1}}, "sead"),
    ],
)
def test_a_bad_request_is_told_what_is_wrong(client, request_body, told):
    """422, with the place, and the nearest right name where there is one."""
    answer = client.post(URL, json=request_body)
    assert answer.status_code == 422, answer.text
    assert told in answer.text


def test_too_much_text_is_413(client):
    """More than a request may hold, by number and by length."""
    assert client.post(URL, json={"text": ["x"] * 1001}).status_code == 413
    assert client.post(URL, json={"text": ["x" * 500_001]}).status_code == 413
    assert client.post(URL, json={"text": ["x" * 5_000_000]}).status_code == 413


def test_half_a_surrogate_pair_is_no_bug(client):
    """JSON can write what no text can hold."""
    answer = client.post(
        URL, content=b'{"text": ["\\ud800 13812345678"]}', headers={"content-type": "application/json"}
    )
    assert answer.status_code in (200, 400, 422)
    pair = client.post(
        URL,
        content=b'{"text": ["\\ud83d\\ude00 13812345678"], "policy_id": "redact"}',
        headers={"content-type": "application/json"},
    )
    assert pair.json()["deidentified"] == ["😀 <PHONE>"]


def test_100_000_lines_are_answered(client):
    """Nothing in a text makes it slow enough to be refused."""
    answer = client.post(URL, json={"text": ["\n" * 100_000], "policy_id": "redact"})
    assert answer.json()["deidentified"] == ["\n" * 100_000]


def test_the_document_has_the_call_and_not_its_alias(client):
    """With request and answer."""
    paths = client.get("/openapi.json").json()["paths"]
    assert "post" in paths[URL]
    assert "get" in paths["/api/v1/deidentify/policies"]
    assert "/v1/deidentify:test" not in paths


def test_texts_are_written_down_nowhere(server, client):
    """Not in the log, nor the state folder, whether it went well or not."""
    for policy in ("default", "broken", "nothing"):
        client.post(URL, json={"text": [CANARY], "policy_id": policy, "options": {"return_mapping": True}})
    places = [path for path in server.state_dir.rglob("*") if path.is_file()] + [server.log]
    for path in places:
        content = path.read_bytes()
        for secret in ("canary@secret", "13812345678", "张伟"):
            assert secret.encode() not in content, path


def test_a_killed_worker_is_replaced(server, client):
    """The next request is answered as the one before."""
    request = {"text": [CANARY], "options": {"seed": 5}}
    before = client.post(URL, json=request).json()
    pid = worker_of(server)
    os.kill(pid, 9)
    assert client.post(URL, json=request).json() == before
    assert worker_of(server) not in (None, pid)


def test_a_killed_server_leaves_no_worker(tmp_path):
    """The worker sees its input close and ends."""
    with ServerProcess.start(tmp_path / "state", tmp_path / "recipes") as server:
        with server.client() as client:
            client.get("/api/v1/deidentify/policies").raise_for_status()
        worker = worker_of(server)
        assert worker is not None
        server.kill9()
        assert any(polled(lambda: identify(worker) is None))


def test_a_stopped_server_leaves_no_worker(tmp_path):
    """SIGTERM ends both."""
    with ServerProcess.start(tmp_path / "state", tmp_path / "recipes") as server:
        with server.client() as client:
            client.get("/api/v1/deidentify/policies").raise_for_status()
        worker = worker_of(server)
        assert worker is not None
        assert server.stop() == 0
        assert identify(worker) is None
