"""Torn tails are set aside; every other damage is refused by file and line, and repair makes it open again."""

from __future__ import annotations

import asyncio
import os
import random
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from journal_parts import Note, NoteSummary, line, opened, with_journal, write_notes

from tunesmith.errors import JournalDamaged
from tunesmith.journal import Journal, repair, verify

THREE = line(1) + line(2, "m") + line(3)


def test_a_journal_cut_at_any_byte_of_its_last_line_starts(tmp_path):
    """The tail is kept aside and cut, everything before it is there, and the next append is clean."""
    whole_lines = len(line(1) + line(2, "m"))
    for cut in range(whole_lines, len(THREE)):
        folder = tmp_path / str(cut)
        folder.mkdir()
        path = folder / "notes.jsonl"
        path.write_bytes(THREE[:cut])
        _expect_tail(path, THREE[whole_lines:cut])


@pytest.mark.parametrize(
    "tail", [b"\0" * 5000, b"\xff", line(3)[:-1], b"x" * 200_000], ids=["nul", "byte", "whole", "long"]
)
def test_any_tail_without_its_newline_is_set_aside(tmp_path, tail):
    """Also zeros from a power cut, and a line that lacks nothing but its newline: nobody was told of it."""
    path = tmp_path / "notes.jsonl"
    path.write_bytes(line(1) + line(2, "m") + tail)
    assert verify(path).torn_bytes == len(tail)
    assert verify(path).sound
    _expect_tail(path, tail)


def test_a_journal_that_is_nothing_but_a_tail_starts_empty(tmp_path):
    """The first line ever was torn."""
    path = tmp_path / "notes.jsonl"
    path.write_bytes(line(1)[:30])
    journal = opened(path)
    assert len(journal) == 0
    assert journal.torn is not None
    assert journal.torn.read_bytes() == line(1)[:30]
    asyncio.run(journal.close())


def _expect_tail(path: Path, tail: bytes) -> None:
    asyncio.run(opened(path).close())
    assert path.read_bytes() == line(1) + line(2, "m")
    kept = [file.read_bytes() for file in path.parent.glob("*.torn-20261120T120000Z")]
    assert kept == ([tail] if tail else [])

    async def check(journal: Journal[Note, NoteSummary]) -> None:
        assert journal.torn is None
        assert journal.get("n") == Note(id="n", count=1)
        assert (await journal.append("written", Note(id="n", count=9))).seq == 3

    with_journal(path, check)
    assert [entry.seq for entry in opened(path).history("n")] == [1, 3]


def test_two_torn_tails_of_one_second_are_both_kept(tmp_path):
    """A name in use is never written over."""
    path = tmp_path / "notes.jsonl"
    for tail in (b"one", b"two"):
        path.write_bytes(line(1) + tail)
        asyncio.run(opened(path).close())
    assert {kept.read_bytes() for kept in tmp_path.glob("*.torn-*")} == {b"one", b"two"}


def test_a_tail_stays_where_it_is_while_another_line_is_damaged(tmp_path):
    """A start that is refused changes nothing."""
    path = tmp_path / "notes.jsonl"
    content = line(1) + b"oops\n" + line(3)[:-5]
    path.write_bytes(content)
    with pytest.raises(JournalDamaged):
        opened(path)
    assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]


def test_a_flipped_bit_in_any_line_is_refused_and_repair_mends_it(tmp_path):
    """Every bit of a middle line, and a sample of the bits of the others."""
    first, second = len(line(1)), len(line(1) + line(2, "m"))
    bits = [(byte, bit) for byte in range(first, second) for bit in range(8)]
    bits += random.Random(7).sample([(byte, bit) for byte in range(first) for bit in range(8)], 100)
    for number, (byte, bit) in enumerate(bits):
        damaged = bytearray(THREE)
        damaged[byte] ^= 1 << bit
        folder = tmp_path / str(number)
        folder.mkdir()
        path = folder / "notes.jsonl"
        path.write_bytes(damaged)
        at = THREE[:byte].count(b"\n") + 1
        with pytest.raises(JournalDamaged) as refusal:
            opened(path)
        assert refusal.value.where == f"{path}:{at}"
        assert "tunesmith state repair" in str(refusal.value)
        assert verify(path).faults[0].where == refusal.value.where
        _expect_repaired(path, bytes(damaged))


def _expect_repaired(path: Path, damaged: bytes) -> Journal[Note, NoteSummary]:
    kept = repair(path)
    assert kept.name.startswith("notes.jsonl.damaged-")
    assert kept.read_bytes() == damaged
    assert not list(path.parent.glob(".*"))
    verdict = verify(path)
    assert verdict.sound, verdict.faults
    assert not verdict.torn_bytes
    assert repair(path) == path
    good = [text for text in damaged.split(b"\n") if text in THREE.split(b"\n")]
    assert [text for text in path.read_bytes().split(b"\n") if b"repaired" not in text] == good
    journal = opened(path)
    asyncio.run(journal.close())
    return journal


