"""Files of the OpenAI-shaped door: in, listed, looked at, used, out. Every upload of any door is one."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import anyio
import httpx
import pytest
from door_parts import file_part, form, new_file, new_rows, pages, post_form, processed, purpose_part

from support.app import eventually
from support.openai_door import is_error
from support.server import ServerProcess, start_run, wait_for_run
from tunesmith.app import App, open_services
from tunesmith.records import Scope, utc_now
from tunesmith.server.application import create_app
from tunesmith.settings import Settings


def wrong(answer: httpx.Response, param: str) -> str:
    """The message of a refusal of that field."""
    assert answer.status_code == 400, answer.text
    assert is_error(answer)
    error = answer.json()["error"]
    assert (error["param"], error["type"]) == (param, "invalid_request_error")
    message: str = error["message"]
    return message


@pytest.mark.parametrize("order", ["fields first, as from Python", "file first, as from a browser"])
def test_a_file_comes_in_in_any_order_of_its_parts(client, order):
    """What the SDKs and curl send: the answer is a File, and its bytes come back as they were."""
    rows = new_rows(3)
    parts = [
        purpose_part(),
        ("expires_after[anchor]", None, b"created_at"),
        ("expires_after[seconds]", None, b"2592000"),
        file_part(rows),
    ]
    answer = post_form(client, *(parts if order.startswith("fields") else parts[::-1]))
    made = answer.raise_for_status().json()
    assert made["id"].startswith("file-")
    assert (made["object"], made["bytes"], made["filename"]) == ("file", len(rows), "mydata.jsonl")
    assert (made["purpose"], made["status"]) == ("fine-tune", "uploaded")
    assert made["expires_at"] == made["created_at"] + 2592000
    assert processed(client, made["id"]) == {**made, "status": "processed"}
    content = client.get(f"/v1/files/{made['id']}/content")
    assert content.content == rows


def test_a_field_that_nobody_knows_is_passed_over(client):
    """OpenAI's API has more of them every year."""
    rows = new_rows()
    answer = post_form(client, ("anything", None, b"x"), file_part(rows), purpose_part(), ("more[in]", None, b"y"))
    assert answer.raise_for_status().json()["bytes"] == len(rows)


def test_the_purpose_has_to_be_named_and_known(client):
    """A file without it is refused with the choices, wherever the field should have been, and nothing of it stays."""
    before = list(pages(client, "/v1/files"))
    for parts in ([file_part(new_rows())], [purpose_part("fine-tuning"), file_part(new_rows())]):
        message = wrong(post_form(client, *parts), "purpose")
        assert "fine-tune, batch, assistants" in message
    assert list(pages(client, "/v1/files")) == before


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("expires_after[seconds]", "3599"),
        ("expires_after[seconds]", "2592001"),
        ("expires_after[seconds]", "9" * 4000),
        ("expires_after[seconds]", "soon"),
        ("expires_after[seconds]", "-1"),
        ("expires_after[anchor]", "last_active_at"),
    ],
)
def test_a_wrong_time_to_expire_is_refused(client, field, value):
    """With the bounds."""
    wrong(post_form(client, purpose_part(), (field, None, value.encode()), file_part(new_rows())), field)


def test_an_anchor_without_seconds_is_refused(client):
    """It says from when, and not how long."""
    anchor = ("expires_after[anchor]", None, b"created_at")
    wrong(post_form(client, purpose_part(), anchor, file_part(new_rows())), "expires_after[seconds]")


