"""Whatever a run puts in the place of its own files: nothing outside its folder is touched, nobody waits, and it ends."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from support.app import eventually, new_run, reached
from tunesmith.records import Exit, RunState
from tunesmith.runner.logs import latest_lines, read_log, read_metrics

pytestmark = pytest.mark.anyio
KINDS = ["a link", "a link to nothing", "a FIFO", "a folder", "a device", "a socket", "a large file", "nothing"]
FILES = ["run.log", "metrics.jsonl", "progress.json", "progress.tmp", "config.yaml", "checkpoints", "output"]


def replace(path: Path, kind: str, outside: Path) -> None:
    """Put something else where a file or folder was, at once: the server may write there at any time."""
    made = path.with_name("what replaces it")
    make(made, kind, outside)
    while True:
        if path.is_dir() and not path.is_symlink():
            path.rmdir()
        elif kind in ("a folder", "nothing"):  # all others take the place of a file in one step
            path.unlink(missing_ok=True)
        if kind == "nothing":
            return
        try:
            made.rename(path)
        except NotADirectoryError:  # the server wrote a file there after it had gone
            continue
        return


def make(path: Path, kind: str, outside: Path) -> None:
    """Make one of the kinds, or nothing."""
    match kind:
        case "a link":
            path.symlink_to(outside)
        case "a link to nothing":
            path.symlink_to(outside.with_name("not there"))
        case "a FIFO":
            os.mkfifo(path)
        case "a folder":
            path.mkdir()
            (path / "inside").touch()
        case "a device":
            try:
                os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 5))  # /dev/zero, which never ends
            except PermissionError:
                pytest.skip("only root makes devices")
        case "a socket":
            os.mknod(path, stat.S_IFSOCK | 0o600)
        case "a large file":
            path.touch()
            os.truncate(path, 64 * 1024 * 1024)


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A file of somebody else, with what looks like a log."""
    path = tmp_path / "somebody's"
    path.write_text('{"tunesmith":"metrics","step":9,"log_offset":3}\n')
    return path


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("kind", KINDS)
async def test_a_run_that_replaces_its_files_ends_as_it_ended(open_app, executor, tmp_path, outside, name, kind):
    """Before it is over and while metrics come in: its exit is on record, and nobody else's file has changed."""
    before = outside.read_bytes()
    async with open_app() as app:
        runs = app.services.runs
        run_id = await new_run(app)
        await reached(app, run_id, "running")
        folder = app.services.paths.run(run_id).folder
        line = b'{"tunesmith":"metrics","step":%d,"loss":1}\n'
        (folder / "run.log").write_bytes(line % 1)
        await eventually(lambda: runs.live.progress(runs.book.get(run_id)).step == 1)
        replace(folder / name, kind, outside)
        if name != "run.log":
            with (folder / "run.log").open("ab") as log:
                log.write(line % 2 + b'{"tunesmith":"checkpoint","path":"checkpoints/1","step":2}\n')
        executor.end(run_id, Exit(code=5))
        run = await reached(app, run_id)
        assert (run.state, run.exit.code) == (RunState.FAILED, 5)
        assert run.progress.step == (1 if name == "run.log" else 2)
        # Whoever looks at it finds nothing, at once, and nothing of anybody else.
        read_metrics(folder / "metrics.jsonl", cursor=None, limit=10)
        page = read_log(folder / "run.log", offset=0, after_line=None, limit=10, ended=True)
        assert all(
            'step":9' not in text for text in [*latest_lines(folder / "run.log", 5), *(one.text for one in page.lines)]
        )
    assert outside.read_bytes() == before
    assert not outside.with_name("not there").exists()


@pytest.mark.parametrize("name", ["run.log", "metrics.jsonl", "progress.json", "progress.tmp"])
@pytest.mark.parametrize("kind", KINDS)
async def test_the_next_server_takes_such_a_run_over(open_app, executor, outside, name, kind):
    """Replaced while no server watched: it is adopted, goes on, and ends."""
    before = outside.read_bytes()
    async with open_app() as app:
        run_id = await new_run(app)
        await reached(app, run_id, "running")
        folder = app.services.paths.run(run_id).folder
        (folder / "run.log").write_bytes(b'{"tunesmith":"metrics","step":1,"loss":1}\n')
    replace(folder / name, kind, outside)
    async with open_app() as app:
        executor.end(run_id, Exit(code=5))
        run = await reached(app, run_id)
        assert (run.state, run.exit.code) == (RunState.FAILED, 5)
    assert outside.read_bytes() == before


@pytest.mark.parametrize(
    "notes",
    [
        {"log_offset": -5},
        {"log_offset": 10**15, "step": 4},
        {"metrics": {str(number): 1.0 for number in range(5000)}, "log_offset": 1},
        {"step": "ten"},
        [],
    ],
)
async def test_notes_that_we_did_not_write_are_read_as_none(open_app, executor, notes):
    """A run may write its own progress.json: the log is read again, and the progress is what the log says."""
    async with open_app() as app:
        run_id = await new_run(app)
        await reached(app, run_id, "running")
        folder = app.services.paths.run(run_id).folder
    (folder / "run.log").write_bytes(b'{"tunesmith":"metrics","step":7,"loss":1}\n')
    (folder / "progress.json").write_text(json.dumps(notes))
    async with open_app() as app:
        executor.end(run_id)
        run = await reached(app, run_id)
        assert (run.state, run.progress.step, set(run.progress.metrics)) == (RunState.SUCCEEDED, 7, {"loss"})
