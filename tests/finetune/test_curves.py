"""Curves of several runs at once: no run's metrics hold up another's, and what is drawn is always the same."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path, PosixPath

from tunesmith.reporting.curves import CurveBook


class SlowPath(PosixPath):
    """A file on a disk that says nothing until it may."""

    may_answer = threading.Event()
    asked = threading.Event()

    def __fspath__(self) -> str:
        self.asked.set()
        self.may_answer.wait(60)
        return str(self)


def metrics_file(folder: Path, losses: list[float]) -> tuple[Path, list[int]]:
    """A metrics.jsonl, and where the lines of the log end that it was made from."""
    path = folder / f"{len(losses)}.jsonl"
    write_metrics(path, dict(enumerate(losses, start=1)))
    return path, [100 * step for step in range(1, len(losses) + 1)]


def write_metrics(path: Path, losses: dict[int, float], mode: str = "w") -> None:
    with path.open(mode) as file:
        for step, loss in losses.items():
            file.write(json.dumps({"step": step, "loss": loss, "log_offset": 100 * step}) + "\n")


def test_long_metrics_hold_up_no_other_run(tmp_path):
    """After a start they are read from their beginning; those of one run may have gigabytes."""
    slow, _ = metrics_file(tmp_path, [3, 2, 1])
    metrics, ends = metrics_file(tmp_path, [2, 1])
    book = CurveBook()
    with ThreadPoolExecutor(2) as threads:
        try:
            first = threads.submit(book.draw, SlowPath(slow), "step", 1, upto=300)
            assert SlowPath.asked.wait(60)
            newest, figure = threads.submit(book.draw, metrics, "step", 1, upto=ends[-1]).result(timeout=30)
            assert (newest, figure["losses"]) == (2, [2, 1])
            assert not first.done()
        finally:
            SlowPath.may_answer.set()
        assert first.result(timeout=60)[1]["losses"] == [3, 2, 1]


def test_one_run_drawn_by_many_at_once_is_drawn_the_same(tmp_path):
    """Whichever came first, and also once more runs are drawn than are remembered."""
    files = [metrics_file(tmp_path, [1 / (run + step + 1) for step in range(run + 10)]) for run in range(40)]
    book = CurveBook()

    def drawn(run: int, line: int) -> bool:
        metrics, ends = files[run]
        newest, figure = book.draw(metrics, "step", 1, upto=ends[line])
        return (newest, figure["losses"]) == (line + 1, [1 / (run + step + 1) for step in range(line + 1)])

    with ThreadPoolExecutor(8) as threads:
        orders = [(run, (line * 7 + run) % 10) for line in range(10) for run in [*range(40), 0, 0, 0, 1, 1]]
        done, _ = wait([threads.submit(drawn, *order) for order in orders])
        assert all(one.result() for one in done)


def test_curves_are_of_the_log_as_it_is_now(tmp_path):
    """A program may empty its log and begin anew; what it measured before stays in metrics.jsonl, and is in no curve."""
    path = tmp_path / "metrics.jsonl"
    write_metrics(path, {1: 9, 2: 8, 3: 7})
    books = [CurveBook(), CurveBook()]
    assert books[0].draw(path, "step", 1, upto=300, is_final=True)[1]["losses"] == [9, 8, 7]
    write_metrics(path, {1: 5, 2: 4}, mode="a")
    for book in books:
        assert book.draw(path, "step", 1, upto=200, is_final=True)[1]["losses"] == [5, 4]
        assert book.draw(path, "step", 1, upto=100, is_final=True)[1]["losses"] == [5]
    with path.open("a") as file:
        file.write("nothing of ours\n[]\n" + '{"step": 3, "loss": 3, "log_offset": 300}\n{"step": 4, "lo')
    for book in books:
        assert book.draw(path, "step", 1, upto=400, is_final=True)[1]["losses"] == [5, 4, 3]


def test_what_was_written_twice_is_drawn_once(tmp_path):
    """An earlier version wrote lines that a full disk had kept back a second time."""
    path = tmp_path / "metrics.jsonl"
    write_metrics(path, {1: 9, 2: 8})
    last = path.read_text().splitlines(keepends=True)[-1]
    with path.open("a") as file:
        file.write(last)
    write_metrics(path, {3: 7}, mode="a")
    assert CurveBook().draw(path, "step", 1, upto=300, is_final=True)[1]["losses"] == [9, 8, 7]