def test_what_is_no_sound_form_is_refused(client):
    """Two files, no file, a file under another name, an empty one, a body that ends early, one that is JSON, one too large."""
    rows = new_rows()
    assert "second file" in wrong(post_form(client, purpose_part(), file_part(rows), file_part(rows)), "file")
    wrong(post_form(client, purpose_part()), "file")
    wrong(post_form(client, purpose_part(), ("data", "a.jsonl", rows)), "file")
    wrong(post_form(client, purpose_part(), file_part(b"")), "file")
    wrong(post_form(client, ("purpose", None, b"\xff\xfe"), file_part(rows)), "purpose")
    wrong(post_form(client, ("purpose", None, b"x" * 5000), file_part(rows)), "purpose")
    headers = {"Content-Type": post_form(client, purpose_part()).request.headers["content-type"]}
    cut = form(purpose_part(), file_part(rows))[:-20]
    wrong(client.post("/v1/files", content=cut, headers=headers), "file")
    no_form = client.post("/v1/files", json={"file": "x", "purpose": "fine-tune"})
    assert (no_form.status_code, is_error(no_form)) == (415, True)
    large = post_form(client, purpose_part(), file_part(b"x" * 3_000_001))
    assert (large.status_code, is_error(large)) == (413, True)
    assert "max_upload_bytes" in large.json()["error"]["message"]


def test_rows_that_cannot_be_used_are_told_with_their_lines(client):
    """As soon as they were looked at; only in files for fine-tuning."""
    rows = new_rows(2) + b'{"messages": "none"}\n' + new_rows() + b"{not json\n"
    made = new_file(client, rows)
    shown = processed(client, made["id"])
    assert shown["status"] == "error"
    assert "line 3: " in shown["status_details"]
    assert "line 5: " in shown["status_details"]
    for_later = new_file(client, rows, purpose="user_data")
    assert for_later["status"] == "processed"


def test_pages_are_turned_by_the_last_id(client):
    """Newest or oldest first, of one purpose or of all; a page says whether there are more."""
    made = [new_file(client, new_rows(), purpose="evals")["id"] for _ in range(5)]
    assert [list(page) for page in pages(client, "/v1/files", purpose="evals", limit=2)] == [
        made[:2:-1],
        made[2:0:-1],
        made[:1],
    ]
    upwards = pages(client, "/v1/files", purpose="evals", limit=2, order="asc")
    assert [list(page) for page in upwards] == [made[:2], made[2:4], made[4:]]
    page = client.get("/v1/files", params={"purpose": "evals", "limit": 5}).json()
    assert (page["object"], page["has_more"], page["first_id"], page["last_id"]) == ("list", False, made[4], made[0])
    assert set(made) < {one["id"] for one in client.get("/v1/files").json()["data"]}
    # The place of one that is gone is known by its id: whoever was in the middle of the pages goes on there.
    client.delete(f"/v1/files/{made[2]}").raise_for_status()
    after = client.get("/v1/files", params={"purpose": "evals", "after": made[2]}).json()
    assert [one["id"] for one in after["data"]] == [made[1], made[0]]
    nothing = client.get("/v1/files", params={"purpose": "vision"}).json()
    assert nothing == {"object": "list", "data": [], "first_id": None, "last_id": None, "has_more": False}


@pytest.mark.parametrize("query", ["limit=0", "limit=10001", "limit=all", "order=up", f"after={'x' * 201}"])
def test_pages_are_asked_for_within_bounds(client, query):
    """The refusal names the parameter."""
    wrong(client.get(f"/v1/files?{query}"), query.partition("=")[0])


def test_a_deleted_file_is_gone(client):
    """From the answer on; deleting it again, or what never was, is 404."""
    made = new_file(client)
    gone = client.delete(f"/v1/files/{made['id']}")
    assert (gone.status_code, gone.json()) == (200, {"id": made["id"], "object": "file", "deleted": True})
    for path in (made["id"], f"{made['id']}/content", "file-nothing", "%00"):
        answer = client.get(f"/v1/files/{path}")
        assert answer.status_code == 404, path
        assert is_error(answer)
    assert client.delete(f"/v1/files/{made['id']}").status_code == 404
    assert client.get(f"/api/v1/datasets/{made['id']}").status_code == 404


def test_a_file_that_a_run_uses_stays(client, server):
    """400, which the SDKs do not send again; when the run is over it can go."""
    made = new_file(client)
    run_id = start_run(client, "waits", model="small", dataset={"name": made["id"]})
    answer = client.delete(f"/v1/files/{made['id']}")
    assert answer.status_code == 400
    assert run_id in answer.json()["error"]["message"]
    client.post(f"/v1/runs/{run_id}/cancel").raise_for_status()
    wait_for_run(client, run_id)
    client.delete(f"/v1/files/{made['id']}").raise_for_status()


