"""The journal as services use it: append, read back, listen, close."""

from __future__ import annotations

import asyncio
import gc
import os
import shutil
import subprocess
import threading
from typing import ClassVar

import pytest
from journal_parts import NOON, CountingDisk, Note, NoteSummary, line, opened, with_journal, write_notes

from tunesmith.errors import InvalidInput, JournalDamaged, StateFolderUnusable, TooLarge, Unavailable
from tunesmith.journal import Journal


def test_an_appended_record_is_found_by_the_next_process(tmp_path):
    """What append returned for is there after reopening: record, summary, history and order."""
    path = tmp_path / "notes.jsonl"
    write_notes(path, Note(id="b", count=1), Note(id="a", count=2), Note(id="b", count=3, text="last"))

    async def look(journal: Journal[Note, NoteSummary]) -> None:
        assert journal.get("b") == Note(id="b", count=3, text="last")
        assert journal.summary("b") == NoteSummary("b", 3)
        assert list(journal.summaries) == ["b", "a"]
        assert [entry.seq for entry in journal.history("b")] == [1, 3]
        assert "a" in journal
        assert "c" not in journal
        assert len(journal) == 2
        assert journal.get("c") is None
        assert journal.summary("c") is None
        assert journal.history("c") == []
        assert journal.torn is None
        assert (await journal.append("written", Note(id="a"))).seq == 4

    with_journal(path, look)


def test_a_line_has_the_agreed_shape(tmp_path):
    """Keys in order, the checksum last, UTF-8: as a program that knows only the description would write it."""
    path = tmp_path / "notes.jsonl"

    async def write(journal: Journal[Note, NoteSummary]) -> None:
        await journal.append("written", Note(id="n", text='中文 \u2028 "quoted"\n', count=1))

    with_journal(path, write)
    data = '{"id":"n","text":"中文 \u2028 \\"quoted\\"\\n","count":1}'
    assert path.read_bytes() == line(1, data=data, at="2026-11-20T12:00:00.123456Z")


def test_lines_written_by_another_program_are_read(tmp_path):
    """The format is the contract, not this encoder."""
    path = tmp_path / "notes.jsonl"
    path.write_bytes(line(1) + line(2, "m") + line(3))
    journal = opened(path)
    assert journal.get("n") == Note(id="n", count=3)
    assert [entry.event for entry in journal.history("m")] == ["written"]
    asyncio.run(journal.close())


@pytest.mark.skipif(shutil.which("jq") is None, reason="jq is not installed")
def test_grep_tail_and_jq_show_the_latest_record(tmp_path):
    """A person needs no program of ours to look."""
    path = tmp_path / "notes.jsonl"
    write_notes(path, Note(id="note_1", count=1), Note(id="note_2"), Note(id="note_1", count=2))
    shown = subprocess.run(
        ["bash", "-c", f"grep note_1 {path} | tail -1 | jq .data.count"], check=True, capture_output=True, text=True
    )
    assert shown.stdout == "2\n"


def test_concurrent_appends_share_writes_and_fsyncs(tmp_path):
    """While one fsync runs, whatever arrives waits for the next one, together."""
    disk = CountingDisk()

    async def crowd(journal: Journal[Note, NoteSummary]) -> None:
        before = disk.syncs
        disk.hold()
        first = asyncio.ensure_future(journal.append("written", Note(id="first")))
        await disk.sync_waits()
        others = [asyncio.ensure_future(journal.append("written", Note(id=f"n{n}"))) for n in range(200)]
        await asyncio.sleep(0)
        disk.let_go()
        entries = await asyncio.gather(first, *others)
        assert [entry.seq for entry in entries] == list(range(1, 202))
        assert disk.syncs - before == 2
        assert disk.writes == 2

    with_journal(tmp_path / "notes.jsonl", crowd, disk=disk)


class SlowToRead(Note, kw_only=True):
    """A record that a thread called reader takes its time to read, until it is told to go on."""

    reading: ClassVar[threading.Event]
    go_on: ClassVar[threading.Event]

    def __post_init__(self) -> None:
        if threading.current_thread().name == "reader":
            self.reading.set()
            assert self.go_on.wait(60)


def test_who_reads_in_a_thread_brings_no_older_record_back(tmp_path):
    """While it is read from the file a later one is committed: that is the latest, now and for the next who asks."""
    SlowToRead.reading, SlowToRead.go_on = threading.Event(), threading.Event()

    async def race() -> None:
        journal = Journal.open(tmp_path / "notes.jsonl", SlowToRead, NoteSummary, cached=1)
        for note in (SlowToRead(id="n", count=1), SlowToRead(id="other")):  # which takes the place of the first
            await journal.append("written", note)
        reader = threading.Thread(target=journal.get, args=("n",), name="reader")
        reader.start()
        assert await asyncio.to_thread(SlowToRead.reading.wait, 60)
        await journal.append("written", SlowToRead(id="n", count=2))
        SlowToRead.go_on.set()
        await asyncio.to_thread(reader.join)
        assert journal.get("n").count == 2
        await journal.close()

    asyncio.run(race())


