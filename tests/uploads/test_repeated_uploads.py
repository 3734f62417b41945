"""An upload that is sent again with its ``Idempotency-Key`` is there once: what it made is told, and its bytes are discarded."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from dataset_parts import (
    LIMIT,
    ROW,
    HalfUpload,
    folders,
    in_flight,
    new_dataset,
    put_file,
    put_keyed,
)
from litestar.testing import AsyncTestClient

from tunesmith.app import open_services
from tunesmith.journal import Journal
from tunesmith.paths import StatePaths
from tunesmith.records import Dataset, Upload, new_id, utc_now
from tunesmith.server.application import create_app
from tunesmith.settings import Settings


@pytest.fixture
def dataset(client: httpx.Client) -> str:
    return new_dataset(client)


def names_in(client: httpx.Client, dataset: str) -> list[str]:
    shown = client.get(f"/api/v1/datasets/{dataset}").json()
    assert shown["upload_progress"]["in_flight"] == []
    return [one["name"] for one in shown["files"]]


def test_a_repeat_is_the_first_upload_and_leaves_nothing(client, server, dataset) -> None:
    """The same answer to the letter, whatever was deleted since; another name or other bytes are refused."""
    old = put_file(client, dataset, "a.jsonl", ROW)["upload_id"]
    first = put_file(client, dataset, "a.jsonl", ROW * 2, key="k")
    assert first["replaces"] == [old]
    newer = put_file(client, dataset, "a.jsonl", ROW * 3)["upload_id"]
    before = folders(server)
    assert put_file(client, dataset, "a.jsonl", ROW * 2, key="k") == first
    for name, content in (("a.jsonl", ROW * 4), ("b.jsonl", ROW * 2)):
        refused = put_keyed(client, dataset, name, content, key="k")
        assert (refused.status_code, refused.json()["where"]) == (409, "Idempotency-Key")
    assert (folders(server), names_in(client, dataset)) == (before, ["a.jsonl"] * 3)
    client.delete(f"/api/v1/uploads/{old}").raise_for_status()
    assert put_file(client, dataset, "a.jsonl", ROW * 2, key="k") == first
    assert put_file(client, dataset, "a.jsonl", ROW)["replaces"] == [first["upload_id"], newer]


def test_a_key_counts_for_one_dataset(client, dataset) -> None:
    """By its id and by its name, which are the same one."""
    other = new_dataset(client, "called so")
    made = [put_file(client, one, "a.jsonl", key="k")["upload_id"] for one in (dataset, other, "called so")]
    assert made[0] != made[1] == made[2]


def test_repeats_that_come_in_at_once_make_one_upload(client, server, dataset) -> None:
    """Whichever is whole first; the others are told of it, or that they are another request."""
    with (
        HalfUpload(server, dataset, key="k").send(ROW) as same,
        HalfUpload(server, dataset, key="k").send(ROW * 2) as other,
    ):
        in_flight(client, dataset)
        first = put_file(client, dataset, "train.jsonl", ROW, key="k")
        assert "200 OK" in same.finish()
        assert "409 Conflict" in other.finish()
    content = ROW * 2000
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: put_file(client, dataset, "b.jsonl", content, key="b"), range(8)))
    assert all(answer == answers[0] for answer in answers)
    assert names_in(client, dataset) == ["train.jsonl", "b.jsonl"]
    shown = client.get(f"/api/v1/datasets/{dataset}").json()["files"]
    assert [one["upload_id"] for one in shown] == [first["upload_id"], answers[0]["upload_id"]]
    assert not [name for name in folders(server) if name.endswith(".part")]


def test_an_upload_that_failed_leaves_no_key(client, server, dataset) -> None:
    """Too large, or stopped on the way: what is sent next with its key is the first."""
    assert put_keyed(client, dataset, "a.jsonl", b"x" * (LIMIT + 1), key="k").status_code == 413
    with HalfUpload(server, dataset, key="k").send(ROW) as upload:
        (shown,) = in_flight(client, dataset)
        client.delete(f"/api/v1/uploads/{shown['upload_id']}").raise_for_status()
        assert "409 Conflict" in upload.answer()
    put_file(client, dataset, "a.jsonl", key="k")
    assert names_in(client, dataset) == ["a.jsonl"]


def test_a_repeat_that_is_stopped_leaves_the_first_upload(client, server, dataset) -> None:
    """It is an upload of its own until it is whole."""
    put_file(client, dataset, "train.jsonl", key="k")
    before = folders(server)
    with HalfUpload(server, dataset, key="k").send(ROW) as upload:
        (shown,) = in_flight(client, dataset)
        client.delete(f"/api/v1/uploads/{shown['upload_id']}").raise_for_status()
        assert "409 Conflict" in upload.answer()
    assert (folders(server), names_in(client, dataset)) == (before, ["train.jsonl"])


def test_an_upload_that_was_deleted_is_not_made_again(client, dataset) -> None:
    """Its record lives on, and so does the key: 404 says so, and how to send the file anew."""
    upload = put_file(client, dataset, "a.jsonl", key="k")["upload_id"]
    client.delete(f"/api/v1/uploads/{upload}").raise_for_status()
    gone = put_keyed(client, dataset, "a.jsonl", key="k")
    assert (gone.status_code, gone.json()["where"]) == (404, "Idempotency-Key")
    assert upload in gone.text
    put_file(client, dataset, "a.jsonl", key="a new one")
    assert names_in(client, dataset) == ["a.jsonl"]


def test_a_full_dataset_still_tells_of_its_last_upload(tmp_path: Path) -> None:
    """A repeat puts nothing more into it."""
    paths, settings = StatePaths(tmp_path / "state"), Settings(state_dir=tmp_path / "state", recipes_dir=tmp_path)
    dataset = Dataset(id=new_id("ds"), name="full", created_at=utc_now())

    async def fill() -> None:
        for journal in open_services(settings).journals:
            await journal.close()
        datasets: Journal[Dataset, dict] = Journal.open(paths.datasets, Dataset, dict)
        uploads: Journal[Upload, dict] = Journal.open(paths.uploads, Upload, dict)
        await datasets.append("created", dataset)
        fields = {"stored_name": "data.jsonl", "bytes": 1, "sha256": "0", "uploaded_at": utc_now()}
        many = [Upload(id=new_id("upl"), dataset_id=dataset.id, name=f"{number}", **fields) for number in range(999)]
        await asyncio.gather(*(uploads.append("uploaded", one) for one in many))
        await datasets.close()
        await uploads.close()

    async def story() -> None:
        await fill()
        app = create_app(open_services(settings))
        async with AsyncTestClient(app, base_url="http://127.0.0.1") as client:

            async def put(key: str) -> httpx.Response:
                files = {"file": ("last.jsonl", ROW)}
                path = f"/api/v1/datasets/{dataset.id}/files"
                return await client.put(path, files=files, headers={"Idempotency-Key": key})

            last, repeat, more = await put("k"), await put("k"), await put("another")
        assert (last.status_code, repeat.json()) == (200, last.json())
        assert (more.status_code, more.json()["where"]) == (409, "dataset_id")

    asyncio.run(story())