def test_an_upload_of_the_datasets_door_is_a_file(client):
    """Listed, shown and deleted as any other, and its rows are found by its id in either form."""
    dataset = client.post("/api/v1/datasets", json={"name": "of another door"}).raise_for_status().json()["id"]
    rows = new_rows()
    answer = client.put(f"/api/v1/datasets/{dataset}/files", files={"file": ("train.jsonl", rows)})
    upload_id = answer.raise_for_status().json()["upload_id"]
    file_id = upload_id.replace("upl_", "file-")
    shown = client.get(f"/v1/files/{file_id}").raise_for_status().json()
    assert (shown["id"], shown["purpose"], shown["status"]) == (file_id, "user_data", "processed")
    assert client.get(f"/v1/files/{upload_id}").json() == shown
    assert file_id in [one["id"] for one in client.get("/v1/files?purpose=user_data").json()["data"]]
    assert client.get(f"/v1/files/{file_id}/content").content == rows
    paths = set()
    for name in (file_id, upload_id, dataset, "of another door"):
        run_id = start_run(client, "waits", model="small", dataset={"name": name})
        paths.add(client.get(f"/v1/runs/{run_id}").json()["dataset"]["path"])
        client.post(f"/v1/runs/{run_id}/cancel").raise_for_status()
        wait_for_run(client, run_id)
    assert len(paths) == 1
    client.delete(f"/v1/files/{file_id}").raise_for_status()
    assert client.get(f"/api/v1/datasets/{dataset}").json()["files"] == []


def test_a_file_is_a_dataset(client):
    """By its own name, with what it is for; a run finds its rows there."""
    made = new_file(client, name="orders.jsonl")
    dataset = client.get(f"/api/v1/datasets/{made['id']}").raise_for_status().json()
    assert (dataset["type"], dataset["description"]) == ("file", "orders.jsonl")
    assert dataset["metadata"]["purpose"] == "fine-tune"
    (file,) = dataset["files"]
    assert file["name"] == "orders.jsonl"
    run_id = start_run(client, "waits", model="small", dataset={"name": made["id"]})
    assert f"/uploads/{file['upload_id']}/" in client.get(f"/v1/runs/{run_id}").json()["dataset"]["path"]
    client.post(f"/v1/runs/{run_id}/cancel").raise_for_status()
    # A deleted dataset takes its file with it, as everywhere; until the run is over it stays.
    wait_for_run(client, run_id)
    client.delete(f"/api/v1/datasets/{made['id']}").raise_for_status()
    assert client.get(f"/v1/files/{made['id']}").status_code == 404


def test_a_server_killed_between_file_and_dataset_finishes_what_it_began(tmp_path, recipes):
    """The file was on record, so it is there after the restart, with its dataset."""
    fragile = ServerProcess(tmp_path / "state", recipes, {"TUNESMITH_FAILPOINT": "journal.after_fsync"})
    fragile.up()
    with fragile.client() as client, pytest.raises(httpx.HTTPError):
        new_file(client)
    fragile.kill9()
    with ServerProcess.start(tmp_path / "state", recipes) as server, server.client() as client:
        (file,) = client.get("/v1/files").json()["data"]
        assert processed(client, file["id"])["status"] == "processed"
        assert len(client.get(f"/api/v1/datasets/{file['id']}").raise_for_status().json()["files"]) == 1


class Clocked:
    """An application inside this process whose clock stands still until it is told otherwise."""

    def __init__(self, place: Path) -> None:
        self.now = utc_now()
        settings = Settings(state_dir=place / "state", recipes_dir=place / "recipes")
        self.app: App = open_services(settings, clock=self.clock)
        self.http = httpx.AsyncClient(
            transport=httpx.ASGITransport(create_app(self.app)), base_url="http://127.0.0.1", trust_env=False
        )

    def clock(self) -> datetime:
        return self.now

    async def post(self, rows: bytes, key: str = "", **more: str) -> dict:
        answer = await self.http.post(
            "/v1/files",
            files={"file": ("a.jsonl", rows)},
            data={"purpose": "fine-tune", **more},
            headers={"Authorization": f"Bearer {key}"} if key else {},
        )
        return answer.raise_for_status().json()