@pytest.mark.parametrize(
    ("content", "at", "reason"),
    [
        (line(1) + line(3), 2, "seq is 3 where 2 must follow"),
        (line(2), 1, "seq is 2 where 1 must follow"),
        (line(1) + line(1), 2, "seq is 1"),
        (line(1) + line(2) + line(1), 3, "seq is 1"),
        (line(1) + b"\n" + line(2), 2, "empty"),
        (b"\n", 1, "empty"),
        (line(1) + b"hello\n", 2, "checksum"),
        (line(1) + line(2).replace(b"\n", b"\r\n"), 2, "checksum"),
        (line(1) + line(2).replace(b'"event"', b'"evnet"'), 2, "checksum"),
        (line(1).replace(b"\n", b"") + line(2), 1, "checksum"),
        (line(1, event="repaired", record_id=""), 1, "lost"),
        (line(1, event="repaired", record_id="", data='{"lost_from":3,"lost_through":4}'), 1, "contradict"),
        (line(1, data="[1"), 1, "no journal line"),
    ],
)
def test_each_kind_of_damage_is_named(tmp_path, content, at, reason):
    """File, line, what is wrong, and the command that mends it; verify says the same."""
    path = tmp_path / "notes.jsonl"
    path.write_bytes(content)
    with pytest.raises(JournalDamaged, match=reason) as refusal:
        opened(path)
    assert refusal.value.where == f"{path}:{at}"
    verdict = verify(path)
    assert not verdict.sound
    assert verdict.faults[0].where == f"{path}:{at}"
    assert reason in verdict.faults[0].message
    repair(path)
    asyncio.run(opened(path).close())


def test_a_repaired_journal_says_what_was_lost_and_counts_on(tmp_path):
    """The sound lines are the same bytes; one line stands for those that are gone; the next seq is the right one."""
    path = tmp_path / "notes.jsonl"
    path.write_bytes(line(1) + b"bad\n" + b"worse\n" + line(4, "m"))
    repair(path)
    lines = path.read_bytes().splitlines(keepends=True)
    assert [lines[0], lines[2]] == [line(1), line(4, "m")]
    place = msgspec.json.decode(lines[1])
    assert (place["seq"], place["event"], place["id"], place["data"]) == (
        2,
        "repaired",
        "",
        {"lost_from": 2, "lost_through": 3},
    )

    async def check(journal: Journal[Note, NoteSummary]) -> None:
        assert list(journal.summaries) == ["n", "m"]
        assert [entry.seq for entry in journal.history("m")] == [4]
        assert (await journal.append("written", Note(id="m", count=5))).seq == 5
        assert [entry.seq for entry in journal.history("m")] == [4, 5]

    with_journal(path, check)
    with_journal(path, _nothing)
    assert (verify(path).lines, verify(path).records) == (4, 3)


async def _nothing(_: Journal[Note, NoteSummary]) -> None:
    """Opening and closing is the check."""


def test_repair_keeps_owner_and_mode(tmp_path):
    """The service must be able to write what an administrator mended."""
    path = tmp_path / "notes.jsonl"
    path.write_bytes(line(2))
    path.chmod(0o640)
    if os.geteuid() == 0:
        os.chown(path, 4711, 4712)
    before = path.stat()
    repair(path)
    after = path.stat()
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)
    assert after.st_ino != before.st_ino


def test_verify_names_faults_without_end_but_keeps_only_some(tmp_path):
    """A file that is no journal at all must not fill the memory with faults."""
    path = tmp_path / "notes.jsonl"
    path.write_bytes(b"junk\n" * 5000)
    verdict = verify(path)
    assert (verdict.lines, verdict.records, verdict.damaged, len(verdict.faults)) == (5000, 0, 5000, 1000)


def test_verify_takes_a_line_without_end_in_pieces(tmp_path):
    """A line longer than any journal line is one fault, and the lines behind it are looked at."""
    path = tmp_path / "notes.jsonl"
    path.write_bytes(line(1) + b"x" * (40 * 1024 * 1024) + b"\n" + line(3))
    verdict = verify(path)
    assert (verdict.lines, verdict.records, verdict.damaged) == (3, 2, 1)
    assert "longer than" in verdict.faults[0].message
    with pytest.raises(JournalDamaged, match=r"notes\.jsonl:2"):
        opened(path)
    repair(path)
    assert [entry.seq for entry in opened(path).history("n")] == [1, 3]


@given(data=st.data())
@settings(deadline=None, max_examples=150)
def test_any_damage_is_refused_or_harmless_and_always_mended(tmp_path_factory, data):
    """Bytes overwritten, inserted, removed or lines shuffled: a start refuses or shows only lines that were written,
    and after a repair it starts with every line that is still sound and in order.
    """
    path = tmp_path_factory.mktemp("damage") / "notes.jsonl"
    write_notes(path, *(Note(id=f"n{n % 3}", count=n) for n in range(6)))
    original = path.read_bytes()
    written = set(original.splitlines())
    content = bytearray(original)
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(content)))
        end = data.draw(st.integers(start, min(len(content), start + 300)))
        content[start:end] = data.draw(st.one_of(st.binary(max_size=20), st.just(original[start // 2 : end])))
    path.write_bytes(content)
    try:
        asyncio.run(opened(path).close())
    except JournalDamaged:
        assert path.read_bytes() == bytes(content)
        assert not verify(path).sound
    repair(path)
    asyncio.run(opened(path).close())
    assert {text for text in path.read_bytes().splitlines() if b'"repaired"' not in text} <= written
