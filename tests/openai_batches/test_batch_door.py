"""A file of requests is answered in the background: its lines become an output and an error file, and all that is wrong is told."""

from __future__ import annotations

import json
import time

import pytest
from batch_parts import URL, content_of, create, files_of, lines_of, once, request, shown, started, upload

SDK_BODY = {
    "completion_window": "24h",
    "endpoint": "/v1/chat/completions",
    "metadata": {"foo": "string"},
    "output_expires_after": {"anchor": "created_at", "seconds": 3600},
}
"""As the SDKs' own tests send it, beside the file."""


def test_every_request_gets_one_line_in_one_of_two_files(shared):
    requests = [request(f"r{number}", f"number {number}") for number in range(14)]
    requests += [request(f"refused-{number}", "please refuse") for number in range(3)]
    requests += [request("streams", stream=True), request("whole", stream=False), request("later", "busy at first")]
    before = int(time.time())
    batch = once(shared, started(shared, requests))
    assert batch["status"] == "completed"
    assert batch["request_counts"] == {"total": 20, "completed": 16, "failed": 4}
    assert (batch["model"], batch["errors"]) == ("served", None)
    output, errors = files_of(shared, batch)
    assert set(errors) == {"refused-0", "refused-1", "refused-2", "streams"}
    assert set(output) | set(errors) == {one["custom_id"] for one in requests}
    line = output["r3"]
    assert line["id"].startswith("batch_req_")
    assert line["error"] is None
    assert (line["response"]["status_code"], line["response"]["request_id"][:4]) == (200, "req_")
    assert line["response"]["body"]["choices"][0]["message"]["content"] == "you said: number 3"
    assert line["response"]["body"]["model"] == "served"
    refused = errors["refused-0"]
    assert refused["response"]["status_code"] == 400
    assert refused["response"]["body"]["error"]["message"] == "no"
    assert refused["error"] is None
    assert errors["streams"]["response"] is None
    assert "stream" in errors["streams"]["error"]["message"]
    assert batch["usage"]["total_tokens"] == 16 * 5
    times = [batch[f"{name}_at"] for name in ("created", "in_progress", "finalizing", "completed")]
    assert times == sorted(times)
    assert before <= times[0]
    assert batch["expires_at"] == batch["created_at"] + 24 * 3600


def test_its_files_are_files_like_any_other(shared):
    batch = once(
        shared,
        started(shared, [request("a"), request("b", "refuse")], output_expires_after=SDK_BODY["output_expires_after"]),
    )
    file = shared.get(f"/v1/files/{batch['output_file_id']}").json()
    assert (file["filename"], file["purpose"]) == (f"{batch['id']}_output.jsonl", "batch_output")
    assert 0 <= file["expires_at"] - file["created_at"] - 3600 <= 60
    errors = shared.get(f"/v1/files/{batch['error_file_id']}").json()
    assert errors["filename"] == f"{batch['id']}_error.jsonl"


def test_there_is_no_file_without_lines(shared):
    good = once(shared, started(shared, [request("a", "all is well")]))
    assert good["error_file_id"] is None
    bad = once(shared, started(shared, [request("a", "refuse")]))
    assert (bad["output_file_id"], bad["status"]) == (None, "completed")


def test_the_sdks_bodies_are_taken(shared):
    answer = create(shared, upload(shared, lines_of([request("x", "sdk")])), **SDK_BODY)
    assert answer.status_code == 200, answer.text
    assert answer.json()["metadata"] == {"foo": "string"}
    assert answer.json()["status"] == "validating"
    assert once(shared, answer.json()["id"])["status"] == "completed"


@pytest.mark.parametrize("sent", [b"\xef\xbb\xbf", b"\n \n"], ids=["byte order mark", "blank lines"])
def test_what_editors_leave_in_a_file_does_no_harm(shared, sent):
    content = sent + lines_of([request("a", "edited")]).replace(b"\n", b"\r\n") + json.dumps(request("b")).encode()
    batch = once(shared, create(shared, upload(shared, content)).json()["id"])
    assert batch["request_counts"] == {"total": 2, "completed": 2, "failed": 0}


GOOD = request("good")
FAULTS = {
    "not JSON": (b"{nope}\n", "invalid_json_line", None),
    "not UTF-8": (b'{"custom_id": "\xff"}\n', "invalid_json_line", None),
    "nested": (b'{"body": ' + b"[" * 5000 + b"]" * 5000 + b"}\n", "invalid_json_line", None),
    "a list": (b"[]\n", "invalid_json_line", None),
    "no custom_id": ({**GOOD, "custom_id": None}, "missing_required_parameter", "custom_id"),
    "a number as custom_id": ({**GOOD, "custom_id": 5}, "invalid_type", "custom_id"),
    "a long custom_id": ({**GOOD, "custom_id": "x" * 600}, "invalid_value", "custom_id"),
    "the same custom_id": (GOOD, "duplicate_custom_id", "custom_id"),
    "another method": ({**GOOD, "custom_id": "x", "method": "GET"}, "invalid_method", "method"),
    "another url": ({**GOOD, "custom_id": "x", "url": "/v1/embeddings"}, "invalid_url", "url"),
    "no body": ({key: GOOD[key] for key in ("method", "url")} | {"custom_id": "x"}, "missing_required_parameter", "body"),
    "a text as body": ({**GOOD, "custom_id": "x", "body": "hi"}, "invalid_type", "body"),
    "no model": ({**GOOD, "custom_id": "x", "body": {"messages": []}}, "missing_required_parameter", "body.model"),
    "no messages": ({**GOOD, "custom_id": "x", "body": {"model": "served"}}, "missing_required_parameter", "body.messages"),
    "an unknown model": (request("x", model="nowhere"), "model_not_found", "body.model"),
    "a model of the hub": (request("x", model="nobody/nothing"), "model_not_found", "body.model"),
}  # fmt: skip


