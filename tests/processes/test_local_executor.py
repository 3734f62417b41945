"""The local executor on real processes: true exit codes, nobody left alive, nobody else ever signalled."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import anyio
import msgspec
import pytest

from support.server import polled
from tunesmith.paths import AttemptPaths
from tunesmith.records import Exit, ProcessIdentity
from tunesmith.runner import Launch, LocalExecutor, Started
from tunesmith.runner.local.identity import identify, is_alive, marked, signal_group

pytestmark = pytest.mark.anyio
RUN_ID = f"run_of_executor_tests_{os.getpid()}"
"""Stopping kills whatever carries it, so it must be nobody else's, not even of the same tests beside these."""


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def attempt(tmp_path: Path) -> AttemptPaths:
    return AttemptPaths(tmp_path / "attempts" / "1")


@pytest.fixture
def executor() -> LocalExecutor:
    return LocalExecutor(start_deadline_seconds=60)


def launch(tmp_path: Path, script: str, run_id: str = RUN_ID) -> Launch:
    return Launch(
        argv=("bash", "-c", script),
        env={"TUNESMITH_RUN_ID": run_id},
        cwd=str(tmp_path),
        log=str(tmp_path / "run.log"),
    )


def wait_for_text(path: Path, text: str) -> str:
    for content in polled(lambda: path.read_text() if path.exists() else ""):
        if text in content:
            return content
    raise AssertionError(f"{path} never held {text!r}")


def wait_for_file(path: Path) -> None:
    assert any(polled(path.exists)), f"{path} never came"


def wait_until_gone(pid: int) -> None:
    for alive in polled(lambda: identify(pid) is not None):
        if not alive:
            return
    raise AssertionError(f"process {pid} is still alive")


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("exit 0", Exit(code=0)),
        ("exit 7", Exit(code=7)),
        ("kill -TERM $$", Exit(signal=signal.SIGTERM)),
        ("kill -KILL $$", Exit(signal=signal.SIGKILL)),
    ],
)
async def test_the_true_exit_is_recorded(executor, attempt, tmp_path, script, expected):
    """However a program ends, exit.json says exactly that."""
    await executor.start(attempt, launch(tmp_path, script))
    assert isinstance(await executor.started(attempt, RUN_ID), Started)
    exit_ = await executor.wait(attempt, RUN_ID)
    assert exit_ is not None
    assert (exit_.code, exit_.signal) == (expected.code, expected.signal)
    assert exit_.at is not None


async def test_a_program_that_ends_at_once_is_not_missed(executor, tmp_path):
    """Ending before the shim has looked at it is an end like any other."""
    for number in range(15):
        attempt = AttemptPaths(tmp_path / "attempts" / str(number))
        await executor.start(attempt, msgspec.structs.replace(launch(tmp_path, ""), argv=("/bin/false",)))
        await executor.started(attempt, RUN_ID)
        exit_ = await executor.wait(attempt, RUN_ID)
        assert exit_ is not None
        assert exit_.code == 1


async def test_output_goes_straight_into_the_log(executor, attempt, tmp_path):
    """Standard output and error land in run.log in order, without passing through the server."""
    await executor.start(attempt, launch(tmp_path, "echo out; echo err >&2; echo more"))
    await executor.started(attempt, RUN_ID)
    await executor.wait(attempt, RUN_ID)
    assert (tmp_path / "run.log").read_text() == "out\nerr\nmore\n"


async def test_a_program_that_cannot_be_started_is_an_exit_not_a_silence(executor, attempt, tmp_path):
    """A missing program ends the attempt with 127, the shell's own code for it."""
    missing = msgspec.structs.replace(launch(tmp_path, ""), argv=("no-such-program-anywhere",))
    await executor.start(attempt, missing)
    started = await executor.started(attempt, RUN_ID)
    assert started is not None
    assert started.program is None
    exit_ = await executor.wait(attempt, RUN_ID)
    assert exit_ is not None
    assert exit_.code == 127


