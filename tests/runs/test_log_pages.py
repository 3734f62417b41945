"""Pages of a log and of metrics: every line once, the same numbers whichever way one pages, bounded in size."""

from __future__ import annotations

import json
import os
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith.runner import LONGEST_LINE
from tunesmith.runner.logs import LogPage, read_log, read_metrics
from tunesmith.runner.logs.line_index import LineIndex

lines_of_text = st.lists(st.text(st.sampled_from("ab é😀\r"), max_size=12), max_size=30)


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pages") / "run.log"


def page(log: Path, **wanted) -> LogPage:
    return read_log(log, **{"offset": 0, "after_line": None, "limit": 200, "ended": True, **wanted})


@given(lines_of_text, st.integers(1, 7), st.booleans())
@settings(deadline=None)
def test_pages_by_offset_hold_every_line_once(log, texts, limit, with_last_newline):
    """Following next_offset gives the whole log in order, numbered from 1, and says when it is complete."""
    content = "\n".join(texts) + "\n" * with_last_newline
    log.write_text(content, newline="")
    expected = content.split("\n")[: None if not content.endswith("\n") and content else -1] if content else []
    found, offset = [], 0
    for _ in range(len(texts) + 2):
        got = page(log, offset=offset, limit=limit)
        found += got.lines
        offset = got.next_offset
        if got.complete:
            break
    assert got.complete
    assert [line.text for line in found] == [text.removesuffix("\r") for text in expected]
    assert [line.number for line in found] == list(range(1, len(found) + 1))
    assert all(content.encode()[line.offset :].startswith(line.text.encode()) for line in found)


@given(lines_of_text, st.integers(0, 35), st.integers(1, 7))
@settings(deadline=None)
def test_paging_by_line_and_by_offset_agree(log, texts, after, limit):
    """Asking after a line gives what paging by offset numbers with the next one."""
    log.write_text("".join(text + "\n" for text in texts), newline="")
    everything = page(log, limit=1000).lines
    got = page(log, after_line=after, limit=limit)
    assert got.lines == everything[after : after + limit]
    if got.lines:
        again = page(log, offset=got.lines[0].offset, limit=limit)
        assert again == got


def test_pieces_of_a_long_line_share_its_number(log):
    """A line of 200 KB comes in pieces; the line after it has the next number, from whatever offset one asks."""
    log.write_text("first\n" + "x" * 200_000 + "\nlast\n")
    lines = page(log).lines
    assert [line.number for line in lines] == [1, 2, 2, 2, 2, 3]
    assert "".join(line.text for line in lines[1:5]) == "x" * 200_000
    for line in lines:
        assert page(log, offset=line.offset, limit=1).lines == [line]
    assert [line.text for line in page(log, after_line=2).lines] == ["last"]


def test_a_page_is_bounded_in_bytes(log):
    """A thousand lines of 60 KB each do not come in one answer, but none is left out either."""
    log.write_bytes(b"".join(b"%04d" % number + b"y" * 60_000 + b"\n" for number in range(200)))
    found, offset, pages = [], 0, 0
    while offset < log.stat().st_size:
        got = page(log, offset=offset, limit=1000)
        assert sum(len(line.text) for line in got.lines) < 5 * 1024 * 1024
        found += [int(line.text[:4]) for line in got.lines]
        offset, pages = got.next_offset, pages + 1
    assert found == list(range(200))
    assert pages == 3


def test_an_unfinished_line_is_shown_only_when_it_is_the_end(log):
    """While a process runs, half a line is not shown; when it has ended, that is the last line."""
    log.write_text("whole\nhal")
    running = page(log, ended=False)
    assert ([line.text for line in running.lines], running.next_offset, running.complete) == (["whole"], 6, False)
    over = page(log, offset=running.next_offset)
    assert ([line.text for line in over.lines], over.lines[0].number, over.complete) == (["hal"], 2, True)


@pytest.mark.parametrize("asked", [{"offset": 10**30}, {"after_line": 10**30}, {"offset": 6}, {"after_line": 1}])
def test_beyond_the_end_is_nothing_yet(log, asked):
    """Asking beyond the end is not an error: the log may still grow."""
    log.write_text("whole\n")
    got = page(log, ended=False, **asked)
    assert (got.lines, got.next_offset, got.size, got.complete) == ([], 6, 6, False)


def test_a_log_that_does_not_exist_yet_is_empty(tmp_path):
    """A queued run has no log: an empty page that says more may come."""
    got = read_log(tmp_path / "run.log", offset=0, after_line=None, limit=10, ended=False)
    assert (got.lines, got.next_offset, got.complete) == ([], 0, False)
    assert read_log(tmp_path / "run.log", offset=0, after_line=5, limit=10, ended=True).complete


@pytest.fixture
def metrics(tmp_path: Path) -> Path:
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps({"step": step, "loss": 1 / step}) + "\n" for step in range(1, 26)))
    return path


def test_metrics_pages_hold_every_point_once(metrics):
    """Following the cursor gives all points in order; the last page has none."""
    steps, cursor = [], None
    while cursor is not None or not steps:
        got = read_metrics(metrics, cursor=cursor, limit=10)
        steps += [point["step"] for point in got.metrics]
        cursor = got.cursor
    assert steps == list(range(1, 26))


@pytest.mark.parametrize("cursor", ["3", "1", "17"])
def test_a_cursor_inside_a_line_goes_on_with_the_next(metrics, cursor):
    """A made-up cursor is not an error of ours and gives whole points only."""
    steps = [point["step"] for point in read_metrics(metrics, cursor=cursor, limit=1000).metrics]
    assert steps == list(range(2, 26))


