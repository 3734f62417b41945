"""The format of one journal line, both ways. Nothing here opens a file.

    {"seq":7,"at":"2026-11-20T18:01:25.673394Z","event":"started","id":"run_01k9","data":{...},"crc":"4ecbc4ed"}

``seq`` counts 1, 2, 3 without a gap; ``data`` is the whole record after the event; ``crc`` is zlib.crc32 over every byte
before ``,"crc":"``, as eight lowercase hex digits. A line with the event ``repaired`` and an empty id carries no record:
it stands where ``repair`` found lines missing and says which seqs were lost.
"""

from __future__ import annotations

from datetime import datetime
from zlib import crc32

import msgspec

LONGEST_LINE = 16 * 1024 * 1024
"""Bytes. A longer record is refused, so that reading a line never takes more memory than this."""

CRC_BYTES = len(b',"crc":"00000000"}')
CRC_PATTERN = b',"crc":"%08x"}'

REPAIRED = "repaired"


class Entry(msgspec.Struct, frozen=True):
    """One line of a journal, without its checksum."""

    seq: int
    at: datetime
    event: str
    id: str
    data: msgspec.Raw
    """The record after the event, as JSON."""


class LostLines(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a ``repaired`` line says: these seqs are gone, both ends included."""

    lost_from: int
    lost_through: int


_decode_lost_lines = msgspec.json.Decoder(LostLines).decode


class LineUnsound(Exception):
    """A line does not check out; the text says how. It is always turned into a Fault or a JournalDamaged."""


class _Body(msgspec.Struct):
    at: datetime
    event: str
    id: str
    data: msgspec.Raw


encode = msgspec.json.Encoder().encode
_decode_entry = msgspec.json.Decoder(Entry).decode


def encode_body(at: datetime, event: str, record_id: str, data: bytes) -> bytes:
    """Encode what is known of a line before its place in the file is: everything between ``seq`` and ``crc``."""
    return encode(_Body(at, event, record_id, msgspec.Raw(data)))[1:-1]


def finish_line(seq: int, body: bytes) -> bytes:
    """Put the line together, with its newline."""
    head = b'{"seq":%d,%s' % (seq, body)
    return b'%s,"crc":"%08x"}\n' % (head, crc32(head))


def lost_lines(lost: LostLines, at: datetime) -> bytes:
    return finish_line(lost.lost_from, encode_body(at, REPAIRED, "", encode(lost)))


def read_line(line: bytes) -> Entry:
    """Check one line, given without its newline, and read it.

    Raises:
        LineUnsound: empty, wrong checksum, not JSON, or without one of the keys.
    """
    if not line:
        raise LineUnsound("the line is empty")
    head = line[:-CRC_BYTES]
    if line[-CRC_BYTES:] != CRC_PATTERN % crc32(head):
        raise LineUnsound("the checksum does not match the line")
    try:
        return _decode_entry(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise LineUnsound(f"the checksum matches, but this is no journal line: {error}") from error


def last_seq_of(entry: Entry) -> int:
    """Which seq the entry's line accounts for: its own, or the last of those it says were lost.

    Raises:
        LineUnsound: it calls itself ``repaired`` but does not say what was lost.
    """
    if entry.id or entry.event != REPAIRED:
        return entry.seq
    try:
        lost = _decode_lost_lines(entry.data)
    except msgspec.DecodeError as error:
        raise LineUnsound(f"a `{REPAIRED}` line that does not say what was lost: {error}") from error
    if lost.lost_from != entry.seq or lost.lost_through < entry.seq:
        raise LineUnsound(f"a `{REPAIRED}` line whose numbers contradict its seq {entry.seq}")
    return lost.lost_through


def crc_place(end: int) -> tuple[int, int]:
    """Offset and size of the checksum of the line that ends, with its newline, at ``end``."""
    return max(0, end - len(b'00000000"}\n')), len(b"00000000")


def carries_record(entry: Entry) -> bool:
    return bool(entry.id) or entry.event != REPAIRED
