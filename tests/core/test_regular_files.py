"""Files in folders that a training writes may be anything: reading one never waits and never leaves the place."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path

import pytest

from tunesmith.files import read_regular


def test_an_ordinary_file_is_read_whole(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_bytes(b"12345")

    assert read_regular(tmp_path / "manifest.json", limit=5) == b"12345"


def test_a_file_beyond_the_limit_is_refused_and_not_read(tmp_path: Path) -> None:
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(1 << 40)

    with pytest.raises(OSError, match="longer than 5 bytes") as refused:
        read_regular(tmp_path / "huge", limit=5)

    assert refused.value.errno == errno.EOVERFLOW


def test_a_fifo_is_refused_at_once_where_an_ordinary_open_would_wait_for_ever(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")

    with pytest.raises(OSError, match="not a regular file"):
        read_regular(tmp_path / "fifo", limit=5)


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_bytes(b"12345")
    (tmp_path / "link").symlink_to("elsewhere")

    with pytest.raises(OSError) as refused:  # noqa: PT011  # the message is the system's
        read_regular(tmp_path / "link", limit=5)

    assert refused.value.errno == errno.ELOOP


def test_sockets_devices_and_folders_are_refused_without_leaving_descriptors_open(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket"))
        before = set(Path("/proc/self/fd").iterdir())

        for path in (tmp_path / "socket", Path("/dev/zero"), tmp_path):
            with pytest.raises(OSError):  # noqa: PT011  # any will do: what counts is that it is refused
                read_regular(path, limit=5)

        assert set(Path("/proc/self/fd").iterdir()) == before