def test_nothing_is_visible_before_the_fsync(tmp_path):
    """A record that is not on disk cannot be seen by anybody."""
    disk = CountingDisk()

    async def peek(journal: Journal[Note, NoteSummary]) -> None:
        await journal.append("written", Note(id="n", count=1))
        heard = []
        journal.on_commit(lambda entry, record, previous: heard.append(record.count))
        disk.hold()
        pending = asyncio.ensure_future(journal.append("written", Note(id="n", count=2)))
        new = asyncio.ensure_future(journal.append("written", Note(id="new")))
        await disk.sync_waits()
        assert journal.get("n") == Note(id="n", count=1)
        assert journal.summary("n") == NoteSummary("n", 1)
        assert len(journal.history("n")) == 1
        assert "new" not in journal
        assert not pending.done()
        assert heard == []
        disk.let_go()
        await asyncio.gather(pending, new)
        assert journal.get("n") == Note(id="n", count=2)
        assert heard == [2, 0]

    with_journal(tmp_path / "notes.jsonl", peek, disk=disk)


def test_listeners_hear_every_commit_in_order(tmp_path):
    """With the entry, the record and the summary before; and before the caller goes on."""

    async def listen(journal: Journal[Note, NoteSummary]) -> None:
        heard = []
        journal.on_commit(
            lambda entry, record, previous: heard.append((entry.seq, entry.event, record.count, previous))
        )
        entry = await journal.append("created", Note(id="n", count=1))
        assert heard == [(1, "created", 1, None)]
        assert entry.at == NOON
        await asyncio.gather(*(journal.append("changed", Note(id="n", count=count)) for count in (2, 3)))
        assert heard[1:] == [(2, "changed", 2, NoteSummary("n", 1)), (3, "changed", 3, NoteSummary("n", 2))]

    with_journal(tmp_path / "notes.jsonl", listen)


def test_a_listener_that_raises_hurts_nobody(tmp_path):
    """The append succeeds, and the other listeners hear of it."""

    async def listen(journal: Journal[Note, NoteSummary]) -> None:
        heard = []

        def broken(*_: object) -> None:
            raise ZeroDivisionError

        journal.on_commit(broken)
        journal.on_commit(lambda entry, record, previous: heard.append(entry.seq))
        await journal.append("written", Note(id="n"))
        assert heard == [1]

    with_journal(tmp_path / "notes.jsonl", listen)


def test_a_cancelled_caller_does_not_take_the_others_along(tmp_path):
    """Its record is written all the same, whether its batch was under way or still waited."""
    disk = CountingDisk()

    async def cancel(journal: Journal[Note, NoteSummary]) -> None:
        disk.hold()
        under_way = [asyncio.ensure_future(journal.append("written", Note(id=f"a{n}"))) for n in range(2)]
        await disk.sync_waits()
        waiting = [asyncio.ensure_future(journal.append("written", Note(id=f"b{n}"))) for n in range(2)]
        await asyncio.sleep(0)
        under_way[0].cancel()
        waiting[0].cancel()
        await asyncio.sleep(0)
        disk.let_go()
        assert [(await under_way[1]).seq, (await waiting[1]).seq] == [2, 4]
        assert under_way[0].cancelled()
        assert waiting[0].cancelled()
        assert list(journal.summaries) == ["a0", "a1", "b0", "b1"]

    with_journal(tmp_path / "notes.jsonl", cancel, disk=disk)


def test_closing_waits_for_appends_and_refuses_later_ones(tmp_path):
    """An append that was accepted is on disk before close returns."""
    disk = CountingDisk()
    path = tmp_path / "notes.jsonl"

    async def run() -> None:
        journal = opened(path, disk)
        disk.hold()
        pending = asyncio.ensure_future(journal.append("written", Note(id="n")))
        await disk.sync_waits()
        closing = asyncio.ensure_future(journal.close())
        await asyncio.sleep(0)
        assert not closing.done()
        with pytest.raises(Unavailable):
            await journal.append("written", Note(id="late"))
        disk.let_go()
        await closing
        assert pending.done()
        await journal.close()

    asyncio.run(run())
    assert list(opened(path).summaries) == ["n"]


DEEP: list = []
for _ in range(5000):
    DEEP = [DEEP]


@pytest.mark.parametrize(
    "more", [{"text": "\ud800"}, {"more": {"deep": "\udfff"}}, {"more": {"deep": DEEP}}], ids=["text", "key", "deep"]
)
def test_a_record_that_would_not_read_back_is_refused(tmp_path, more):
    """It is the caller's fault, and neither the journal nor its neighbours in the batch suffer."""

    async def offer(journal: Journal[Note, NoteSummary]) -> None:
        good, bad = await asyncio.gather(
            journal.append("written", Note(id="good")),
            journal.append("written", Note(id="bad", **more)),
            return_exceptions=True,
        )
        assert good.seq == 1
        assert isinstance(bad, InvalidInput)
        assert list(journal.summaries) == ["good"]

    with_journal(tmp_path / "notes.jsonl", offer)


