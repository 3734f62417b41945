"""Filtered pages of a log: what a plain filter of the whole file would give, in bounded steps; and how lines are judged."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith.runner import Line
from tunesmith.runner.logs import LogFilter, LogLevel, LogLine, LogPage, latest_lines, read_log
from tunesmith.runner.logs.levels import level_of

BEGINNINGS = [
    "",
    "INFO: ",
    "WARNING:root:",
    "ERROR - ",
    "DEBUG ",
    "Traceback (most recent call last):",
    "x Straße ",
    "é😀 ",
]
lines_of_text = st.lists(
    st.tuples(st.sampled_from(BEGINNINGS), st.text(st.sampled_from("ab é😀ß\r"), max_size=8)).map("".join), max_size=30
)
levels = st.none() | st.sampled_from(LogLevel)
texts = st.none() | st.sampled_from(["", "a", "STRASSE", "É", "info", "b a", "nowhere"])


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("filters") / "run.log"


def page(log: Path, **wanted) -> LogPage:
    return read_log(log, **{"offset": 0, "after_line": None, "limit": 200, "ended": True, **wanted})


def paged(log: Path, wanted: LogFilter, limit: int, **start) -> list[LogLine]:
    """All lines, asked for page by page until the log is complete."""
    found, query = [], start
    while True:
        got = page(log, limit=limit, wanted=wanted, **query)
        assert len(got.lines) <= limit
        found += got.lines
        if got.complete:
            return found
        assert got.next_offset > query.get("offset", -1), "a page that is not the last goes on"
        query = {"offset": got.next_offset}


@given(lines_of_text, levels, texts, st.integers(1, 4), st.booleans())
@settings(deadline=None)
def test_filtered_pages_are_a_plain_filter_of_the_whole_file(log, lines, level, text, limit, with_last_newline):
    """Whatever the page size, no line that fits is lost, repeated, or numbered otherwise than in the file."""
    log.write_text("\n".join(lines) + "\n" * with_last_newline, newline="")
    everything = page(log, limit=1000).lines
    order = tuple(LogLevel)
    expected = [
        line
        for line in everything
        if (level is None or order.index(line.level) >= order.index(level))
        and (not text or text.casefold() in line.text.casefold())
    ]
    assert paged(log, LogFilter(level=level, text=text), limit) == expected


@given(lines_of_text, levels, st.integers(0, 35), st.integers(1, 4))
@settings(deadline=None)
def test_filters_begin_after_any_line(log, lines, level, after, limit):
    """Asking after a line gives what the whole gives from there on."""
    log.write_text("".join(line + "\n" for line in lines), newline="")
    wanted = LogFilter(level=level)
    expected = [line for line in paged(log, wanted, 1000) if line.number > after]
    assert paged(log, wanted, limit, after_line=after) == expected


def test_one_page_looks_at_a_bounded_part_of_a_log(log):
    """In 20 MB without a match every page ends after some 4 MB, says where to go on, and finds the last line at last."""
    log.write_bytes(b"nothing to see here, as on every other line\n" * 450_000 + b"the needle\n")
    offset, pages = 0, 0
    while not (got := page(log, offset=offset, wanted=LogFilter(text="NEEDLE"))).complete:
        assert got.lines == []
        assert 0 < got.next_offset - offset < 5 * 1024 * 1024
        offset, pages = got.next_offset, pages + 1
    assert pages == 4
    assert [(line.number, line.text) for line in got.lines] == [(450_001, "the needle")]


def test_a_growing_log_goes_on_where_it_was(log):
    """A follower who filters gets what is added, once, and nothing of a line that is not whole yet."""
    log.write_text("ERROR: one\nplain\nERR")
    first = page(log, wanted=LogFilter(level=LogLevel.ERROR), ended=False)
    assert ([line.number for line in first.lines], first.complete) == ([1], False)
    with log.open("a") as file:
        file.write("OR: two\n")
    second = page(log, offset=first.next_offset, wanted=LogFilter(level=LogLevel.ERROR))
    assert [(line.number, line.text) for line in second.lines] == [(3, "ERROR: two")]


@pytest.mark.parametrize(
    ("text", "level"),
    [
        ("plain text", "info"),
        ("", "info"),
        ("the ERROR column is left out", "info"),
        ("an error rate of 5 %", "info"),
        ("INFORMATION about it", "info"),
        ("DEBUG details", "debug"),
        ("INFO: begins", "info"),
        ("WARNING:root:careful", "warning"),
        ("[WARNING|trainer.py:812] 2026-11-20 21:00:00,123 >> careful", "warning"),
        ("2026-11-20 21:00:00,123 - trainer - ERROR - it failed", "error"),
        ("2026-11-20T21:00:00Z ERROR it failed", "error"),
        ("[2026-11-20 21:00:00,123] [WARNING] [config.py:12:f] careful", "warning"),
        ("CRITICAL it failed", "error"),
        ("error: no such file", "error"),
        ("run.sh: Error: no such file", "error"),
        ("warning: deprecated", "warning"),
        ("Traceback (most recent call last):", "error"),
        ("[rank0]: Traceback (most recent call last):", "error"),
        ('  File "train.py", line 3, in <module>', "error"),
        ("ValueError: no row is left", "error"),
        ("torch.cuda.OutOfMemoryError: CUDA out of memory", "error"),
        ("KeyboardInterrupt", "error"),
        ("/lib/python3.11/site.py:12: FutureWarning: it will go", "warning"),
        ("W1120 21:00:00.000000 140 torch/run.py:1] careful", "warning"),
        ("[rank1]:[E1120 21:00:00.000000 ProcessGroupNCCL.cpp:1] timeout", "error"),
        ("\r 50%|#####     | 1/2\rERROR: after a bar", "error"),
        ('{"tunesmith":"message","level":"error","text":"INFO"}', "error"),
        ('{"tunesmith":"message","level":"Warning","text":"x"}', "warning"),
        ('{"tunesmith":"message","level":5,"text":"x"}', "info"),
        ('{"tunesmith":"metrics","loss":1,"step":1}', "info"),
        ("{'loss': 0.5, 'epoch': 1.0}", "info"),
    ],
)
def test_a_line_is_judged_by_what_it_says_of_itself(text, level):
    """Message events by their level, other lines by how programs begin them; what says nothing is info."""
    content = text.encode()
    assert level_of(Line(0, len(content), content)) == level


@given(st.binary(max_size=300))
def test_any_line_has_a_level(content):
    """Whatever a process prints."""
    assert level_of(Line(0, len(content), content)) in LogLevel


def test_the_latest_lines_are_the_end_of_the_log(log, tmp_path):
    """As many as wanted, whole, with one that is still being written; nothing of a log that is not there."""
    log.write_text("".join(f"line {number}\n" for number in range(10_000)) + "unfin")
    assert latest_lines(log, 3) == ["line 9998", "line 9999", "unfin"]
    log.write_text("x" * 100_000 + "\nlast\n")
    assert latest_lines(log, 20) == ["last"]
    log.write_text("one\ntwo\n")
    assert latest_lines(log, 20) == ["one", "two"]
    assert latest_lines(tmp_path / "run.log", 20) == []


def test_the_doors_filter_logs(client, done):
    """`level` in any spelling and `q` in any case, at the project's and the native path alike."""
    for base in (
        f"/api/projects/orders/runs/{done['id']}",
        f"/projects/orders/runs/{done['id']}",
        f"/v1/runs/{done['id']}",
    ):

        def lines(**query) -> list[str]:
            answer = client.get(f"{base}/logs", params=query).raise_for_status().json()  # noqa: B023  # called at once
            assert answer["complete"]
            return [line["text"] for line in answer["lines"]]

        everything = lines()
        assert lines(level="error") == [line for line in everything if "ERROR" in line]
        assert lines(level="WARN") == [line for line in everything if "ERROR" in line or "WARNING" in line]
        assert lines(q="CAREFUL") == ["WARNING:root:careful now"]
        assert lines(q="careful", level="error") == []
        assert len(everything) > 5
        first = client.get(f"{base}/logs", params={"level": "warning", "limit": 1}).json()
        rest = client.get(f"{base}/logs", params={"level": "warning", "offset": first["next_offset"]}).json()
        assert [line["level"] for line in first["lines"] + rest["lines"]] == ["warning", "error"]
        again = client.get(f"{base}/logs", params={"after_line": first["lines"][0]["number"], "level": "error"}).json()
        assert again["lines"] == rest["lines"]
        refused = client.get(f"{base}/logs", params={"level": "loud"})
        assert refused.status_code == 422
        assert "level" in json.dumps(refused.json()["errors"])