async def test_an_abandoned_attempt_never_begins(executor, attempt, tmp_path):
    """A server that recovers takes an attempt that has not begun; a shim that comes late starts nothing."""
    assert await executor.abandon(attempt, RUN_ID)
    await executor.start(attempt, launch(tmp_path, "echo started"))
    assert await executor.started(attempt, RUN_ID) is None
    child = executor._children[attempt.folder]
    assert child.wait(60) == 0
    assert not (tmp_path / "run.log").exists()


async def test_an_attempt_that_does_not_begin_is_given_up_by_a_deadline(attempt, tmp_path):
    """Nothing appears within the deadline: the attempt is taken, so that it cannot begin later either."""
    executor = LocalExecutor(start_deadline_seconds=0.2)
    attempt.folder.mkdir(parents=True)
    assert await executor.started(attempt, RUN_ID) is None
    await executor.start(attempt, launch(tmp_path, "echo started"))
    assert executor._children[attempt.folder].wait(60) == 0
    assert not (tmp_path / "run.log").exists()


async def test_an_attempt_that_began_cannot_be_abandoned(executor, attempt, tmp_path):
    """Once the shim has claimed the attempt, recovery must adopt it."""
    await executor.start(attempt, launch(tmp_path, "sleep 600"))
    await executor.started(attempt, RUN_ID)
    assert not await executor.abandon(attempt, RUN_ID)
    await executor.stop(attempt, RUN_ID, grace_seconds=5)
    await executor.wait(attempt, RUN_ID)


async def test_stopping_asks_first(executor, attempt, tmp_path):
    """A program that handles SIGTERM gets to finish what it is doing."""
    script = "trap 'echo saving; sleep 0.3; echo saved; exit 3' TERM; echo ready; while :; do sleep 0.05; done"
    await executor.start(attempt, launch(tmp_path, script))
    await executor.started(attempt, RUN_ID)
    await anyio.to_thread.run_sync(wait_for_text, tmp_path / "run.log", "ready")
    await executor.stop(attempt, RUN_ID, grace_seconds=20)
    exit_ = await executor.wait(attempt, RUN_ID)
    assert exit_ is not None
    assert exit_.code == 3
    assert "saved" in (tmp_path / "run.log").read_text()


async def test_stopping_kills_what_will_not_go(executor, attempt, tmp_path):
    """A program that ignores SIGTERM, with a grandchild that left its session: all dead after the grace period.

    On an idle machine that is within 3 seconds more: the bar is there to notice who waits for the grandchild to end.
    """
    script = "trap '' TERM; setsid sleep 300 & echo grandchild $!; while :; do sleep 0.05; done"
    await executor.start(attempt, launch(tmp_path, script))
    await executor.started(attempt, RUN_ID)
    text = await anyio.to_thread.run_sync(wait_for_text, tmp_path / "run.log", "grandchild")
    grandchild = int(text.split("grandchild ")[1])
    began = time.monotonic()
    await executor.stop(attempt, RUN_ID, grace_seconds=0.5)
    exit_ = await executor.wait(attempt, RUN_ID)
    assert time.monotonic() - began < 0.5 + 30
    assert exit_ is not None
    assert exit_.signal == signal.SIGKILL
    await anyio.to_thread.run_sync(wait_until_gone, grandchild)


async def test_what_a_program_leaves_behind_is_cleared(executor, attempt, tmp_path):
    """A daemon that outlives its run would hold the GPU: it is stopped when the run ends."""
    await executor.start(attempt, launch(tmp_path, "setsid sleep 300 & echo left $!; exit 0"))
    await executor.started(attempt, RUN_ID)
    exit_ = await executor.wait(attempt, RUN_ID)
    assert exit_ is not None
    assert exit_.code == 0
    left = int((tmp_path / "run.log").read_text().split("left ")[1])
    assert identify(left) is None


async def test_without_its_shim_an_end_is_unknown(executor, attempt, tmp_path):
    """When the shim is killed the program may go on, but how it ends can never be told."""
    await executor.start(attempt, launch(tmp_path, "while [ ! -e go ]; do sleep 0.02; done; exit 0"))
    await executor.started(attempt, RUN_ID)
    process = msgspec.json.decode(attempt.process.read_bytes())
    os.kill(process["shim"]["pid"], signal.SIGKILL)
    (tmp_path / "go").touch()
    assert await executor.wait(attempt, RUN_ID) is None
    assert identify(process["program"]["pid"]) is None


