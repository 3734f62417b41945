"""Every list: pages by ``limit`` and ``cursor``, and filters that mean any of their values when they are repeated."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.openai_door import operations
from support.server import start_run, wait_for_run

LISTS = {
    "/v1/recipes": "recipes",
    "/v1/runs": "runs",
    "/v1/experiments": "experiments",
    "/api/v1/datasets": "datasets",
    "/api/v1/deidentify/policies": "policies",
}


@pytest.fixture(scope="module")
def runs(client) -> Iterator[dict[str, str]]:
    """One that succeeded, one that failed; by recipe. The datasets go again: this file may come to a server twice."""
    found = {recipe: start_run(client, recipe) for recipe in ("quick", "fails")}
    for run_id in found.values():
        wait_for_run(client, run_id)
    for name in ("lists-a", "lists-b"):
        client.post("/api/v1/datasets", json={"name": name}).raise_for_status()
    yield found
    for name in ("lists-a", "lists-b"):
        client.delete(f"/api/v1/datasets/{name}").raise_for_status()


def test_every_list_takes_limit_and_cursor(client):
    """Whatever answers a list of records; the OpenAI-shaped door turns pages by the last item's id."""
    of_openai = operations()
    for path, methods in client.get("/openapi.json").json()["paths"].items():
        call = methods.get("get", {})
        named = {parameter["name"] for parameter in call.get("parameters", [])}
        if call.get("operationId", "").startswith("list_"):
            if call["operationId"] not in of_openai:
                assert {"limit", "cursor"} <= named, path
            elif call["operationId"] != "list_models":  # always all of them, as OpenAI answers
                assert {"limit", "after"} <= named, path


@pytest.mark.parametrize("path", LISTS)
def test_pages_come_to_the_whole(client, runs, path):
    """Page by page, everything once and in the same order."""
    whole = client.get(path, params={"limit": 1000}).json()[LISTS[path]]
    found, cursor = [], None
    for _ in range(len(whole) + 1):
        page = client.get(path, params={"limit": 1, **({"cursor": cursor} if cursor else {})}).raise_for_status().json()
        found += page[LISTS[path]]
        cursor = page["cursor"]
        if cursor is None:
            break
    assert len(found) > 1 or path.endswith("policies")
    assert found == whole


def shown(client, query: str) -> set[str]:
    return {run["run_id"] for run in client.get(f"/v1/runs?limit=1000&{query}").raise_for_status().json()["runs"]}


def test_a_repeated_filter_means_any_of_its_values(client, runs):
    """Of runs: by state, recipe and experiment; `status` and `state` are one filter."""
    quick, fails = runs["quick"], runs["fails"]
    both = {quick, fails}
    assert both <= shown(client, "state=succeeded&state=failed")
    assert both <= shown(client, "state=succeeded&status=failed")
    assert shown(client, "status=failed") == shown(client, "state=failed")
    assert both & shown(client, "status=failed") == {fails}
    assert both <= shown(client, "recipe=quick&recipe=fails")
    assert both & shown(client, "recipe=quick") == {quick}
    of = {run_id: client.get(f"/v1/runs/{run_id}").json()["experiment_id"] for run_id in both}
    assert shown(client, f"experiment_id={of[quick]}&experiment_id={of[fails]}") == both
    assert shown(client, f"experiment_id={of[quick]}&state=failed") == set()


def test_pages_of_several_experiments_are_in_order(client, runs):
    """Newest first, also where runs of two experiments are mixed, and nothing twice from page to page."""
    made = [client.post("/v1/experiments", json={"name": "m", "task_type": "sft"}).json()["id"] for _ in range(2)]
    order = [
        client.post(f"/v1/experiments/{made[number % 2]}/runs", json={"recipe": "sft"}).json()["run_id"]
        for number in range(5)
    ]
    found, query = [], f"experiment_id={made[0]}&experiment_id={made[1]}&limit=2"
    page = client.get(f"/v1/runs?{query}").json()
    while True:
        found += [run["run_id"] for run in page["runs"]]
        if page["cursor"] is None:
            break
        page = client.get(f"/v1/runs?{query}&cursor={page['cursor']}").json()
    assert found == order[::-1]


def test_filters_of_experiments_projects_and_datasets(client, runs):
    """By tag, owner, name and status."""
    for name, tags, owner in (("f1", ["red"], "ada"), ("f2", ["blue"], "bob"), ("f3", ["green"], "eve")):
        body = {"name": name, "task_type": "sft", "tags": tags, "owner": owner}
        client.post("/v1/experiments", json=body).raise_for_status()
        project = {"name": name, "dataset_name": "d", "training_yaml_name": "t.yaml", "tags": tags, "owner": owner}
        client.post("/api/projects", json=project).raise_for_status()
    client.patch("/api/projects/f2", json={"status": "archived"}).raise_for_status()

    def named(path: str) -> set[str]:
        answer = client.get(path).raise_for_status().json()
        return {one["name"] for one in (answer if isinstance(answer, list) else answer[LISTS[path.partition("?")[0]]])}

    assert named("/v1/experiments?tag=red&tag=blue&limit=1000") == {"f1", "f2"}
    assert named("/v1/experiments?owner=ada&owner=eve&limit=1000") == {"f1", "f3"}
    assert named("/v1/experiments?name=f1&name=f3&tag=green&limit=1000") == {"f3"}
    assert named("/api/projects?tag=red&tag=blue") == {"f1", "f2"}
    assert named("/api/projects?tag=red&tag=blue&status=active") == {"f1"}
    assert named("/api/projects?tag=red&tag=blue&status=active&status=archived") == {"f1", "f2"}
    assert named("/api/v1/datasets?name=lists-a&name=lists-b&name=nope") == {"lists-a", "lists-b"}


def test_null_is_no_number(client, runs):
    """A word is not taken for a parameter that was left out."""
    for query in ("after_line=null", "level=NULL"):
        answer = client.get(f"/v1/runs/{runs['quick']}/logs?{query}")
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["where"] == query.partition("=")[0]


def test_options_names_every_method_of_a_path(client):
    """As the document has them."""
    for path, methods in client.get("/openapi.json").json()["paths"].items():
        answer = client.options(path.replace("{", "").replace("}", ""))
        assert answer.status_code == 204
        assert {method.upper() for method in methods} <= set(answer.headers["allow"].split(", ")), path
