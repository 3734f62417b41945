"""The end of a live run: its log is read to where it ends then, whoever goes on writing to it."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import anyio
import pytest

from tunesmith.errors import OutOfSpace
from tunesmith.paths import RunPaths
from tunesmith.records import Progress
from tunesmith.runs.fold import Event
from tunesmith.runs.live import LiveRun
from tunesmith.runs.run_files import written_files

pytestmark = pytest.mark.anyio

LINE = b"0" * 99 + b"\n"


def live_run(folder: Path) -> tuple[LiveRun, list[Event]]:
    heard: list[Event] = []

    async def hear(events: tuple[Event, ...], _before: Progress) -> None:
        heard.extend(events)
        del heard[:-10]

    return LiveRun(RunPaths(folder), hear), heard


async def read(live: LiveRun, upto: int) -> None:
    with anyio.fail_after(60):
        while live.offset < upto:  # noqa: ASYNC110  # reading sends no event to who does not follow
            await anyio.sleep(0.005)


async def test_a_run_ends_though_somebody_else_writes_to_its_log_for_ever(tmp_path):
    """A program that is none of the run's, and always has more in the log than was read, cannot keep its end from being
    recorded.
    """
    log = RunPaths(tmp_path).log
    log.write_bytes(b"first\n")

    async def append(_events: tuple[Event, ...], _before: Progress) -> None:
        await anyio.to_thread.run_sync(append_to, log)

    live = LiveRun(RunPaths(tmp_path), append)
    await live.restore(new_attempt=True)
    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(live.follow)
            await read(live, 10_000)
            live.finish()


def append_to(log: Path) -> None:
    with log.open("ab") as file:
        file.write(b"still here\n" * 10)


@pytest.mark.parametrize("before", [b"", LINE * 10_000])
async def test_at_the_end_everything_that_is_in_the_log_is_read(tmp_path, before):
    """Several reads' worth, with a last line that has no newline; also when the log was cut and written anew."""
    log = RunPaths(tmp_path).log
    live, heard = live_run(tmp_path)
    log.write_bytes(before)
    await live.restore(new_attempt=True)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(live.follow)
        await read(live, len(before))
        log.write_bytes(LINE * 5_000 + b"last")
        live.finish()
    assert live.offset == len(LINE) * 5_000 + 4
    assert heard[-1].fields["line"] == "last"


def listed(folder: Path) -> dict[str, str]:
    return {"/".join(file.place): file.kind for file in written_files(RunPaths(folder))}


def say(paths: RunPaths, event: str, **fields) -> None:
    with paths.log.open("a") as log:
        log.write(json.dumps({"tunesmith": event, **fields}) + "\n")


async def fold_log(folder: Path) -> None:
    live, _ = live_run(folder)
    await live.restore(new_attempt=False)
    live.finish()
    with anyio.fail_after(60):
        await live.follow()


