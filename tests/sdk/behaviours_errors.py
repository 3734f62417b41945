"""The form of errors: `{"error": {message, type, param, code}}` and an x-request-id on every answer, whoever was wrong."""

from __future__ import annotations

from openai import AuthenticationError
from scene import Scene, in_error_form, refused
from sdk_parts import expect


def keys(scene: Scene) -> None:
    """No key and a wrong key are 401, on every path."""
    for key in (None, "sk-wrong"):
        for verb, path in (("GET", "/models"), ("POST", "/chat/completions"), ("GET", "/files/file-nobody")):
            in_error_form(scene.wire.send(verb, path, {} if verb == "POST" else None, key=key), 401)
    refused(scene.client.with_options(api_key="sk-wrong").models.list, AuthenticationError)


def wrong_addresses(scene: Scene) -> None:
    """An unknown address is 404, a wrong method 405."""
    for verb, path in (("GET", "/nothing/here"), ("POST", "/nothing"), ("GET", "/fine_tuning/nothing")):
        in_error_form(scene.wire.send(verb, path, {} if verb == "POST" else None), 404)
    for verb, path in (("PUT", "/files"), ("DELETE", "/chat/completions"), ("POST", "/models")):
        in_error_form(scene.wire.send(verb, path, {} if verb == "POST" else None), 405)
    in_error_form(scene.wire.send("GET", "/files/file-nobody"), 404)
    in_error_form(scene.wire.send("GET", "/fine_tuning/jobs/ftjob-nobody"), 404)
    in_error_form(scene.wire.send("GET", "/models/nobody/nothing"), 404)


def wrong_bodies(scene: Scene) -> None:
    """A body that is no JSON, no object or lacks a field is 4xx, and the error names the field."""
    for path in ("/chat/completions", "/fine_tuning/jobs", "/batches", "/uploads"):
        for body in (b"{this is no JSON", b"[1, 2]", b'"text"', b"\xff\xfe"):
            in_error_form(scene.wire.send("POST", path, body), 400, 422)
        in_error_form(scene.wire.send("POST", path, {}), 400, 422)
    error = in_error_form(scene.wire.send("POST", "/chat/completions", {"model": scene.asked.model}), 400, 422)
    expect(
        "messages" in f"{error['param']} {error['message']}", "the error names the field that is missing", error=error
    )
    form = {"Content-Type": "multipart/form-data; boundary=x"}
    in_error_form(scene.wire.send("POST", "/files", b"--x--\r\n", form), 400, 422)
    in_error_form(scene.wire.send("POST", "/files", b"--x", form), 400, 422)


def wrong_queries(scene: Scene) -> None:
    """A limit that is no number is 4xx, and the error names it."""
    for path in ("/files", "/fine_tuning/jobs", "/batches", f"/fine_tuning/jobs/{scene.job.id}/events"):
        error = in_error_form(scene.wire.send("GET", f"{path}?limit=many"), 400, 422)
        expect("limit" in f"{error['param']} {error['message']}", "the error names limit", error=error)


def good_answers(scene: Scene) -> None:
    """Good answers have an x-request-id, each its own; organizations and projects are ignored."""
    paths = ("/models", "/files", "/fine_tuning/jobs", "/batches", f"/files/{scene.training_file}/content")
    answers = [
        scene.wire.send("GET", path, headers={"OpenAI-Organization": "org-x", "OpenAI-Project": "p"}) for path in paths
    ]
    for answer in answers:
        expect(answer.status == 200, f"{answer.request} is 200", status=answer.status, body=answer.text[:500])
    ids = [answer.headers.get("x-request-id") for answer in answers]
    expect(all(ids) and len(set(ids)) == len(ids), "each has an x-request-id of its own", ids=ids)
    other = scene.client.with_options(organization="org-nobody", project="proj_nobody")
    expect(list(other.models.list()), "a client with an organization and a project gets its answer")


CHECKS = (keys, wrong_addresses, wrong_bodies, wrong_queries, good_answers)
