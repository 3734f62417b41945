"""One state folder, one server; whoever comes second is told by whom, quickly, and harms nothing."""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest

from tunesmith.errors import StateFolderUnusable
from tunesmith.server.state_lock import StateLock, holder

_HOLDS = """
import sys
from pathlib import Path
from tunesmith.server.state_lock import StateLock
lock = StateLock.acquire(Path(sys.argv[1]), None)
lock.set_address("http://127.0.0.1:8123")
print("held", flush=True)
sys.stdin.read()
"""

_TRIES = """
import os, sys, time
from pathlib import Path
from tunesmith.errors import StateFolderUnusable
from tunesmith.server.state_lock import StateLock
if len(sys.argv) > 2:
    os.setgid(int(sys.argv[2])); os.setuid(int(sys.argv[2]))
began = time.monotonic()
try:
    StateLock.acquire(Path(sys.argv[1]), None)
except StateFolderUnusable as error:
    print(error)
    print(time.monotonic() - began, file=sys.stderr)
    sys.exit(3)
"""


@pytest.fixture
def lock_path(tmp_path) -> Path:
    return tmp_path / "state" / "lock"


@pytest.fixture
def server(lock_path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock."""
    process = subprocess.Popen(
        [sys.executable, "-c", _HOLDS, lock_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def _try(path: Path, *user: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", _TRIES, str(path), *user], capture_output=True, text=True, check=False, timeout=60
    )


def test_a_second_server_is_refused_with_pid_and_address(lock_path, server):
    """Soon, and the first keeps what it has. It has half a second of patience, and does not wait for the lock."""
    second = _try(lock_path)
    assert second.returncode == 3
    assert f"pid {server.pid} at http://127.0.0.1:8123" in second.stdout
    assert str(lock_path.parent) in second.stdout
    assert "stop that server" in second.stdout
    found = holder(lock_path)
    assert found is not None
    assert (found.pid, found.address) == (server.pid, "http://127.0.0.1:8123")
    assert found.started_at is not None


def test_a_killed_server_leaves_nothing_locked(lock_path, server):
    """The kernel lets go; the stale content of the file is not believed."""
    server.send_signal(signal.SIGKILL)
    server.wait(60)
    assert holder(lock_path) is None
    with StateLock.acquire(lock_path):
        assert holder(lock_path) is not None


def test_a_released_lock_is_free(lock_path):
    """And so is a folder that never had one."""
    assert holder(lock_path) is None
    lock = StateLock.acquire(lock_path, "http://127.0.0.1:1")
    found = holder(lock_path)
    assert found is not None
    assert (found.pid, found.address) == (os.getpid(), "http://127.0.0.1:1")
    lock.release()
    lock.release()
    assert holder(lock_path) is None


def test_programs_that_the_server_starts_do_not_keep_the_lock(lock_path):
    """A training that outlives the server must not keep the next one out."""
    lock = StateLock.acquire(lock_path)
    child = subprocess.Popen(["sleep", "60"], close_fds=False)
    try:
        lock.release()
        StateLock.acquire(lock_path).release()
    finally:
        child.kill()
        child.wait()


def test_looking_never_keeps_a_server_out(lock_path):
    """`holder` takes the lock for a moment; a server that starts just then waits that moment."""
    StateLock.acquire(lock_path).release()
    context = multiprocessing.get_context("spawn")
    looking = context.Event()
    looker = context.Process(target=_look_without_end, args=(lock_path, looking))
    looker.start()
    try:
        assert looking.wait(60)
        for _ in range(50):
            StateLock.acquire(lock_path).release()
    finally:
        looker.kill()
        looker.join()


def _look_without_end(path: Path, looking: Event) -> None:
    looking.set()
    while True:
        holder(path)


def test_a_lock_file_that_was_deleted_lets_nobody_in(lock_path, server):
    """The folder itself is locked; a second server is refused soon, and makes no new file."""
    lock_path.unlink()
    second = _try(lock_path)
    assert second.returncode == 3
    assert "in use by another server" in second.stdout
    assert float(second.stderr) < 10  # half a second on a machine that is not busy
    assert not lock_path.exists()
    assert holder(lock_path) is not None
    server.send_signal(signal.SIGKILL)
    server.wait(60)
    assert holder(lock_path) is None
    assert _try(lock_path).returncode == 0


def test_a_lock_file_that_was_replaced_lets_nobody_in(lock_path, server):
    """As an editor or a restored backup does it."""
    lock_path.unlink()
    lock_path.write_text("{}")
    assert _try(lock_path).returncode == 3


def test_a_server_of_the_version_that_locked_only_the_file_keeps_others_out(lock_path):
    """An upgrade while the old one still runs must not have two on one folder."""
    lock_path.parent.mkdir()
    with lock_path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write('{"pid":77}')
        file.flush()
        refused = _try(lock_path)
        found = holder(lock_path)
    assert refused.returncode == 3
    assert "pid 77" in refused.stdout
    assert found is not None
    assert found.pid == 77
    assert _try(lock_path).returncode == 0


def test_a_half_written_lock_file_still_refuses(lock_path):
    """Who holds it may be unreadable; that it is held is not."""
    lock = StateLock.acquire(lock_path)
    lock_path.write_bytes(b'{"pid":')
    with pytest.raises(StateFolderUnusable, match="pid unknown"):
        StateLock.acquire(lock_path)
    lock.release()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
class TestAsAnotherUser:
    """Permission checks, by a process that is not root."""

    @pytest.fixture
    def folder(self) -> Iterator[Path]:
        # Not tmp_path: another user cannot even enter that.
        with tempfile.TemporaryDirectory() as name:
            Path(name).chmod(0o755)
            yield Path(name)

    def test_a_foreign_folder_is_refused(self, folder):
        """Even where it could be written: the owner's server could not go on with our files."""
        folder.chmod(0o777)
        outcome = _try(folder / "lock", "65534")
        assert outcome.returncode == 3, outcome.stderr
        assert "belongs to user 0, and this server runs as user 65534" in outcome.stdout
        assert list(folder.iterdir()) == []

    def test_a_read_only_folder_is_refused(self, folder):
        """With the reason and the mend."""
        os.chown(folder, 65534, 65534)
        folder.chmod(0o555)
        outcome = _try(folder / "lock", "65534")
        assert outcome.returncode == 3, outcome.stderr
        assert "read-only" in outcome.stdout
        assert "--state-dir" in outcome.stdout

    def test_a_folder_that_cannot_be_made_is_refused(self, folder):
        """Its parent belongs to somebody else."""
        outcome = _try(folder / "below" / "lock", "65534")
        assert outcome.returncode == 3, outcome.stderr
        assert "cannot be written" in outcome.stdout

    def test_root_may_use_a_folder_that_was_mounted_from_a_user(self, folder):
        """As containers do."""
        os.chown(folder, 65534, 65534)
        StateLock.acquire(folder / "lock").release()


def test_a_file_where_the_folder_should_be_is_refused(tmp_path):
    """Not a traceback."""
    (tmp_path / "state").write_text("a file")
    with pytest.raises(StateFolderUnusable, match="state"):
        StateLock.acquire(tmp_path / "state" / "lock")