async def test_descendants_of_a_dead_shim_are_found_by_their_mark(executor, attempt, tmp_path):
    """Without the shim, a stop still reaches a grandchild in a session of its own."""
    mark = f"{RUN_ID}_whose_shim_is_dead"
    script = "setsid sleep 300 & echo grandchild $!; sleep 300"
    await executor.start(attempt, launch(tmp_path, script, mark))
    await executor.started(attempt, mark)
    text = await anyio.to_thread.run_sync(wait_for_text, tmp_path / "run.log", "grandchild")
    process = msgspec.json.decode(attempt.process.read_bytes())
    os.kill(process["shim"]["pid"], signal.SIGKILL)
    await executor.stop(attempt, mark, grace_seconds=5)
    assert await executor.wait(attempt, mark) is None
    await anyio.to_thread.run_sync(wait_until_gone, int(text.split("grandchild ")[1]))
    await anyio.to_thread.run_sync(wait_until_gone, process["program"]["pid"])


@pytest.mark.parametrize("forged", ["start_ticks", "boot_id"])
def test_a_forged_identity_is_never_signalled(forged):
    """The same pid with another start time or boot id is another process."""
    bystander = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    try:
        true = identify(bystander.pid)
        assert true is not None
        false = {"start_ticks": true.start_ticks + 1} if forged == "start_ticks" else {"boot_id": "another"}
        assert not signal_group(msgspec.structs.replace(true, **false), signal.SIGKILL)
        assert is_alive(true)
        assert signal_group(true, signal.SIGKILL)
        assert bystander.wait(60) == -signal.SIGKILL
    finally:
        bystander.kill()
        bystander.wait()


@pytest.mark.parametrize("pid", [2**22 + 1, 2**40, -5, 0])
def test_a_pid_that_cannot_be_is_gone(pid):
    """Whatever number stands in process.json, nothing is raised and nobody is signalled."""
    assert not signal_group(ProcessIdentity(pid=pid, start_ticks=1, boot_id="x"), signal.SIGKILL)


def test_a_process_that_becomes_another_program_is_found(tmp_path):
    """For a moment it shows no environment; nothing of a run is taken for gone because of that."""
    mark, script = f"becomes-{os.getpid()}", tmp_path / "again.sh"
    script.write_text('exec sh "$0"\n')
    process = subprocess.Popen(["sh", str(script)], env={**os.environ, "TUNESMITH_TEST_MARK": mark})
    try:
        found = [marked("TUNESMITH_TEST_MARK", mark) for _ in range(300)]
    finally:
        process.kill()
        process.wait()
    assert [one.pid for each in found for one in each] == [process.pid] * len(found)


def test_only_exactly_marked_processes_are_found():
    """A run id that is the beginning of another one does not match it."""
    bystander = subprocess.Popen(["sleep", "600"], env={"TUNESMITH_RUN_ID": f"{RUN_ID}_longer"})
    try:
        assert marked("TUNESMITH_RUN_ID", RUN_ID) == []
        assert marked("TUNESMITH_RUN_ID", f"{RUN_ID}_longer") == [identify(bystander.pid)]
    finally:
        bystander.kill()
        bystander.wait()
    assert marked("TUNESMITH_RUN_ID", f"{RUN_ID}_longer") == []


LEAVES_A_DAEMON = """
trap 'echo asked >>asked; exit' TERM
echo daemon $$ >>daemons
while :; do sleep 0.05; done
"""


@pytest.mark.parametrize("deaf", [False, True])
async def test_nothing_of_an_attempt_outlives_an_unknown_end(executor, attempt, tmp_path, deaf):
    """The shim is killed and the program ends: a child in a session of its own is asked, then killed, before we say so."""
    executor._grace = 0.5 if deaf else 60
    mark = f"{RUN_ID}_unknown_{deaf}"
    (tmp_path / "daemon").write_text(
        "trap '' TERM\n" * deaf + LEAVES_A_DAEMON.replace("trap '", "# '" if deaf else "trap '")
    )
    script = "setsid bash daemon & while [ ! -e go ]; do sleep 0.02; done"
    await executor.start(attempt, launch(tmp_path, script, mark))
    await executor.started(attempt, mark)
    text = await anyio.to_thread.run_sync(wait_for_text, tmp_path / "daemons", "daemon")
    os.kill(msgspec.json.decode(attempt.process.read_bytes())["shim"]["pid"], signal.SIGKILL)
    (tmp_path / "go").touch()
    assert await executor.wait(attempt, mark) is None
    assert identify(int(text.split()[1])) is None
    assert (tmp_path / "asked").exists() == (not deaf)


