"""Reads a data file as a stream: JSON Lines or one JSON array, as batches of undecoded rows with their line numbers.

Memory stays flat whatever the file holds: a row that is too long is reported and never held. What is wrong with a file
as a whole is said at once; what is wrong with a row is its reader's to find.
"""

from __future__ import annotations

import io
import json
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import msgspec

from tunesmith_workers.data.arrays import array_items
from tunesmith_workers.process.faults import BadRows

LONGEST_ROW = 8 * 1024 * 1024
"""Bytes of one row from which on it is a fault, unless a caller wants another limit."""
_BLOCK = 256 * 1024
"""What is read at once: its rows, decoded, fit into a processor's second cache."""
_LARGE = 1024 * 1024 * 1024
_FORGOTTEN_AT_ONCE = 64 * 1024 * 1024
_BOM = b"\xef\xbb\xbf"
_WIDE = (
    (b"\xff\xfe\x00\x00", "UTF-32"),
    (b"\x00\x00\xfe\xff", "UTF-32"),
    (b"\xff\xfe", "UTF-16"),
    (b"\xfe\xff", "UTF-16"),
)
_ARRAY_MEND = "fix the array, or write one object on each line"
_CONVERT = "`tunesmith data process FILE FOLDER` makes JSON Lines of it"
_UNPACK = "unpack it, and name the file that is inside"
_FORMATS = (
    (b"\x1f\x8b", "gzip", _CONVERT),
    (b"PAR1", "Parquet", _CONVERT),
    (b"PK\x03\x04", "zip", _UNPACK),
    (b"\x28\xb5\x2f\xfd", "zstd", _UNPACK),
    (b"\xfd7zXZ", "xz", _UNPACK),
    (b"\x89PNG", "PNG", "name a file of rows"),
    (b"%PDF-", "PDF", "name a file of rows"),
)


_SUFFIXES = (".jsonl", ".ndjson", ".json")


class Batch(msgspec.Struct, frozen=True, gc=False):
    """Some rows as bytes, with the line that each begins on."""

    rows: list[bytes]
    """Those of JSON Lines have their ends, also the last one of a file that lacks it."""
    lines: Sequence[int]
    is_utf8: bool
    may_be_blank: bool
    """Whether a blank row is an empty line, which is no fault."""


class Unreadable(msgspec.Struct, frozen=True, kw_only=True):
    """A place in the file where no row could be made out."""

    line: int
    message: str
    kind: str
    bytes: int = 0
    breaks_array: bool = False
    """What follows cannot be told apart into rows, so the file has no end that can be trusted."""
    mend: str | None = None
    """How to fix what ends a file."""


class NotData(Exception):
    """What the whole file is instead of data: "is UTF-16, not UTF-8"."""

    def __init__(self, message: str, mend: str) -> None:
        super().__init__(message)
        self.message = message
        self.mend = mend


class DataFile:
    """An open data file."""

    def __init__(self, file: BinaryIO, *, longest_row: int = LONGEST_ROW, gives_way: bool = False) -> None:
        """``gives_way`` lets go of a large file's place in the system's cache, for what is written from it.

        Raises:
            NotData: the first bytes say what it is instead.
        """
        self._file = file
        self._longest_row = longest_row
        self._gives_way = gives_way
        self.size = os.fstat(file.fileno()).st_size
        head = file.read(_BLOCK)
        _refuse_other_formats(head)
        self._head = head.removeprefix(_BOM)
        self._bom = len(head) - len(self._head)
        first = self._head.lstrip()[:1]
        self.is_array = first == b"["
        if first == b"{" and _is_spread(self._head):
            raise NotData(
                "is one JSON object over several lines; rows must be one on each line, or in a JSON array",
                "`jq -c . FILE` writes each on one line",
            )

    @property
    def format(self) -> str:
        return "json" if self.is_array else "jsonl"

    def parts(self, heard: Callable[[bytes], object] = lambda _: None) -> Iterator[Batch | Unreadable]:
        """Everything in it, once. ``heard`` is given every block as it is read: the file's very bytes."""
        split = _array if self.is_array else _lines
        return split(self._blocks(heard), self._longest_row)

    def _blocks(self, heard: Callable[[bytes], object]) -> Iterator[bytes]:
        if self._bom:
            heard(_BOM)
        block, self._head = self._head, b""
        begin = end = 0
        while block:
            heard(block)
            yield block
            end += len(block)
            if self._gives_way and self.size >= _LARGE and end - begin >= _FORGOTTEN_AT_ONCE:
                os.posix_fadvise(self._file.fileno(), begin, end - begin, os.POSIX_FADV_DONTNEED)
                begin = end
            block = self._file.read(_BLOCK)


def data_files(place: Path) -> list[Path]:
    """The data files that a path stands for: itself, or what lies directly in a folder and is named like rows, by name.

    Raises:
        BadRows: the folder has none, or cannot be read.
    """
    if not place.is_dir():
        return [place]
    try:
        named = [path for path in place.iterdir() if path.suffix.lower() in _SUFFIXES and not path.name.startswith(".")]
    except OSError as error:
        raise BadRows(f"cannot be read: {error.strerror}", where=str(place), mend="check its permissions") from error
    found = sorted((path for path in named if path.is_file()), key=lambda path: path.name)
    if not found:
        raise BadRows(
            "the folder holds no data file", where=str(place), mend=f"put a file into it named {' or '.join(_SUFFIXES)}"
        )
    return found