async def test_what_a_run_told_of_is_folded_once_and_kept(tmp_path):
    """However much it prints afterwards, and though nobody can read the log any more."""
    paths = RunPaths(tmp_path)
    for name in ("scores.csv", "charts/a.svg", "late.bin"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    say(paths, "artifact", path=str(tmp_path / "scores.csv"), kind="scores")
    say(paths, "artifact", path=str(tmp_path / "charts"), kind="chart")
    await fold_log(tmp_path)
    with paths.log.open("ab") as log:
        log.write(LINE * 60_000)
    say(paths, "artifact", path=str(tmp_path / "late.bin"), kind="weights")
    assert listed(tmp_path) == {"scores.csv": "scores", "charts/a.svg": "chart", "late.bin": "weights"}
    await fold_log(tmp_path)
    paths.log.unlink()
    assert listed(tmp_path) == {"scores.csv": "scores", "charts/a.svg": "chart", "late.bin": "weights"}


async def test_what_a_version_before_did_not_fold_is_listed_all_the_same(tmp_path):
    """Its progress.json says nothing of it; also when such a run is adopted."""
    paths = RunPaths(tmp_path)
    (tmp_path / "scores.csv").write_text("x")
    say(paths, "artifact", path=str(tmp_path / "scores.csv"), kind="scores")
    say(paths, "progress", step=7)
    paths.progress.write_text(json.dumps({"step": 7, "log_offset": paths.log.stat().st_size}))
    assert listed(tmp_path) == {"scores.csv": "scores"}
    await fold_log(tmp_path)
    assert json.loads(paths.progress.read_text())["reported"] == {"scores.csv": "scores"}
    assert json.loads(paths.progress.read_text())["step"] == 7
    paths.log.unlink()
    assert listed(tmp_path) == {"scores.csv": "scores"}


@pytest.mark.parametrize("place", ["../secret.txt", "/etc/hostname", "charts/../../secret.txt", "", ".", "a\0b"])
async def test_notes_of_a_run_lead_nowhere_else(tmp_path, place):
    """A run may write its own progress.json."""
    folder = tmp_path / "run"
    folder.mkdir()
    (tmp_path / "secret.txt").write_text("x")
    RunPaths(folder).progress.write_text(json.dumps({"reported": {place: "file"}, "log_offset": 0}))
    assert listed(folder) == {}


async def test_what_is_told_of_without_end_stays_bounded(tmp_path):
    """The newest are kept: results are told last."""
    paths = RunPaths(tmp_path)
    with paths.log.open("w") as log:
        for number in range(12_000):
            log.write('{"tunesmith":"artifact","path":"%s"}\n' % (tmp_path / f"{number}.bin"))
            log.write('{"tunesmith":"checkpoint","path":"%s"}\n' % (tmp_path / f"checkpoints/checkpoint-{number}"))
    await fold_log(tmp_path)
    told = json.loads(paths.progress.read_text())["reported"]
    assert list(told) == [f"{number}.bin" for number in range(2_000, 12_000)]


async def test_long_names_in_any_script_stay_bounded(tmp_path):
    """As they are written down: notes that are too large would be read as none."""
    paths = RunPaths(tmp_path)
    with paths.log.open("w") as log:
        for number in range(2_000):
            log.write(json.dumps({"tunesmith": "artifact", "path": f"{tmp_path}/{number}{'任务' * 600}"}) + "\n")
    await fold_log(tmp_path)
    assert paths.progress.stat().st_size < 1.1 * 1024 * 1024
    assert next(reversed(json.loads(paths.progress.read_text())["reported"])).startswith("1999")


async def test_a_full_disk_leaves_no_metric_out_and_writes_none_twice(tmp_path):
    """Nobody can keep what is told then, so all of it is heard again once there is room."""
    paths, full = RunPaths(tmp_path), True

    class Full(LiveRun):
        def _save_metrics(self) -> None:
            if full:
                raise OSError(errno.ENOSPC, "no room", str(paths.metrics))
            super()._save_metrics()

    async def hear(_events: tuple[Event, ...], _before: Progress) -> None:
        if full:
            raise OutOfSpace("no room")

    say(paths, "metrics", step=1, loss=2)
    say(paths, "metrics", step=2, loss=1)
    live = Full(paths, hear)
    live.finish()
    with pytest.raises(OutOfSpace):
        await live.follow()
    full = False
    await live.restore(new_attempt=False)
    live.finish()
    with anyio.fail_after(60):
        await live.follow()
    assert [json.loads(line)["step"] for line in paths.metrics.read_text().splitlines()] == [1, 2]


async def test_what_was_measured_is_on_disk_before_anybody_is_told_of_it(tmp_path):
    """Curves are drawn from there, for whoever is told."""
    paths, seen = RunPaths(tmp_path), []

    async def hear(events: tuple[Event, ...], _before: Progress) -> None:
        measured = [json.loads(line)["log_offset"] for line in paths.metrics.read_text().splitlines()]
        seen.append(measured == [event.end for event in events])

    say(paths, "metrics", step=1, loss=2)
    say(paths, "metrics", step=2, loss=1)
    live = LiveRun(paths, hear)
    live.finish()
    with anyio.fail_after(60):
        await live.follow()
    assert seen == [True]
