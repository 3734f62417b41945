"""A request to stop is heard at any time, and what leaves nothing behind leaves at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from test_resume import Training
from training_parts import Told

NATIVE = """
import hashlib, pathlib, sys
from tunesmith_workers.process.stopping import StopRequest
stop, scratch = StopRequest().listen(), pathlib.Path(sys.argv[1])
with stop.removing(scratch):
    print("ready", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"a", b"b", 2**31 - 1)
"""


def leaves_nothing(program: str, scratch: Path) -> None:
    """Stopped while it writes ``scratch``: what was being written is removed, and the exit is that of a stop."""
    scratch.mkdir()
    (scratch / "half").write_bytes(b"written")
    command = [sys.executable, "-c", program, str(scratch)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=100)
    assert process.returncode == 128 + signal.SIGTERM
    assert Told(output).said("there was nothing to keep yet")
    assert not scratch.exists()


def test_one_operation_of_minutes_does_not_keep_a_process_from_leaving(tmp_path):
    """Python hears a signal only after it. What was being written is removed, and the exit is that of a stop."""
    leaves_nothing(NATIVE, tmp_path / "scratch")


HEARD = """
import pathlib, sys, time
from tunesmith_workers.process.stopping import StopRequest
stop, scratch = StopRequest().listen(), pathlib.Path(sys.argv[1])
with stop.removing(scratch):
    print("ready", flush=True)
    time.sleep(100)
"""


def test_what_was_being_written_is_removed_when_the_request_is_heard(tmp_path):
    """The handler ends the process in the middle of the writing: the exit is that of a stop, and nothing is left."""
    leaves_nothing(HEARD, tmp_path / "scratch")


WAITS = """
import time
from tunesmith_workers.process.faults import run_and_exit
from tunesmith_workers.process.stopping import StopRequest
def main():
    stop = StopRequest().listen()
    stop.wait_for_checkpoint()
    print("ready", flush=True)
    while not stop.asked:
        time.sleep(0.01)
    time.sleep(2.0)  # a step that is finished
    stop.leave("its checkpoint is complete")
run_and_exit(main)
"""


def test_who_has_something_to_keep_is_not_ended():
    """Once there are steps, the request is only noted."""
    with subprocess.Popen([sys.executable, "-c", WAITS], stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=100)
    assert process.returncode == 128 + signal.SIGTERM
    [said] = Told(output).of("message")
    assert said["text"] == "its checkpoint is complete"


ENDS = """
import atexit, sys, threading, time
from tunesmith_workers.process.faults import run_and_exit
class TakenApart:
    def __del__(self, sleep=time.sleep):
        sleep(600)
kept = TakenApart()
def in_a_thread():
    time.sleep(1.0)
    print("a thread has ended")
def main():
    atexit.register(print, "at exit")
    threading.Thread(target=in_a_thread).start()
    print("main has ended")
    {how}
run_and_exit(main)
"""


@pytest.mark.parametrize(
    ("how", "code"), [("return", 0), ("sys.exit(143)", 143), ("sys.exit('words')", 1), ("raise ValueError", 1)]
)
def test_a_process_is_not_taken_apart_at_its_end(how, code):
    """With torch that takes seconds. Threads and what is registered for the exit have their turn, and the code is true."""
    command = [sys.executable, "-c", ENDS.replace("{how}", how)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert ended.returncode == code, ended.stderr
    lines = [line for line in ended.stdout.splitlines() if not line.startswith("{")]
    assert lines == ["main has ended", "a thread has ended", "at exit"]


def test_output_that_nobody_takes_is_a_failure():
    """As without us: the interpreter's own exit code for it."""
    script = (
        "import sys\nfrom tunesmith_workers.process.faults import run_and_exit\nrun_and_exit(lambda: print('lost'))"
    )
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            [sys.executable, "-c", script], env=buffered, stdout=full, stderr=subprocess.PIPE, check=False, timeout=60
        )
    assert ended.returncode == 120, ended.stderr


@pytest.mark.training
@pytest.mark.timeout(400)
def test_a_cancel_in_the_preflight_leaves_nothing(tiny_model, tmp_path):
    """No step has been done: the process leaves at once with the exit of a stop, and without a checkpoint."""
    training = Training("lora", tmp_path / "cancelled", tiny_model, dropout=False, threads=2)
    while not any(event.get("part", "").startswith("a step on") for event in training.told.of("progress")):
        training.read_line()
    training.process.send_signal(signal.SIGTERM)
    assert training.code() == 128 + signal.SIGTERM, training.told.text
    assert training.told.said("there was nothing to keep yet")
    assert training.losses == {}
    assert list((training.folder / "checkpoints").glob("*")) == []
    parts = [event for event in training.told.of("progress") if event["phase"] == "preflight"]
    assert all(event["part"] and event["elapsed_seconds"] >= 0 for event in parts)
