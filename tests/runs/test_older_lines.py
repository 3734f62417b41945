"""Lines of runs.jsonl as the version before wrote them are read as what they would be today; see written_before.jsonl."""

from __future__ import annotations

import asyncio
import shutil
import zlib
from pathlib import Path

import msgspec
import pytest

from tunesmith.errors import JournalDamaged
from tunesmith.finetune import OUTPUT_LOG_PATH, OUTPUT_MODEL_PATH, PUBLISH_TO, REQUEST_SHA256, TASK_ID
from tunesmith.journal import Journal, verify
from tunesmith.records import ProcessIdentity, Run, RunState
from tunesmith.runs import RunBook, RunSummary

PLACE = "/srv/finetuned/model/20261120120000_t-1"


@pytest.fixture
def path(tmp_path) -> Path:
    return Path(shutil.copy(Path(__file__).with_name("written_before.jsonl"), tmp_path / "runs.jsonl"))


@pytest.fixture
def book(path):
    journal = Journal.open(path, Run, RunSummary)
    yield RunBook(journal)
    asyncio.run(journal.close())


def test_what_the_finetune_door_promised_is_in_the_labels(book):
    """Of a built-in recipe also the place that gets its model and its log."""
    assert book.get("run_01kbuiltin").labels == {
        TASK_ID: "t-1",
        REQUEST_SHA256: "ab" * 32,
        OUTPUT_MODEL_PATH: f"{PLACE}/model_files",
        OUTPUT_LOG_PATH: f"{PLACE}/finetune.log",
        PUBLISH_TO: PLACE,
    }
    own = book.get("run_01kown").labels
    assert own[TASK_ID] == "t-2"
    assert PUBLISH_TO not in own
    assert book.get("run_01kplain").labels == {}


def test_a_repeat_of_a_task_finds_the_run_that_it_began(book):
    """And tasks come first where downloads are looked for."""
    assert book.of_task("t-1").id == "run_01kbuiltin"
    assert book.of_task("t-2").id == "run_01kown"
    assert book.of_task("t-3") is None
    assert [run.id for run in book.every()] == ["run_01kbuiltin", "run_01kown", "run_01kplain"]


def test_history_is_read_and_goes_on_in_the_lines_of_today(book, path):
    """The lines of before stay as they are."""
    before = path.read_bytes()
    run = book.get("run_01kbuiltin")
    assert run.process == ProcessIdentity(pid=4242, start_ticks=99, boot_id="b")
    asyncio.run(book.move(run.id, RunState.STOPPING))
    assert [then.state for _, then in book.history(run.id)] == ["queued", "starting", "running", "stopping"]
    assert all(then.labels == run.labels for _, then in book.history(run.id))
    assert path.read_bytes().startswith(before)
    assert b"finetuned_place" not in path.read_bytes()[len(before) :]
    assert verify(path).sound


def test_the_task_of_a_run_of_today_is_found_after_a_restart(path):
    """A label is in the summary, too."""

    async def label() -> None:
        journal = Journal.open(path, Run, RunSummary)
        book = RunBook(journal)
        plain = book.get("run_01kplain")
        await book.add(msgspec.structs.replace(plain, id="run_01klabelled", labels={TASK_ID: "t-9"}))
        await journal.close()

    asyncio.run(label())
    journal = Journal.open(path, Run, RunSummary)
    assert RunBook(journal).of_task("t-9").id == "run_01klabelled"
    asyncio.run(journal.close())


class ClusterJob(msgspec.Struct, frozen=True, tag_field="kind", tag="job"):
    """A handle of an executor that is still to come."""

    number: int


def test_a_handle_without_a_kind_is_a_process(book, path):
    """Also once there is more than one kind of executor: then a line has to say which; those of today do."""
    old = msgspec.json.decode(path.read_bytes().splitlines()[2])["data"]
    process = ProcessIdentity(pid=4242, start_ticks=99, boot_id="b")
    with pytest.raises(msgspec.ValidationError, match="kind"):
        msgspec.convert(old["process"], ProcessIdentity | ClusterJob)
    assert msgspec.convert(Run.upgraded(old)["process"], ProcessIdentity | ClusterJob) == process
    asyncio.run(book.move("run_01kbuiltin", RunState.STOPPING))
    new = msgspec.json.decode(path.read_bytes().splitlines()[-1])["data"]
    assert msgspec.convert(new["process"], ProcessIdentity | ClusterJob) == process
    assert Run.upgraded(new) == new


def test_a_field_that_no_version_wrote_is_still_refused(path):
    """Upgrading does not mean guessing."""
    head = b'{"seq":6,"at":"2026-11-20T12:00:00Z","event":"created","id":"run_x","data":{"id":"run_x","kind":"train",'
    head += b'"recipe":"lora","state":"failed","created_at":"2026-11-20T12:00:00Z","finetuned_places":"/srv"}'
    with path.open("ab") as file:
        file.write(head + b',"crc":"%08x"}\n' % zlib.crc32(head))
    journal = Journal.open(path, Run, RunSummary)
    with pytest.raises(JournalDamaged, match="finetuned_places"):
        journal.get("run_x")
    asyncio.run(journal.close())
