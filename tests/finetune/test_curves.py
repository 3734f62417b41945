"""Curves of several runs at once: no run's log holds up another's, and what is drawn is always the same."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path, PosixPath

from tunesmith.contract.events import event_line
from tunesmith.reporting.curves import CurveBook


class SlowPath(PosixPath):
    """A log on a disk that says nothing until it may."""

    may_answer = threading.Event()
    asked = threading.Event()

    def __fspath__(self) -> str:
        self.asked.set()
        self.may_answer.wait(60)
        return str(self)


def log_of(folder: Path, losses: list[float]) -> tuple[Path, list[int]]:
    """A log, and where each of its lines ends."""
    log, content, ends = folder / f"{len(losses)}.log", b"", []
    for step, loss in enumerate(losses, start=1):
        content += event_line("metrics", {"step": step, "loss": loss})
        ends.append(len(content))
    log.write_bytes(content)
    return log, ends


def test_a_long_log_holds_up_no_other_run(tmp_path):
    """After a start each log is read from its beginning; one of them may have gigabytes."""
    slow, _ = log_of(tmp_path, [3, 2, 1])
    log, ends = log_of(tmp_path, [2, 1])
    book = CurveBook()
    with ThreadPoolExecutor(2) as threads:
        try:
            first = threads.submit(book.draw, SlowPath(slow), "step", 1, upto=slow.stat().st_size)
            assert SlowPath.asked.wait(60)
            newest, figure = threads.submit(book.draw, log, "step", 1, upto=ends[-1]).result(timeout=30)
            assert (newest, figure["losses"]) == (2, [2, 1])
            assert not first.done()
        finally:
            SlowPath.may_answer.set()
        assert first.result(timeout=60)[1]["losses"] == [3, 2, 1]


def test_one_run_drawn_by_many_at_once_is_drawn_the_same(tmp_path):
    """Whichever came first, and also once more runs are drawn than are remembered."""
    logs = [log_of(tmp_path, [1 / (run + step + 1) for step in range(run + 10)]) for run in range(40)]
    book = CurveBook()

    def drawn(run: int, line: int) -> bool:
        log, ends = logs[run]
        newest, figure = book.draw(log, "step", 1, upto=ends[line])
        return (newest, figure["losses"]) == (line + 1, [1 / (run + step + 1) for step in range(line + 1)])

    with ThreadPoolExecutor(8) as threads:
        orders = [(run, (line * 7 + run) % 10) for line in range(10) for run in [*range(40), 0, 0, 0, 1, 1]]
        done, _ = wait([threads.submit(drawn, *order) for order in orders])
        assert all(one.result() for one in done)
