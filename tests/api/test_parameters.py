"""Query parameters over real HTTP: unknown ones are refused on every call, and wrong ones told in words."""

from __future__ import annotations

import re

import pytest

from support.openai_door import operations


def faults(answer) -> dict[str, str]:
    assert answer.status_code == 422, (answer.status_code, answer.text)
    assert answer.headers["content-type"].startswith("application/problem+json")
    return {fault["where"]: fault["message"] + " " + fault.get("mend", "") for fault in answer.json()["errors"]}


def test_every_call_refuses_unknown_parameters(client):
    """Whatever it is and whether or not what its path names exists: nothing that was asked is silently left out."""
    of_openai = operations()
    calls = client.get("/openapi.json").json()["paths"]
    for path, methods in calls.items():
        for method, call in methods.items():
            if call["operationId"] in of_openai:
                continue
            answer = client.request(method, re.sub(r"{\w+}", "x", path), params={"no_such_thing": "1"})
            assert list(faults(answer)) == ["no_such_thing"], (method, path)


def test_the_openai_door_passes_over_unknown_parameters(client):
    """Its clients may send whatever OpenAI's API takes: they are answered as if it were not there."""
    of_openai = operations()
    calls = client.get("/openapi.json").json()["paths"]
    for path, methods in calls.items():
        for method, call in methods.items():
            if call["operationId"] in of_openai:
                place = re.sub(r"{\w+}", "x", path)
                with_it = client.request(method, place, params={"no_such_thing": "1"})
                assert with_it.status_code == client.request(method, place).status_code, (method, path)
                assert "no_such_thing" not in with_it.text, (method, path)


@pytest.mark.parametrize("path", ["/", "/health", "/docs", "/openapi.json", "/projects", "/v1/datasets"])
def test_aliases_and_pages_do_so_too(client, path):
    """What is not in the document is no exception."""
    assert list(faults(client.get(f"{path}?nope=1"))) == ["nope"]


def test_the_nearest_name_is_told(client):
    """All that is unknown at once, each with what was probably meant."""
    found = faults(client.get("/v1/runs", params={"stat": "running", "lmit": 5, "zzz": 1}))
    assert "did you mean state?" in found["stat"]
    assert "did you mean limit?" in found["lmit"]
    assert "there is" in found["zzz"]


def test_what_can_be_given_once_is_refused_twice(client):
    """Rather than that one of the two is left out."""
    assert "2 times" in faults(client.get("/v1/runs?limit=1&limit=2"))["limit"]


def test_every_wrong_parameter_is_told(client):
    """With the bounds and the choices."""
    found = faults(client.get("/v1/runs", params={"limit": 0, "cursor": "x", "state": "runing"}))
    assert "at least 1" in found["limit"]
    assert found["cursor"]
    assert '"running"' in found["state"]
    assert "did you mean running?" in found["state"]
    assert "is required" in faults(client.post("/api/data/validate"))["file_path"]
    assert "at most 1000" in faults(client.get("/v1/experiments", params={"limit": 1001}))["limit"]
    assert "whole number" in faults(client.get("/v1/experiments", params={"limit": "1.5"}))["limit"]