@pytest.mark.parametrize(("line", "code", "param"), FAULTS.values(), ids=FAULTS)
def test_a_wrong_line_fails_the_batch_and_is_named(shared, line, code, param):
    batch = once(shared, started(shared, [GOOD, line, request("last")]))
    assert batch["status"] == "failed"
    assert batch["failed_at"] >= batch["created_at"]
    assert batch["output_file_id"] is batch["error_file_id"] is None
    assert batch["errors"]["object"] == "list"
    (error,) = batch["errors"]["data"]
    assert (error["code"], error["line"], error["param"]) == (code, 2, param)
    assert error["message"]


def test_all_wrong_lines_are_told_but_not_without_end(shared):
    batch = once(shared, started(shared, [b"{nope}\n"] * 500))
    assert [error["line"] for error in batch["errors"]["data"]] == list(range(1, 101))


def test_a_file_may_not_name_many_models(shared):
    batch = once(shared, started(shared, [request(str(number), model=f"m{number}") for number in range(200)]))
    told = [(error["code"], error["line"]) for error in batch["errors"]["data"]]
    assert told == [("too_many_models", 21), *(("model_not_found", line) for line in range(1, 21))]


def test_a_file_may_be_too_long_or_empty(shared):
    long = once(shared, started(shared, (request(str(number)) for number in range(50_001))))
    assert [(error["code"], error["line"]) for error in long["errors"]["data"]] == [("request_limit_exceeded", 50_001)]
    blank = once(shared, started(shared, [b"\n \n"]))
    assert [error["code"] for error in blank["errors"]["data"]] == ["empty_file"]


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("endpoint", "/v1/embeddings", "'/v1/embeddings' is not served here"),
        ("endpoint", "/v1/responses", "'/v1/responses' is not served here"),
        ("endpoint", "/nowhere", "no endpoint"),
        ("completion_window", "1h", "24h"),
        ("input_file_id", "file-nothing", "there is no file"),
        ("metadata", {str(number): "" for number in range(17)}, "16"),
        ("metadata", {"a": 5}, "metadata"),
        ("output_expires_after", {"anchor": "created_at", "seconds": 10}, "3600"),
        ("input_file_id", None, "input_file_id"),
    ],
)
def test_what_cannot_be_is_refused_and_names_its_field(shared, field, value, told):
    file_id = upload(shared, lines_of([request("a")]))
    body = {"input_file_id": file_id, "endpoint": URL, "completion_window": "24h", field: value}
    answer = shared.post("/v1/batches", json=body)
    assert answer.status_code == 400, answer.text
    assert told in answer.json()["error"]["message"]
    assert answer.json()["error"]["param"].startswith(field)


def test_a_file_for_something_else_is_refused(shared):
    answer = create(shared, upload(shared, lines_of([request("a")]), purpose="assistants"))
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "input_file_id")


def test_a_file_of_another_door_will_do(shared):
    dataset = shared.post("/api/v1/datasets", json={"name": "requests"}).raise_for_status().json()["id"]
    files = {"file": ("r.jsonl", lines_of([request("a")]))}
    upload_id = shared.put(f"/api/v1/datasets/{dataset}/files", files=files).raise_for_status().json()["upload_id"]
    assert once(shared, create(shared, upload_id).raise_for_status().json()["id"])["status"] == "completed"


def test_the_same_request_within_seconds_is_the_same_batch(shared):
    file_id = upload(shared, lines_of([request("a", "twice")]))
    first, again, other = (create(shared, file_id, metadata={"n": n}).json()["id"] for n in "112")
    assert first == again != other


def test_pages_go_from_the_newest_to_the_oldest(shared):
    made = [started(shared, [request("p", f"page {number}")]) for number in range(5)]
    seen, after = [], None
    while True:
        page = shared.get("/v1/batches", params={"limit": 2, **({"after": after} if after else {})}).json()
        assert page["object"] == "list"
        seen += [one["id"] for one in page["data"]]
        after = page["last_id"]
        if not page["has_more"]:
            break
    assert seen[:5] == made[::-1]
    assert len(set(seen)) == len(seen)
    assert shared.get("/v1/batches", params={"limit": 0}).status_code == 400


def test_an_unknown_batch_is_told(shared):
    for answer in (shared.get("/v1/batches/batch_x"), shared.post("/v1/batches/batch_x/cancel")):
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")


def test_one_that_is_over_cannot_be_cancelled(shared):
    batch = once(shared, started(shared, [request("a", "over soon")]))
    answer = shared.post(f"/v1/batches/{batch['id']}/cancel")
    assert (answer.status_code, answer.json()["error"]["type"]) == (400, "invalid_request_error")
    assert shown(shared, batch["id"]) == batch
    assert [line["custom_id"] for line in content_of(shared, batch["output_file_id"])] == ["a"]