def test_a_number_that_json_cannot_hold_is_refused_where_a_number_is_needed(tmp_path):
    """NaN would be written as null, and the next start could not read the record."""

    class Measured(Note):
        loss: float = 0.0

    async def run() -> None:
        journal = Journal.open(tmp_path / "measured.jsonl", Measured, NoteSummary)
        with pytest.raises(InvalidInput, match="finite"):
            await journal.append("written", Measured(id="n", loss=float("nan")))
        await journal.close()

    asyncio.run(run())


def test_a_record_beyond_the_longest_line_is_refused(tmp_path):
    """Reading back must never need more memory than one line may have."""

    async def offer(journal: Journal[Note, NoteSummary]) -> None:
        with pytest.raises(TooLarge, match="16777216"):
            await journal.append("written", Note(id="n", text="x" * 16 * 1024 * 1024))
        await journal.append("written", Note(id="n", text="x" * 15 * 1024 * 1024))

    with_journal(tmp_path / "notes.jsonl", offer)
    assert len(opened(tmp_path / "notes.jsonl")) == 1


def test_a_record_without_an_id_is_refused(tmp_path):
    """An empty id is what marks repaired places."""

    async def offer(journal: Journal[Note, NoteSummary]) -> None:
        with pytest.raises(InvalidInput, match="id"):
            await journal.append("repaired", Note(id=""))

    with_journal(tmp_path / "notes.jsonl", offer)


def test_what_the_caller_changes_afterwards_is_not_what_was_committed(tmp_path):
    """The committed record is the one on disk, not the caller's object."""

    async def meddle(journal: Journal[Note, NoteSummary]) -> None:
        mine = {"k": 1}
        await journal.append("written", Note(id="n", more=mine))
        mine["k"] = 2
        assert journal.get("n") == Note(id="n", more={"k": 1})

    with_journal(tmp_path / "notes.jsonl", meddle)


def test_only_wanted_records_stay_decoded(tmp_path):
    """Kept ones and the recently used ones; the others are read from the file, and are the same."""
    path = tmp_path / "notes.jsonl"
    write_notes(path, *(Note(id=f"n{n}", count=n, open=n == 0) for n in range(6)))

    async def look(journal: Journal[Note, NoteSummary]) -> None:
        kept, first = journal.get("n0"), journal.get("n1")
        assert journal.get("n1") is first
        for n in range(2, 6):
            assert journal.get(f"n{n}") == Note(id=f"n{n}", count=n)
        assert journal.get("n1") is not first
        assert journal.get("n1") == first
        assert journal.get("n0") is kept
        await journal.append("closed", Note(id="n0", count=9))
        assert journal.get("n0") == Note(id="n0", count=9)

    with_journal(path, look, keep=lambda summary: summary.open, cached=2)


def test_a_new_journal_is_an_empty_file_that_children_do_not_inherit(tmp_path):
    """Created at once, and closed on exec."""
    path = tmp_path / "notes.jsonl"
    journal = opened(path)
    assert path.read_bytes() == b""
    assert path.name in _open_files(os.getpid())
    child = subprocess.Popen(["sleep", "60"], close_fds=False)
    assert path.name not in _open_files(child.pid)
    child.kill()
    child.wait()
    asyncio.run(journal.close())


def _open_files(pid: int) -> str:
    return subprocess.run(["ls", "-l", f"/proc/{pid}/fd"], check=False, capture_output=True, text=True).stdout


def test_a_journal_that_cannot_be_opened_says_where_and_how_to_mend_it(tmp_path):
    """Not a traceback about a file descriptor."""
    with pytest.raises(StateFolderUnusable, match=r"notes\.jsonl.*state folder"):
        opened(tmp_path / "missing" / "notes.jsonl")


def test_a_record_of_another_version_is_not_dropped(tmp_path):
    """A line that is intact but unknown names the place, and does not advise a repair that would keep it anyway."""
    path = tmp_path / "notes.jsonl"
    path.write_bytes(line(1) + line(2, data='{"id":"n","count":"many"}'))
    with pytest.raises(JournalDamaged, match=r"notes\.jsonl:2.*version of Tunesmith that wrote it"):
        opened(path)
    path.write_bytes(line(1) + line(2, data='{"id":"n","colour":"red"}'))
    journal = opened(path)
    with pytest.raises(JournalDamaged, match=r"notes\.jsonl:2.*version of Tunesmith that wrote it"):
        journal.get("n")
    asyncio.run(journal.close())


def test_a_line_that_changed_under_the_server_is_not_served(tmp_path):
    """The checksum is checked on every read, not only at the start."""
    path = tmp_path / "notes.jsonl"
    write_notes(path, Note(id="n", text="right"))
    journal = opened(path)
    path.write_bytes(path.read_bytes().replace(b"right", b"wrong"))
    with pytest.raises(JournalDamaged, match=r"notes\.jsonl:1"):
        journal.get("n")
    asyncio.run(journal.close())


def test_replaying_leaves_the_collector_as_it_was(tmp_path):
    """It is switched off for the replay only, also when the replay fails."""
    (tmp_path / "bad.jsonl").write_bytes(b"{}\n")
    with pytest.raises(JournalDamaged):
        opened(tmp_path / "bad.jsonl")
    assert gc.isenabled()
