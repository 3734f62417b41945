"""What a file is that is no JSON: told by its first bytes, and for tables by its name. Pure."""

from __future__ import annotations

from pathlib import PurePosixPath

import msgspec

_CONVERT = "`tunesmith data process FILE FOLDER` makes JSON Lines of it; train on what it writes"
_UNPACK = "unpack it, and give the file that is inside"
_NO_DATA = "give a file of rows: one JSON object on each line, or a JSON array"


class FileKind(msgspec.Struct, frozen=True):
    """A kind of file that is not trained on as it is."""

    said: str
    """With its article: "a PNG file"."""
    mend: str


_BY_FIRST_BYTES = (
    (b"\x1f\x8b", FileKind("a gzip file", _CONVERT)),
    (b"PAR1", FileKind("a Parquet file", _CONVERT)),
    (b"PK\x03\x04", FileKind("a zip file", _UNPACK)),
    (b"PK\x05\x06", FileKind("a zip file", _UNPACK)),
    (b"\x28\xb5\x2f\xfd", FileKind("a zstd file", _UNPACK)),
    (b"\xfd7zXZ\x00", FileKind("a xz file", _UNPACK)),
    (b"BZh", FileKind("a bzip2 file", _UNPACK)),
    (b"7z\xbc\xaf\x27\x1c", FileKind("a 7-Zip file", _UNPACK)),
    (b"\x89PNG\r\n\x1a\n", FileKind("a PNG file", _NO_DATA)),
    (b"\xff\xd8\xff", FileKind("a JPEG file", _NO_DATA)),
    (b"GIF8", FileKind("a GIF file", _NO_DATA)),
    (b"%PDF-", FileKind("a PDF file", _NO_DATA)),
    (b"SQLite format 3\x00", FileKind("a SQLite file", _NO_DATA)),
    (b"ARROW1\x00\x00", FileKind("an Arrow file", "save it as Parquet or JSON Lines")),
    (b"GGUF", FileKind("a GGUF file", _NO_DATA)),
    (b"\x7fELF", FileKind("a program", _NO_DATA)),
    (b"\xff\xfe", FileKind("UTF-16 or UTF-32 text", "save the file as UTF-8")),
    (b"\xfe\xff", FileKind("UTF-16 text", "save the file as UTF-8")),
    (b"\x00\x00\xfe\xff", FileKind("UTF-32 text", "save the file as UTF-8")),
)
_TABLES = {".csv": FileKind("a CSV file", _CONVERT), ".tsv": FileKind("a TSV file", _CONVERT)}
_BINARY = FileKind("a binary file", _NO_DATA)


def kind_of(head: bytes, name: str) -> FileKind | None:
    """What a file that begins with ``head`` is instead of JSON; None where it may be JSON."""
    for sign, kind in _BY_FIRST_BYTES:
        if head.startswith(sign):
            return kind
    if b"\x00" in head[:1024]:
        return _BINARY
    table = _TABLES.get(PurePosixPath(name).suffix.lower())
    return table if table is not None and head.strip() and head.lstrip()[:1] not in (b"{", b"[") else None
