"""How many rows go into which file, and writing those files: durable, and under their names only when whole."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from tunesmith_workers.process.faults import BadConfig

NAMES = ("train.json", "val.json", "test.json")
_BESIDE = ".unfinished"
_ROWS_AT_ONCE = 512
"""Few enough that what is hashed is still at hand when it is written."""


class WrittenFile(msgspec.Struct, frozen=True, kw_only=True):
    """A finished file."""

    sha256: str
    rows: int
    bytes: int


def exact_counts(total: int, ratios: Sequence[float]) -> list[int]:
    """``total`` dealt by ``ratios`` (which sum to 1) with the largest remainders rounded up; earlier ones first on a tie."""
    shares = [total * ratio for ratio in ratios]
    counts = [int(share + 1e-9) for share in shares]
    by_remainder = sorted(range(len(ratios)), key=lambda place: (counts[place] - shares[place], place))
    for place in by_remainder[: total - sum(counts)]:
        counts[place] += 1
    return counts


class OutputFolder:
    """The folder of a result: one writer at a time, and the old files stay until the new ones are whole."""

    def __init__(self, folder: Path, *, own: Iterable[str]) -> None:
        """``own`` are the names that this program may replace."""
        self.folder = folder
        self.unfinished = folder / _BESIDE
        self.written: dict[str, WrittenFile] = {}
        self._own = frozenset(own)
        self._lock: int | None = None
        self._is_new = False

    def claim(self, *, overwrite: bool, is_earlier_result: bool) -> None:
        """Make the folder and take it.

        Raises:
            BadConfig: it holds files of somebody else, or another process writes to it.
        """
        self._is_new = not self.folder.exists()
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BadConfig(
                f"another process is writing to {self.folder}", where="output_dir", mend="wait for it, or name another"
            ) from None
        found = sorted(entry.name for entry in self.folder.iterdir() if entry.name != _BESIDE)
        if found and not overwrite and not is_earlier_result:
            raise BadConfig(
                f"{self.folder} is not empty (it holds {', '.join(found[:5])}) and holds no earlier result",
                where="output_dir",
                mend="name another folder, or set overwrite to true: files of the same names are then replaced",
            )
        shutil.rmtree(self.unfinished, ignore_errors=True)  # of a process that was killed
        self.unfinished.mkdir()

    def file(self, name: str) -> LineFile:
        return LineFile(self, name)

    def publish(self, last: str) -> None:
        """Give every file its name; ``last`` goes first and comes back last, because it vouches for the others."""
        (self.folder / last).unlink(missing_ok=True)
        names = sorted(entry.name for entry in self.unfinished.iterdir())
        for stale in self._own.difference(names):
            (self.folder / stale).unlink(missing_ok=True)
        for name in [*(name for name in names if name != last), last]:
            (self.unfinished / name).replace(self.folder / name)
        os.fsync(self._descriptor)

    def leave(self) -> None:
        if self._lock is not None:
            shutil.rmtree(self.unfinished, ignore_errors=True)
            if self._is_new:
                with contextlib.suppress(OSError):  # there is a result in it
                    self.folder.rmdir()
            os.close(self._lock)
            self._lock = None

    @property
    def _descriptor(self) -> int:
        assert self._lock is not None, "the folder was not claimed"
        return self._lock


class LineFile:
    """A file under way, with its hash."""

    def __init__(self, output: OutputFolder, name: str) -> None:
        self._output = output
        self._name = name
        self._file = (output.unfinished / name).open("wb", buffering=0)
        self._sha256 = hashlib.sha256()
        self._rows = self._bytes = 0

    def write_rows(self, rows: Sequence[bytes]) -> None:
        """Lines with their ends."""
        self._rows += len(rows)
        for start in range(0, len(rows), _ROWS_AT_ONCE):
            self.write(b"".join(rows[start : start + _ROWS_AT_ONCE]))

    def write(self, content: bytes) -> None:
        self._sha256.update(content)
        self._bytes += len(content)
        view = memoryview(content)
        while view:
            view = view[self._file.write(view) :]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._file:
            if error is None:
                os.fsync(self._file.fileno())
        self._output.written[self._name] = WrittenFile(
            sha256=self._sha256.hexdigest(), rows=self._rows, bytes=self._bytes
        )


def deal(rows: Iterable[list[bytes]], counts: Mapping[str, int], output: OutputFolder) -> None:
    """Write the first rows to the first file, the next ones to the next."""
    some: list[bytes] = []
    source = iter(rows)
    for name, count in counts.items():
        missing = count
        with output.file(name) as file:
            while missing:
                if not some:
                    some = next(source)
                taken, some = some[:missing], some[missing:]
                file.write_rows(taken)
                missing -= len(taken)