def test_the_same_file_within_ten_seconds_is_one(tmp_path):
    """A client that did not get its answer sends it again; later, or under another name or purpose, it is one more."""

    async def made() -> None:
        clocked = Clocked(tmp_path)
        rows = new_rows()
        first = await clocked.post(rows)
        clocked.now += timedelta(seconds=10)
        assert await clocked.post(rows) == first
        others = [await clocked.post(new_rows()), await clocked.post(rows, purpose="batch")]
        clocked.now += timedelta(seconds=0.1)
        again = await clocked.post(rows)
        assert len({first["id"], again["id"], *(one["id"] for one in others)}) == 4
        listed = (await clocked.http.get("/v1/files")).json()["data"]
        assert len(listed) == 4

    anyio.run(made)


def test_the_same_file_for_another_time_is_one_more(tmp_path):
    """Whoever wants it to be kept would lose it otherwise."""

    async def made() -> None:
        clocked, rows = Clocked(tmp_path), new_rows()
        times = ({}, {"expires_after[seconds]": "3600"}, {"expires_after[seconds]": "3601"})
        first = [await clocked.post(rows, **time) for time in times]
        clocked.now += timedelta(seconds=5.7)
        assert [await clocked.post(rows, **time) for time in times] == first
        assert len({one["id"] for one in first}) == 3

    anyio.run(made)


def test_the_same_file_of_another_caller_is_one_more(tmp_path):
    """What one of them deletes, the other one still has."""

    async def made() -> None:
        clocked, rows = Clocked(tmp_path), new_rows()
        keys = [(await clocked.app.services.keys.create(name, Scope.ADMIN)).token for name in ("a", "b")]
        first = [await clocked.post(rows, key) for key in keys]
        assert [await clocked.post(rows, key) for key in keys] == first
        assert first[0]["id"] != first[1]["id"]

    anyio.run(made)


def test_two_that_come_at_once_are_one(tmp_path):
    """Both are answered with the same file."""

    async def made() -> None:
        clocked, rows = Clocked(tmp_path), new_rows()
        ids = []

        async def post() -> None:
            ids.append((await clocked.post(rows))["id"])

        async with anyio.create_task_group() as tasks:
            for _ in range(5):
                tasks.start_soon(post)
        assert len(ids) == 5
        assert len(set(ids)) == 1
        assert len(list((tmp_path / "state" / "uploads").iterdir())) == 1

    anyio.run(made)


def test_a_file_is_removed_when_its_time_is_over(tmp_path):
    """With its dataset and its bytes; those without a time, and those whose time is not over, stay."""

    async def made() -> None:
        clocked = Clocked(tmp_path)
        gone = await clocked.post(new_rows(), **{"expires_after[seconds]": "3600"})
        later = await clocked.post(new_rows(), **{"expires_after[seconds]": "3601"})
        for_ever = await clocked.post(new_rows())
        clocked.now += timedelta(seconds=3600)
        async with anyio.create_task_group() as tasks:
            await tasks.start(clocked.app.services.single_files.run)
            await eventually(lambda: gone["id"].replace("file-", "upl_") not in clocked.app.services.uploads)
            tasks.cancel_scope.cancel()
        assert len(list((tmp_path / "state" / "uploads").iterdir())) == 2
        listed = (await clocked.http.get("/v1/files")).json()["data"]
        assert {one["id"] for one in listed} == {for_ever["id"], later["id"]}
        assert len(list((tmp_path / "state" / "uploads").iterdir())) == 2
        assert (await clocked.http.get(f"/api/v1/datasets/{gone['id']}")).status_code == 404

    anyio.run(made)
