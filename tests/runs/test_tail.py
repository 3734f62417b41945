"""Reading a log while it is written: exactly its lines, whatever it holds, in bounded memory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from support.server import clean_environment
from tunesmith.runner import LONGEST_LINE, Line, LogReader

# Short pieces, and repeated ones that make lines longer than the longest.
pieces = st.binary(max_size=40) | st.builds(
    lambda unit, times: unit * times, st.sampled_from([b"x", b"\0", b"\xff", "é".encode(), "😀".encode(), b"\r", b"ab\n"]),
    st.integers(1, 70_000),
)  # fmt: skip
contents = st.lists(pieces, max_size=6).map(b"".join)


def read_all(reader: LogReader, *, at_end: bool) -> list[Line]:
    lines: list[Line] = []
    while found := reader.read(at_end=at_end):
        lines += found
    return lines


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("log") / "run.log"


@given(contents, st.lists(st.integers(1, 100_000), max_size=8))
@example(b"x" * LONGEST_LINE + b"\n", [])
@example(b"x" * (LONGEST_LINE + 1) + b"\n", [LONGEST_LINE])
@example("é".encode() * LONGEST_LINE, [1])
@example(b"\x80" * (LONGEST_LINE * 2), [])
@settings(deadline=None)
def test_any_bytes_in_any_chunks_give_the_same_lines(log, content, cuts):
    """Read while it grows or all at once: the same lines, without gap or overlap, none longer than allowed."""
    log.write_bytes(content)
    at_once = read_all(LogReader(log), at_end=True)

    log.write_bytes(b"")
    reader, growing, position = LogReader(log), [], 0
    with log.open("ab") as file:
        for cut in [*cuts, len(content)]:
            file.write(content[position : position + cut])
            file.flush()
            position += cut
            growing += read_all(reader, at_end=False)
    growing += read_all(reader, at_end=True)

    assert growing == at_once
    assert [line.start for line in at_once] == [0, *(line.end for line in at_once)][: len(at_once)]
    assert b"".join(content[line.start : line.end] for line in at_once) == content
    assert b"".join(line.content + b"\n" * line.whole for line in at_once) == content
    assert all(len(line.content) <= LONGEST_LINE for line in at_once)
    assert all(b"\n" not in line.content for line in at_once)


@given(st.text(st.sampled_from("aé€😀"), min_size=1, max_size=40))
@settings(deadline=None, max_examples=25)
def test_long_lines_are_not_cut_inside_a_character(log, unit):
    """Where a long line is cut, every piece of valid UTF-8 stays valid."""
    text = unit * (3 * LONGEST_LINE // len(unit.encode()) + 1)
    log.write_text(text, encoding="utf-8")
    lines = read_all(LogReader(log), at_end=True)
    assert len(lines) >= 3
    assert "".join(line.content.decode() for line in lines) == text


def test_an_unfinished_line_waits_for_its_rest(log):
    """A character or line that is only half written is not shown as garbage."""
    log.write_bytes(b"gr" + "ü".encode()[:1])
    reader = LogReader(log)
    assert reader.read() == []
    with log.open("ab") as file:
        file.write("ü".encode()[1:] + b"n\nnext")
    assert [line.text for line in reader.read()] == ["grün"]
    assert [line.text for line in reader.read(at_end=True)] == ["next"]
    assert reader.read(at_end=True) == []


def test_windows_line_ends_do_not_show(log):
    """A carriage return before the newline is no part of the text; one inside is."""
    log.write_bytes(b"one\r\ntwo\r\n10%\r20%\r\n")
    assert [line.text for line in LogReader(log).read()] == ["one", "two", "10%\r20%"]


def test_binary_shows_as_replacement_characters(log):
    """What is no text is shown as such, and the lines around it stay readable."""
    log.write_bytes(b"before\n\xff\xfe\x00\xc3\x28\nafter\n")
    texts = [line.text for line in LogReader(log).read()]
    assert texts[0] == "before"
    assert "\ufffd" in texts[1]
    assert texts[2] == "after"


def test_a_truncated_log_is_read_from_its_start(log):
    """A program that empties its log and goes on is followed."""
    log.write_bytes(b"one\ntwo\nthree\n")
    reader = LogReader(log)
    assert len(reader.read()) == 3
    log.write_bytes(b"new\n")
    assert [line.text for line in reader.read()] == ["new"]
    assert reader.read() == []


def test_a_missing_log_is_empty(tmp_path):
    """Before the first output there is no file, and that is no error."""
    assert LogReader(tmp_path / "nothing.log").read(at_end=True) == []


_READ_EVERYTHING = """
import asyncio, sys
from pathlib import Path
from tunesmith.paths import RunPaths
from tunesmith.runner import LogReader
from tunesmith.runs.live import LiveRun
from tunesmith.runner.logs.pages import read_log

def peak():  # of this program alone: what getrusage says includes the process that started it
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])

path = Path(sys.argv[1])
before = peak()
reader, pieces = LogReader(path), 0
while lines := reader.read(at_end=True):
    pieces += len(lines)
assert reader.offset == path.stat().st_size
assert pieces >= path.stat().st_size // (64 * 1024)
page = read_log(path, offset=0, after_line=None, limit=1000, ended=True)
assert page.next_offset <= 5 * 1024 * 1024, page.next_offset
assert read_log(path, offset=page.next_offset, after_line=None, limit=3, ended=True).lines[0].number == 1
assert read_log(path, offset=0, after_line=1, limit=1, ended=True).lines == []

async def heard(_events, _before):
    return None

async def follow():
    live = LiveRun(RunPaths(path.parent), heard)
    live.finish()
    await live.follow()
    assert live.offset == path.stat().st_size

asyncio.run(follow())
print(peak() - before)
"""


@pytest.mark.parametrize("megabytes", [300, pytest.param(1024, marks=pytest.mark.torture)])
def test_a_log_of_one_endless_line_takes_bounded_memory(tmp_path, megabytes):
    """One line without an end is handed out in pieces: reading, paging and following stay small."""
    log = tmp_path / "run.log"
    log.touch()
    os.truncate(log, megabytes * 1024 * 1024)
    done = subprocess.run(
        [sys.executable, "-c", _READ_EVERYTHING, str(log)],
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 40 * 1024