async def test_the_next_attempt_waits_for_what_an_earlier_one_left(executor, tmp_path):
    """Whatever still carries the mark of the run is gone before the next attempt starts: never two at once."""
    mark = f"{RUN_ID}_twice"
    left = await anyio.open_process(["sleep", "600"], env={"TUNESMITH_RUN_ID": mark}, start_new_session=True)
    second = AttemptPaths(tmp_path / "attempts" / "2")
    await executor.start(second, launch(tmp_path, "true", mark))
    assert identify(left.pid) is None
    await left.aclose()
    await executor.started(second, mark)
    assert (await executor.wait(second, mark)).code == 0


@pytest.mark.parametrize("deletes", ["folder", "process.json"])
async def test_a_program_that_deletes_its_records_is_waited_for(attempt, tmp_path, deletes):
    """At once, before anybody has looked: it is not taken for one that never began, and its end is unknown."""
    executor = LocalExecutor(start_deadline_seconds=60 if deletes == "folder" else 2)
    mark = f"{RUN_ID}_deletes_{deletes}"
    what = "attempts" if deletes == "folder" else "attempts/1/process.json"
    script = (
        f"rm -rf {what}; sleep 0.3; rm -rf {what}; touch deleted; while [ ! -e go ]; do sleep 0.02; done; touch done"
    )
    await executor.start(attempt, launch(tmp_path, script, mark))
    await anyio.to_thread.run_sync(wait_for_file, tmp_path / "deleted")
    started = await executor.started(attempt, mark)
    assert started is not None
    assert started.program in marked("TUNESMITH_RUN_ID", mark)
    assert not await LocalExecutor(start_deadline_seconds=60).abandon(attempt, mark)
    (tmp_path / "go").touch()
    exit_ = await LocalExecutor(start_deadline_seconds=60).wait(attempt, mark)
    assert (tmp_path / "done").exists()
    assert exit_ is None if deletes == "folder" else exit_.code == 0
    executor._children[attempt.folder].wait(60)


@pytest.mark.parametrize("kind", ["a link", "a FIFO", "a folder"])
async def test_a_log_that_is_something_else_is_not_written_to(executor, attempt, tmp_path, kind):
    """What an earlier attempt left in the place of its log: the next one does not start, and nobody else's file grows."""
    outside = tmp_path / "outside"
    outside.touch()
    log = tmp_path / "run.log"
    if kind == "a link":
        log.symlink_to(outside)
    elif kind == "a FIFO":
        os.mkfifo(log)
    else:
        log.mkdir()
    await executor.start(attempt, launch(tmp_path, "echo out"))
    await executor.started(attempt, RUN_ID)
    assert (await executor.wait(attempt, RUN_ID)).code == 127
    assert outside.read_bytes() == b""


@pytest.mark.parametrize("kind", ["a FIFO", "a link", "a folder"])
async def test_an_exit_that_is_no_file_is_no_exit(executor, attempt, tmp_path, kind):
    """A program that puts something else in the place of exit.json is not waited for, nor is what it says believed."""
    lie = tmp_path / "lie.json"
    lie.write_text('{"code": 0}')
    make = {"a FIFO": "mkfifo", "a link": f"ln -s {lie}", "a folder": "mkdir"}[kind]
    await executor.start(attempt, launch(tmp_path, f"{make} attempts/1/exit.json; exit 9"))
    await executor.started(attempt, RUN_ID)
    exit_ = await executor.wait(attempt, RUN_ID)
    assert exit_ is None if kind == "a folder" else exit_.code == 9
    assert lie.read_text() == '{"code": 0}'
