"""Tables as rows: CSV from the standard library, Parquet through pyarrow; and gzip around CSV or JSON.

A table comes out as ``reader`` has JSON: batches of encoded rows with the numbers of their lines (of Parquet, of its rows).
Training does not read tables: ``process`` makes JSON Lines of them.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import os
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import PurePath
from typing import Any, BinaryIO, Protocol

import msgspec

from tunesmith_workers.data.reader import LONGEST_ROW, Batch, DataFile, NotData, Unreadable
from tunesmith_workers.data.shapes import SHAPE_KEYS
from tunesmith_workers.process.faults import PackageMissing

_GZIP, _PARQUET = b"\x1f\x8b", b"PAR1"
_DAMAGED = (EOFError, gzip.BadGzipFile, zlib.error)
_SEPARATORS = {".csv": ",", ".tsv": "\t"}
_BLOCK = 256 * 1024
_ROWS_AT_ONCE = 1000
_MOST_SHOWN, _LONGEST_SHOWN = 10, 60
_JSON_COLUMNS = frozenset({"messages", "conversations", "tools"})
_OPTIONAL_COLUMNS = frozenset({"instruction", "input", "system", "tools"})
"""Where an empty cell is none."""
_QUOTING = 'write a quote inside a cell twice, and that cell in quotes: "say ""hi"""'
Heard = Callable[[bytes], object]
_encode = msgspec.json.Encoder().encode


class Source(Protocol):
    """Rows of a file, as ``reader.DataFile`` gives them."""

    size: int
    """Bytes of the file."""

    @property
    def format(self) -> str: ...

    def parts(self, heard: Heard = ...) -> Iterator[Batch | Unreadable]: ...


def open_data(file: BinaryIO, name: str, *, longest_row: int = LONGEST_ROW, gives_way: bool = False) -> Source:
    """Rows of whatever the file is: JSON, CSV, either of them in gzip, or Parquet. ``name`` decides where bytes cannot.

    Raises:
        NotData: it is something else.
        PackageMissing: it is Parquet, and pyarrow is not installed.
    """
    head = _head(file)
    if head.startswith(_PARQUET):
        return _Parquet(file)
    if head.startswith(_GZIP):
        return _Gzip(file, name.removesuffix(".gz"), longest_row)
    separator = _separator(head, name)
    if separator is not None:
        return _Csv(file, separator, longest_row)
    return DataFile(file, longest_row=longest_row, gives_way=gives_way)


def _head(file: BinaryIO) -> bytes:
    head = file.read(_BLOCK)
    file.seek(0)
    return head


def _separator(head: bytes, name: str) -> str | None:
    """What stands between the cells of a CSV file; None where it is none."""
    line = head.removeprefix(codecs.BOM_UTF8).lstrip().partition(b"\n")[0].decode(errors="replace")
    if not line or line.startswith(("{", "[")) or "\x00" in line:
        return None
    for separator in (",", "\t", ";"):
        columns = _columns(line, separator)
        if len(columns) > 1 and SHAPE_KEYS.intersection(columns):
            return separator
    return _SEPARATORS.get(PurePath(name).suffix.lower())


def _columns(line: str, separator: str) -> list[str]:
    try:
        return [column.strip() for column in next(csv.reader([line], delimiter=separator), [])]
    except csv.Error:
        return []


class _Gzip:
    """What is inside a gzip file; its own bytes are what is heard."""

    def __init__(self, file: BinaryIO, name: str, longest_row: int) -> None:
        self._packed = _Remembered(file)
        unpacked: Any = gzip.GzipFile(fileobj=self._packed)
        try:
            separator = _separator(_head(unpacked), name)
            self._packed.take()  # read once more, from the start
            self._rows = (
                _Csv(unpacked, separator, longest_row) if separator else DataFile(unpacked, longest_row=longest_row)
            )
        except _DAMAGED as error:
            raise NotData(f"is a damaged gzip file: {error}", "compress it again") from None
        self.size = self._rows.size

    @property
    def format(self) -> str:
        return self._rows.format

    def parts(self, heard: Heard = lambda _: None) -> Iterator[Batch | Unreadable]:
        def told(_unpacked: bytes) -> None:
            for block in self._packed.take():
                heard(block)

        try:
            yield from self._rows.parts(told)
        except _DAMAGED as error:
            message = f"the gzip file is damaged: {error}"
            yield Unreadable(line=1, message=message, kind="not_data", breaks_array=True, mend="compress it again")
        told(b"")