def open_regular(path: Path) -> BinaryIO:
    """Open for reading without ever waiting.

    Raises:
        BadRows: there is no such file, it is no regular file, or it may not be read.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        raise BadRows("the data file does not exist", where=str(path), mend="check the path") from None
    except OSError as error:
        raise BadRows(f"cannot be read: {error.strerror}", where=str(path), mend="check the path") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise BadRows("is not a regular file", where=str(path), mend="name a file")
    return os.fdopen(descriptor, "rb", buffering=0)


def as_lines(text: bytes) -> list[bytes]:
    """Lines with their ends; many times as fast as splitting the text, which looks at every byte on its own."""
    return io.BytesIO(text).readlines()


def is_utf8(text: bytes) -> bool:
    if text.isascii():
        return True
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def too_long(line: int, size: int, limit: int) -> Unreadable:
    return Unreadable(
        line=line,
        message=f"is longer than {limit} bytes; rows that long are not read",
        kind="too_long",
        bytes=size,
    )


def _lines(blocks: Iterator[bytes], limit: int) -> Iterator[Batch | Unreadable]:
    number = 1
    carried: list[bytes] = []
    size = 0
    for block in blocks:
        rows = as_lines(block)
        rest = b"" if block.endswith(b"\n") else rows.pop()
        if not rows:
            size += len(rest)
            carried = [*carried, rest] if size <= limit else []
            continue
        size += len(rows[0]) - 1
        if size > limit:
            yield too_long(number, size, limit)
            del rows[0]
            number += 1
        else:
            rows[0] = b"".join([*carried, rows[0]])
        carried = [rest]
        size = len(rest)
        yield from _batches(rows, number, limit)
        number += len(rows)
    if size > limit:
        yield too_long(number, size, limit)
    elif size:
        yield from _batches([b"".join([*carried, b"\n"])], number, limit)


def _batches(rows: list[bytes], number: int, limit: int) -> Iterator[Batch | Unreadable]:
    """One batch, or several around rows that are too long."""
    text = b"".join(rows)
    begin = 0
    if len(text) > limit:
        for place in [place for place, row in enumerate(rows) if len(row) > limit + 1]:
            if begin < place:
                yield _batch(rows[begin:place], number + begin)
            yield too_long(number + place, len(rows[place]) - 1, limit)
            begin = place + 1
    if begin < len(rows):
        yield _batch(rows[begin:], number + begin) if begin else _batch(rows, number, text)


def _batch(rows: list[bytes], number: int, text: bytes | None = None) -> Batch:
    lines = range(number, number + len(rows))
    return Batch(rows, lines, is_utf8(b"".join(rows) if text is None else text), may_be_blank=True)


def _array(blocks: Iterator[bytes], limit: int) -> Iterator[Batch | Unreadable]:
    rows: list[bytes] = []
    lines: list[int] = []
    size = 0
    for found in array_items(blocks, limit):
        if found.text is None:
            if rows:
                yield _array_batch(rows, lines)
                rows, lines, size = [], [], 0
            if found.fault:
                yield Unreadable(
                    line=found.line, message=found.fault, kind="not_json", breaks_array=True, mend=_ARRAY_MEND
                )
            else:
                yield too_long(found.line, found.bytes, limit)
            continue
        rows.append(found.text)
        lines.append(found.line)
        size += found.bytes
        if size >= _BLOCK:
            yield _array_batch(rows, lines)
            rows, lines, size = [], [], 0
    if rows:
        yield _array_batch(rows, lines)


def _array_batch(rows: list[bytes], lines: list[int]) -> Batch:
    return Batch(rows, lines, all(map(is_utf8, rows)), may_be_blank=False)


def _is_spread(head: bytes) -> bool:
    """Whether the first object goes on over the end of its line. Its first line alone is no JSON then."""
    first, end, _ = head.lstrip().partition(b"\n")
    if not end or first.rstrip().endswith(b"}"):
        return False
    if first.strip() == b"{":
        return True
    try:
        text = head.decode(errors="replace").lstrip()
        return "\n" in text[: json.JSONDecoder().raw_decode(text)[1]]
    except (ValueError, RecursionError):
        return False


def _refuse_other_formats(head: bytes) -> None:
    for sign, name, mend in _FORMATS:
        if head.startswith(sign):
            raise NotData(f"is a {name} file, not JSON", mend)
    for sign, name in _WIDE:
        if head.startswith(sign):
            raise NotData(f"is {name}, not UTF-8", "save the file as UTF-8")
    start = head[:8]
    if b"\x00" in start:
        # The first signs of JSON are ASCII, so in UTF-16 every second byte is zero and no other.
        halves = {(any(start[::2]), any(start[1::2])), (all(start[::2]), all(start[1::2]))}
        wide = halves in ({(True, False)}, {(False, True)})
        name = "looks like UTF-16 without a byte order mark" if wide else "holds zero bytes"
        raise NotData(f"{name}, not UTF-8 text", "save the file as UTF-8")