@pytest.mark.parametrize("cursor", ["100000", "9" * 40])
def test_a_cursor_beyond_the_end_gives_nothing(metrics, cursor):
    """It does not begin again from the start."""
    got = read_metrics(metrics, cursor=cursor, limit=1000)
    assert (got.metrics, got.cursor) == ([], None)


def test_a_line_that_cannot_be_read_hides_no_other(metrics):
    """Half a line from a crash, or one that is too long: the points around it are still there."""
    lines = metrics.read_text().splitlines(keepends=True)
    damaged = [*lines[:3], "\0\0\0\n", "[1]\n", '{"x": "' + "y" * LONGEST_LINE + '"}\n', *lines[3:], '{"step":']
    metrics.write_text("".join(damaged))
    assert [point["step"] for point in read_metrics(metrics, cursor=None, limit=1000).metrics] == list(range(1, 26))


def bytes_read_by(look) -> int:
    """How many bytes this thread reads from files meanwhile, from memory or from the disk."""

    def so_far() -> int:
        return int(Path("/proc/thread-self/io").read_text().split("rchar: ")[1].split()[0])

    before = so_far()
    look()
    return so_far() - before


@pytest.mark.parametrize("asked", [{"offset": 2**27 - 5000}, {"after_line": 1023}, {"offset": 2**26 + 17}])
def test_the_end_of_a_long_log_is_as_near_as_its_start(tmp_path, asked):
    """Whoever asks after the lines were counted once reads a few blocks, not 128 MB; the numbers are right."""
    log = tmp_path / "run.log"
    with log.open("wb") as file:
        for number in range(1, 1024):
            file.seek(number * 2**17 - 1)
            file.write(b"\n")
        file.seek(2**27 - 1000)
        file.write(b"\nthe last line\n")
    expected = {offset: sum(at <= offset for at in range(2**17, 2**27, 2**17)) for offset in (2**27 - 5000, 2**26 + 17)}
    page(log, after_line=1, limit=1)  # as the tail does, or whoever comes first
    found: list[LogPage] = []
    read = bytes_read_by(lambda: found.append(page(log, limit=3, **asked)))
    assert read < 6 * 1024 * 1024
    first = found[0].lines[0]
    assert first.number == (1024 if "after_line" in asked else expected[asked["offset"]] + 1)
    if asked["offset" if "offset" in asked else "after_line"] != 2**26 + 17:
        assert "the last line" in [line.text for line in page(log, limit=5, offset=2**27 - 5000).lines]


@given(st.lists(st.tuples(st.integers(0, 3 * 2**20), st.integers(1, 40)), max_size=12), st.data())
@settings(deadline=None, max_examples=15)
def test_counting_by_blocks_gives_the_numbers_of_a_plain_count(log, places, data):
    """Newlines anywhere, across the ends of blocks, while it grows: as if all of it were counted each time."""
    for path in log.parent.iterdir():
        path.unlink()
    content = bytearray(3 * 2**20 + 100)
    for at, count in places:
        content[at : at + count] = b"\n" * count
    content[2**20 - 2 : 2**20 + 2] = b"\n\n\n\n"
    for size in sorted(data.draw(st.lists(st.integers(0, len(content)), min_size=1, max_size=4))):
        with log.open("ab") as file:
            file.write(content[file.tell() : size])
        offset = data.draw(st.integers(0, size))
        after = data.draw(st.integers(0, 500))
        descriptor = os.open(log, os.O_RDONLY)
        try:
            index = LineIndex(log, descriptor)
            assert index.lines_before(offset) == content[:offset].count(b"\n")
            start, passed = index.start_after(after)
            assert passed == min(after, content[:size].count(b"\n"))
            assert passed < after or content[:start].count(b"\n") == after
        finally:
            os.close(descriptor)


@pytest.mark.parametrize(
    "kept", [b"", b"garbage", b"1.2\n5\n", b"IDENTITY\n9999999999\n", b"IDENTITY\n-5\n", b"IDENTITY\n7\n6\n5\n4\n"]
)
def test_counts_that_are_not_of_this_log_are_not_used(tmp_path, kept):
    """Of another file, of one that was longer, or written by somebody else: the lines are counted again."""
    log = tmp_path / "run.log"
    log.write_bytes((b"x" * 1023 + b"\n") * 3000)
    assert page(log, offset=1024 * 2999, limit=1).lines[0].number == 3000
    identity = (tmp_path / "run.log.lines").read_bytes().splitlines()[0]
    (tmp_path / "run.log.lines").write_bytes(kept.replace(b"IDENTITY", identity))
    assert page(log, offset=1024 * 2999, limit=1).lines[0].number == 3000
    assert page(log, after_line=2999, limit=1).lines[0].offset == 1024 * 2999
    log.write_bytes(b"short\nlog\n")
    assert [line.number for line in page(log, offset=6).lines] == [2]
    log.write_bytes((b"y" * 511 + b"\n") * 6000)
    assert page(log, offset=512 * 5999, limit=1).lines[0].number == 6000


def test_a_page_is_bounded_as_it_is_answered(log):
    """Bytes that take six times as many in JSON count as what they take."""
    log.write_bytes((b"\0" * 60_000 + b"\n") * 100)
    found, offset = [], 0
    while offset < log.stat().st_size:
        got = page(log, offset=offset, limit=1000)
        assert len(msgspec.json.encode(got)) < 5 * 1024 * 1024
        found += [line.number for line in got.lines]
        offset = got.next_offset
    assert found == list(range(1, 101))