class _Remembered:
    """A file, and the bytes that were read of it since somebody took them."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._blocks: list[bytes] = []

    def read(self, size: int = -1) -> bytes:
        self._blocks.append(self._file.read(size))
        return self._blocks[-1]

    def seek(self, place: int, whence: int = 0) -> int:
        return self._file.seek(place, whence)

    def fileno(self) -> int:
        return self._file.fileno()

    def take(self) -> list[bytes]:
        blocks, self._blocks = self._blocks, []
        return blocks


class _Csv:
    """The first row names the columns; every other becomes an object."""

    format = "csv"

    def __init__(self, file: BinaryIO, separator: str, longest_row: int) -> None:
        self.size = _size(file)
        self._file = file
        self._separator = separator
        self._longest_row = longest_row

    def parts(self, heard: Heard = lambda _: None) -> Iterator[Batch | Unreadable]:
        csv.field_size_limit(self._longest_row)
        table = csv.reader(self._lines(heard), delimiter=self._separator, strict=True)
        rows: list[bytes] = []
        lines: list[int] = []
        line = 1
        try:
            columns = [column.strip() for column in next(table, [])]
            _refuse_twice(columns)
            line = table.line_num + 1
            for cells in table:
                if len(cells) == len(columns):
                    rows.append(_encode(_as_object(columns, cells)))
                    lines.append(line)
                elif cells:
                    yield from _batch(rows, lines)
                    rows, lines = [], []
                    message = f"has {len(cells)} cells, and the table has {len(columns)} columns"
                    yield Unreadable(line=line, message=message, kind="csv")
                line = table.line_num + 1
                if len(rows) == _ROWS_AT_ONCE:
                    yield from _batch(rows, lines)
                    rows, lines = [], []
        except (csv.Error, UnicodeDecodeError) as error:
            yield from _batch(rows, lines)
            reason, mend = _why_not(error, line, table.line_num)
            message = f"cannot be read as CSV: {reason}"
            yield Unreadable(line=line, message=message, kind="csv", breaks_array=True, mend=mend)
            return
        yield from _batch(rows, lines)

    def _lines(self, heard: Heard) -> Iterator[str]:
        rest = b""
        while block := self._file.read(_BLOCK):
            heard(block)
            *whole, rest = (rest + block).split(b"\n")
            # Line by line, so that a fault has its line; the mark is taken off the first.
            yield from (line.decode().removeprefix("\ufeff") + "\n" for line in whole)
            if len(rest) > self._longest_row:
                raise _NotCsv(f"a line is longer than {self._longest_row} bytes", "break it into rows, or shorten it")
        if rest:
            yield rest.decode().removeprefix("\ufeff")


class _NotCsv(csv.Error):
    """What the csv module does not look at."""

    def __init__(self, message: str, mend: str) -> None:
        super().__init__(message)
        self.mend = mend


def _refuse_twice(columns: list[str]) -> None:
    """Of two columns with one name only one could be kept. Those without a name are nobody's data."""
    twice = [name for name, count in Counter(columns).items() if count > 1 and name]
    if twice:
        named = ", ".join(name[:_LONGEST_SHOWN] for name in twice[:_MOST_SHOWN])
        raise _NotCsv(f"its first row names these columns more than once: {named}", "give each its own name")


def _why_not(error: csv.Error | UnicodeDecodeError, begin: int, end: int) -> tuple[str, str]:
    """What is wrong with the row that begins and was given up in these lines, and how to fix it."""
    said = str(error)
    if isinstance(error, UnicodeDecodeError):
        return "not UTF-8", "save the file as UTF-8"
    if isinstance(error, _NotCsv):
        return said, error.mend
    place = f" in line {end}" if end > begin else ""
    known = {
        "expected after": (f"a quote opened in this row is closed{place}, and the cell goes on after it", _QUOTING),
        "unexpected end": ("a quote opened in this row is never closed", _QUOTING),
        "new-line": ("a line ends with a carriage return alone", r"save the file with line ends \n or \r\n"),
        "field limit": (f"a cell is longer than {csv.field_size_limit()} characters", "close its quote, or shorten it"),
    }
    return next((found for words, found in known.items() if words in said), (said, "fix that row"))


def _as_object(columns: list[str], cells: list[str]) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for column, cell in zip(columns, cells, strict=True):
        if cell or column not in _OPTIONAL_COLUMNS:
            row[column] = _value(column, cell)
    return row


def _value(column: str, cell: str) -> Any:
    """Cells are text. Messages are written there as JSON, and a score as a number; what is neither is for its reader."""
    try:
        if column in _JSON_COLUMNS:
            return msgspec.json.decode(cell)
        return float(cell) if column == "score" else cell
    except (ValueError, RecursionError):
        return cell


class _Parquet:
    """The columns are keys; what is null is left out."""

    format = "parquet"

    def __init__(self, file: BinaryIO) -> None:
        try:
            from pyarrow import ArrowException  # noqa: PLC0415  # an extra, and only for such files
            from pyarrow.parquet import ParquetFile  # noqa: PLC0415  # likewise
        except ImportError:
            raise PackageMissing(
                "reading Parquet needs pyarrow", where="input_file", mend="pip install 'tunesmith[formats]'"
            ) from None
        self._errors: tuple[type[Exception], ...] = (ArrowException, OSError)
        self.size = _size(file)
        self._file = file
        try:
            self._table = ParquetFile(file)
        except self._errors as error:
            raise NotData(f"is a damaged Parquet file: {error}", "write it again") from None

    def parts(self, heard: Heard = lambda _: None) -> Iterator[Batch | Unreadable]:
        self._file.seek(0)
        while block := self._file.read(_BLOCK):
            heard(block)
        number = 1
        try:
            for batch in self._table.iter_batches(batch_size=_ROWS_AT_ONCE):
                rows = [_encode(_without_nulls(row)) for row in batch.to_pylist()]
                yield from _batch(rows, list(range(number, number + len(rows))))
                number += len(rows)
        except self._errors as error:
            message = f"the Parquet file is damaged: {error}"
            yield Unreadable(line=number, message=message, kind="not_data", breaks_array=True, mend="write it again")


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value


def _batch(rows: list[bytes], lines: list[int]) -> Iterator[Batch]:
    if rows:
        yield Batch(rows, lines, is_utf8=True, may_be_blank=False)


def _size(file: BinaryIO) -> int:
    return os.fstat(file.fileno()).st_size
