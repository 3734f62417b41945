"""The files that a run wrote: which are listed, as what, in pages, with tags; and their bytes, whole or in part."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith.errors import InvalidInput, NotFound
from tunesmith.journal import Journal
from tunesmith.paths import StatePaths
from tunesmith.records import ArtifactTags
from tunesmith.runs import Artifact, ArtifactBook, ArtifactSummary

RUN = "run_1"
BLANKS = [" ", "\t", "\n", "\u001c", "\u001d", "\u001e", "\u001f", "\u0085", "\u00a0", "\u2028", "\u3000", "\ufeff"]


@pytest.fixture
def paths(tmp_path: Path) -> StatePaths:
    paths = StatePaths(tmp_path / "state")
    paths.create()
    for folder in (paths.run(RUN).output, paths.run(RUN).checkpoints):
        folder.mkdir(parents=True)
    return paths


@pytest.fixture
def folder(paths: StatePaths) -> Path:
    return paths.run(RUN).folder


@pytest.fixture
def book(paths: StatePaths) -> Iterator[ArtifactBook]:
    journal = Journal.open(paths.artifacts, ArtifactTags, ArtifactSummary)
    yield ArtifactBook(journal, paths)
    anyio.run(journal.close)


def kinds(book: ArtifactBook) -> dict[str, str]:
    return {one.path: one.kind for one in book.page(RUN, limit=1000).artifacts}


def write(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")


def tell(folder: Path, **fields) -> None:
    with (folder / "run.log").open("a") as log:
        log.write(json.dumps({"tunesmith": fields.pop("event", "artifact"), **fields}) + "\n")


def test_files_are_named_by_what_they_are(book, folder):
    """By their names, and by being part of a checkpoint."""
    expected = {
        "checkpoints/checkpoint-5/manifest.json": "checkpoint",
        "checkpoints/checkpoint-5/tokenizer.json": "checkpoint",
        "output/adapter_config.json": "adapter",
        "output/adapter_model.safetensors": "adapter",
        "output/config.json": "config",
        "output/eval_metrics.json": "metrics",
        "output/events.log": "log",
        "output/model-00001-of-00002.safetensors": "model",
        "output/predictions.jsonl": "predictions",
        "output/report.html": "report",
        "output/special_tokens_map.json": "tokenizer",
        "output/tokenizer_config.json": "tokenizer",
        "output/whatever": "file",
    }
    write(folder, *expected, "run.log", "config.yaml", "attempts/1/command.json")
    assert kinds(book) == expected


def test_what_is_not_complete_is_not_offered(book, folder):
    """A checkpoint without its manifest, and files under the names of unfinished work."""
    write(
        folder, "checkpoints/checkpoint-1/weights.bin", "output/.report.json.tmp", "output/.cache/x", "output/done.txt"
    )
    assert kinds(book) == {"output/done.txt": "file"}


def test_what_the_run_told_of_is_listed_as_it_said(book, folder, tmp_path):
    """Anywhere in its folder, a file or a folder of files; nothing outside of it, and never the folder itself."""
    write(
        folder, "told/a.bin", "told/sub/tokenizer.json", "curve.svg", "output/x.json", "later/c-1/w.bin", "secret.txt"
    )
    write(tmp_path, "outside.txt")
    tell(folder, path=str(folder / "told"), kind="ensemble")
    tell(folder, path=str(folder / "curve.svg"), kind="picture")
    tell(folder, path=str(folder / "output/x.json"), kind="scores")
    tell(folder, event="checkpoint", path=str(folder / "later/c-1"), step=1)
    for elsewhere in (tmp_path / "outside.txt", folder / "../../outside.txt", folder, "", "a\0b", folder / "gone.txt"):
        tell(folder, path=str(elsewhere), kind="trap")
    tell(folder, path=[1], kind={})
    tell(folder, event="result", model=str(folder))
    assert kinds(book) == {
        "curve.svg": "picture",
        "later/c-1/w.bin": "checkpoint",
        "output/x.json": "scores",
        "told/a.bin": "ensemble",
        "told/sub/tokenizer.json": "ensemble",
    }


def test_no_link_is_followed(book, folder, tmp_path):
    """Not to a file, not to a folder, not on the way to one that the run told of, not even within the run."""
    write(tmp_path, "secret/key.txt")
    write(folder, "output/real.txt")
    (folder / "output/key.txt").symlink_to(tmp_path / "secret/key.txt")
    (folder / "output/secret").symlink_to(tmp_path / "secret")
    (folder / "output/again").symlink_to(folder / "output/real.txt")
    (folder / "checkpoints/checkpoint-1").symlink_to(tmp_path / "secret")
    (folder / "way").symlink_to(tmp_path / "secret")
    os.mkfifo(folder / "output/pipe")
    for told in ("way", "way/key.txt", "output/key.txt"):
        tell(folder, path=str(folder / told), kind="trap")
    assert kinds(book) == {"output/real.txt": "file"}


def test_a_folder_that_is_a_link_or_not_there_holds_nothing(book, folder, tmp_path):
    """A run that put something else in the place of its folders has no artifacts."""
    write(tmp_path, "secret/key.txt")
    (folder / "output").rmdir()
    (folder / "output").symlink_to(tmp_path / "secret")
    assert kinds(book) == {}
    assert book.page("run_unknown", limit=10).artifacts == []


names = st.lists(
    st.lists(st.sampled_from(["a", "b", "a.txt", "B", "é", "a-b", "zz", "\udcff"]), min_size=1, max_size=3), max_size=12
)


@given(names, st.integers(1, 4))
@settings(deadline=None, max_examples=50)
def test_every_file_is_on_exactly_one_page(tmp_path_factory, names, limit):
    """Whatever they are called and however small the pages, in one order, each with an id of its own."""
    paths = StatePaths(tmp_path_factory.mktemp("pages"))
    paths.create()
    output = paths.run(RUN).output
    output.mkdir(parents=True)
    for parts in names:
        place = output.joinpath(*parts)
        if not place.exists() and not any(parent.is_file() for parent in place.parents):
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(b"")
    journal = Journal.open(paths.artifacts, ArtifactTags, ArtifactSummary)
    book = ArtifactBook(journal, paths)
    found: list[Artifact] = []
    cursor = None
    while cursor is not None or not found:
        page = book.page(RUN, limit=limit, cursor=cursor)
        assert len(page.artifacts) <= limit
        found += page.artifacts
        cursor = page.cursor
        if not page.artifacts:
            break
    anyio.run(journal.close)
    there = [path for path in output.rglob("*") if path.is_file()]
    shown = sorted(str(path.relative_to(output.parent)).encode(errors="replace").decode() for path in there)
    assert sorted(one.path for one in found) == shown
    assert len({one.artifact_id for one in found}) == len(there)


@pytest.mark.parametrize("cursor", ["!", "a", "____", "2e2e2f2e2e2f", "ff" * 5000])
def test_a_made_up_cursor_is_refused_or_leads_nowhere_else(book, folder, cursor):
    """It is compared with places, and never opened."""
    write(folder, "output/a.txt")
    found = {"output/a.txt"}
    with contextlib.suppress(InvalidInput):
        found = {one.path for one in book.page(RUN, limit=10, cursor=cursor).artifacts}
    assert found <= {"output/a.txt"}


def test_tags_add_up_and_survive(book, folder, paths):
    """Each once, in order; taken away one by one; read again from disk by the next server; also when told at once."""
    write(folder, "output/a.txt")
    artifact_id = book.page(RUN, limit=1).artifacts[0].artifact_id

    async def tag() -> None:
        async with anyio.create_task_group() as tasks:
            for number in range(20):
                tasks.start_soon(book.tag, RUN, artifact_id, (f"t{number}", "both"))
        for number in range(1, 20):
            await book.untag(RUN, artifact_id, f"t{number}")
        await book.untag(RUN, artifact_id, "never had")
        for wrong in ((" ",), ("x" * 300,), tuple(map(str, range(200)))):
            with pytest.raises(InvalidInput):
                await book.tag(RUN, artifact_id, wrong)
        with pytest.raises(NotFound):
            await book.tag("run_2", artifact_id, ("a",))
        with pytest.raises(NotFound):
            await book.tag(RUN, "art_unknown", ("a",))

    anyio.run(tag)
    assert set(book.page(RUN, limit=1).artifacts[0].tags) == {"t0", "both"}
    journal = Journal.open(paths.artifacts, ArtifactTags, ArtifactSummary)
    assert set(ArtifactBook(journal, paths).page(RUN, limit=1).artifacts[0].tags) == {"t0", "both"}
    anyio.run(journal.close)


def test_the_files_of_a_run_are_listed_at_every_door(client, done):
    """The same list natively, at the project and at its alias, in pages; only complete checkpoints."""
    native = client.get(f"/v1/runs/{done['id']}/artifacts").json()
    assert native["cursor"] is None
    assert {one["path"]: one["kind"] for one in native["artifacts"]} == {
        "checkpoints/checkpoint-2/manifest.json": "checkpoint",
        "checkpoints/checkpoint-2/weights.bin": "checkpoint",
        "output/adapter_model.safetensors": "adapter",
        "output/report.json": "report",
        "output/tokenizer.json": "tokenizer",
        "told/curve.svg": "picture",
    }
    for base in (f"/api/projects/{done['project_id']}", "/projects/orders"):
        assert client.get(f"{base}/runs/{done['id']}/artifacts").json() == native
    paged, cursor = [], ""
    while cursor is not None:
        query = {"limit": 4, **({"cursor": cursor} if cursor else {})}
        page = client.get(f"/v1/runs/{done['id']}/artifacts", params=query).json()
        paged += page["artifacts"]
        cursor = page["cursor"]
    assert paged == native["artifacts"]


@pytest.mark.parametrize(
    ("asked", "status", "content"),
    [
        (None, 200, b"0123456789"),
        ("bytes=2-4", 206, b"234"),
        ("bytes=7-", 206, b"789"),
        ("bytes=-2", 206, b"89"),
        ("bytes=0-99", 206, b"0123456789"),
        ("bytes=10-", 416, None),
        ("bites=1-2", 200, b"0123456789"),
    ],
)
def test_a_file_is_downloaded_whole_or_in_part(client, done, asked, status, content):
    """At every door, with a name and a tag of its version; what is beyond the end is 416."""
    weights = next(one for one in done["artifacts"] if one["path"].endswith("adapter_model.safetensors"))
    for base in ("/v1/runs", "/api/projects/orders/runs", "/projects/orders/runs"):
        address = f"{base}/{done['id']}/artifacts/{weights['artifact_id']}/content"
        answer = client.get(address, headers={"Range": asked} if asked else {})
        assert answer.status_code == status
        if content is not None:
            assert answer.content == content
            assert "adapter_model.safetensors" in answer.headers["content-disposition"]
            again = client.get(address, headers={"If-None-Match": answer.headers["etag"]})
            assert (again.status_code, again.content) == (304, b"")
    assert weights["bytes"] == 10


@pytest.mark.parametrize("artifact_id", ["art_0", "..", "%2e%2e%2f%2e%2e%2fkeys.jsonl", "..%2frun.log", "a%00b"])
def test_only_listed_files_are_given_out(client, done, artifact_id):
    """An id is looked up, never taken for a path."""
    for base in ("/v1/runs", "/api/projects/orders/runs"):
        assert client.get(f"{base}/{done['id']}/artifacts/{artifact_id}/content").status_code == 404
    assert client.get("/v1/runs/run_0/artifacts").status_code == 404
    assert client.get(f"/v1/runs/run_0/artifacts/{artifact_id}/content").status_code == 404


def test_tags_over_http(client, done):
    """Added and taken away at either door, seen at both; wrong ones are refused."""
    report = next(one for one in done["artifacts"] if one["kind"] == "report")
    native = f"/v1/runs/{done['id']}/artifacts/{report['artifact_id']}/tags"
    project = f"/projects/orders/runs/{done['id']}/artifacts/{report['artifact_id']}/tags"
    assert client.post(native, json={"tags": ["seen"]}).json()["tags"] == ["seen"]
    assert client.post(project, json={"tags": ["好", "seen"]}).json() == {**report, "tags": ["seen", "好"]}
    assert client.delete(project, params={"tag": "seen"}).json()["tags"] == ["好"]
    assert client.delete(native, params={"tag": "好"}).json()["tags"] == []
    for wrong in ({"tags": [""]}, {"tags": "a"}, {"tag": ["a"]}, {"tags": [1]}, {}):
        assert client.post(project, json=wrong).status_code == 422
    assert client.delete(project).status_code == 422


@pytest.mark.parametrize("blank", BLANKS, ids=ascii)
def test_a_tag_of_blanks_is_refused(client, done, blank):
    """Whatever is a blank for us, or for those who read the document: ECMA's patterns know other ones."""
    address = f"/v1/runs/{done['id']}/artifacts/{done['artifacts'][0]['artifact_id']}/tags"
    for tag in (blank, blank * 3):
        refused = client.post(address, json={"tags": [tag]})
        assert refused.status_code == 422
        assert refused.json()["errors"][0]["where"] == "tags[0]"
        assert refused.json()["errors"][0]["message"].startswith("must not be empty")
