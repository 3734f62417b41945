"""Says why bytes are no row: which encoding they look like, what JSON does not have, where the parser stopped.

Slow and careful; asked only about rows that a decoder has refused already.
"""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec

from tunesmith_workers.data.reader import is_utf8
from tunesmith_workers.data.shapes import RowFault

_BOM = b"\xef\xbb\xbf"
_SURROGATE = re.compile("[\ud800-\udfff]")
_CHINESE = re.compile("[\u3000-\u303f\u4e00-\u9fff\uff00-\uffef]")
_decode = msgspec.json.Decoder().decode


def decoded(row: bytes) -> Any:
    """The row as JSON values.

    Raises:
        RowFault: it is no JSON in UTF-8; the message says why.
    """
    try:
        # The decoder passes over what it has no use for; here every byte counts.
        return _decode(row if is_utf8(row) else row.decode())
    except UnicodeDecodeError:
        raise not_utf8(row) from None
    except RecursionError:
        raise RowFault("is nested too deeply", kind="not_json") from None
    except (msgspec.DecodeError, ValueError) as error:
        if row.endswith(b"\n"):  # the end of its line is no part of it
            return decoded(row.removesuffix(b"\n"))
        raise _not_json(row, str(error)) from None


def not_utf8(row: bytes) -> RowFault:
    """What the bytes are instead, as far as it can be told, and where the first one is."""
    try:
        row.decode()
    except UnicodeDecodeError as error:
        byte, column = row[error.start], len(row[: error.start].decode()) + 1
        return RowFault(
            f"is not UTF-8: byte 0x{byte:02x} at column {column}; {_guess(row)}; save the file as UTF-8",
            kind="not_utf8",
        )
    return RowFault("is not UTF-8", kind="not_utf8")


def _guess(row: bytes) -> str:
    if re.search(rb"\xed[\xa0-\xbf][\x80-\xbf]", row):
        return "it holds half of a character (a lone surrogate)"
    try:
        text = row.decode("gb18030")
    except UnicodeDecodeError:
        return "it looks like Latin-1 (Windows-1252)"
    foreign = [sign for sign in text if ord(sign) > 127]
    chinese = sum(1 for sign in foreign if _CHINESE.match(sign))
    return "it looks like GBK (GB18030)" if chinese > 0.8 * len(foreign) else "it looks like Latin-1 (Windows-1252)"


def _not_json(row: bytes, said: str) -> RowFault:
    if not row.strip():
        said = "an item is missing; there is a comma too many"
    elif row.lstrip().startswith(_BOM):
        said = "a byte order mark stands in the middle of the file, as if files had been joined"
    else:
        said = _what_json_lacks(row) or said
    kind = "lone_surrogate" if "surrogate" in said else "not_json"
    return RowFault(f"is not valid JSON: {said}", kind=kind)


def _what_json_lacks(row: bytes) -> str:
    """Python's own parser takes what JSON does not have, which tells what it was."""
    constants: list[str] = []
    try:
        value = json.loads(row.decode().rstrip(), parse_constant=constants.append)
        found = _SURROGATE.search(json.dumps(value, ensure_ascii=False))
    except json.JSONDecodeError as error:
        line = f"line {error.lineno} of the item, " if error.lineno > 1 else ""
        return f"{error.msg} ({line}column {error.colno})"
    except (ValueError, RecursionError):  # numbers with thousands of digits
        return ""
    if constants:
        return f"{constants[0]} is no JSON value; write a number or null"
    return f"\\u{ord(found[0]):04x} is half of a character (a lone surrogate), which no text can have" if found else ""
