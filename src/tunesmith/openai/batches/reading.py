"""Reading a file of requests: every line is checked, and all that is wrong is told with its line. Asks nobody anything.

What is kept of a request is where its line begins; what it says is read again when it is asked. All of it blocks.
"""

from __future__ import annotations

from array import array
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import anyio.from_thread
import msgspec

from tunesmith.recipes.suggest import described, shortened
from tunesmith.records import BatchFault

MOST_REQUESTS = 50_000
MOST_MODELS = 20
_MOST_FAULTS = 100
_LONGEST_LINE = 8 * 1024 * 1024
_LONGEST_ID = 512
_LONGEST_MODEL = 4096
_BOM = b"\xef\xbb\xbf"
_LOOK_EVERY_LINES = 100
_MISSING = "missing_required_parameter"


class _Line(msgspec.Struct, frozen=True):
    custom_id: Any = None
    method: Any = None
    url: Any = None
    body: msgspec.Raw = msgspec.Raw()


class _Body(msgspec.Struct, frozen=True):
    model: Any = None
    messages: msgspec.Raw = msgspec.Raw()


_decode_line = msgspec.json.Decoder(_Line).decode
_decode_body = msgspec.json.Decoder(_Body).decode
_decode_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class Request(NamedTuple):
    """One request, as it is asked."""

    custom_id: str
    fields: dict[str, msgspec.Raw]


class Reading:
    """What a file holds."""

    def __init__(self) -> None:
        self.total = 0
        self.faults: list[BatchFault] = []
        self.first_lines: dict[str, int] = {}
        """The models that are asked, each with the line that names it first."""
        self.pending: dict[str, array[int]] = {}
        """By model: where the lines begin that have no answer yet."""

    def fault(self, code: str, message: str, line: int | None = None, param: str | None = None) -> None:
        self.faults.append(BatchFault(code=code, message=message, line=line, param=param))


def read_input(path: Path, endpoint: str, answered: Collection[str] = ()) -> Reading:
    """Read all of it; ends early when a hundred things are wrong, or whoever waits in the event loop was cancelled.

    Raises OSError.
    """
    reading, seen = Reading(), dict[str, int]()
    for number, offset, raw in _lines(path):
        if len(raw) > _LONGEST_LINE:
            reading.fault("line_too_long", f"the line has more than {_LONGEST_LINE} bytes", number)
            break
        if reading.total == MOST_REQUESTS:
            reading.fault("request_limit_exceeded", f"there are more than {MOST_REQUESTS:,} requests", number)
            break
        reading.total += 1
        _take(reading, seen, endpoint, number, offset, raw, answered)
        if len(reading.faults) >= _MOST_FAULTS or len(reading.first_lines) > MOST_MODELS:
            break
    if not reading.total and not reading.faults:
        reading.fault("empty_file", "the file holds no requests")
    return reading


def _lines(path: Path) -> Iterator[tuple[int, int, bytes]]:
    """Number, place and bytes of every line that is not blank."""
    offset, number = 0, 0
    with path.open("rb") as file:
        while raw := file.readline(_LONGEST_LINE + 1):
            number += 1
            if number % _LOOK_EVERY_LINES == 0:
                anyio.from_thread.check_cancelled()
            if raw.removeprefix(_BOM).strip():
                yield number, offset, raw
            offset += len(raw)


def _take(
    reading: Reading,
    seen: dict[str, int],
    endpoint: str,
    number: int,
    offset: int,
    raw: bytes,
    answered: Collection[str],
) -> None:
    try:
        raw.decode()
        line = _decode_line(raw.removeprefix(_BOM))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        reading.fault("invalid_json_line", f"the line is no JSON object in UTF-8: {error}"[:500], number)
        return
    before = len(reading.faults)
    custom_id = _custom_id(reading, seen, number, line)
    if line.method != "POST":
        reading.fault("invalid_method", f"method must be POST, not {described(line.method)}", number, "method")
    if line.url != endpoint:
        told = f"url must be the batch's endpoint {endpoint}, not {described(line.url)}"
        reading.fault("invalid_url", told, number, "url")
    model = _model(reading, number, line)
    if model and model not in reading.first_lines:
        reading.first_lines[model] = number
        if len(reading.first_lines) == MOST_MODELS + 1:
            reading.fault("too_many_models", f"the requests name more than {MOST_MODELS} models", number, "body.model")
    if len(reading.faults) == before and custom_id not in answered:
        reading.pending.setdefault(model, array("Q")).append(offset)


def _custom_id(reading: Reading, seen: dict[str, int], number: int, line: _Line) -> str:
    """Empty where it is wrong."""
    found = line.custom_id
    if not isinstance(found, str) or not found:
        code = _MISSING if found in (None, "") else "invalid_type"
        reading.fault(code, "custom_id must be a text that names the request", number, "custom_id")
        return ""
    if len(found) > _LONGEST_ID:
        told = f"custom_id has {len(found)} characters, more than {_LONGEST_ID}"
        reading.fault("invalid_value", told, number, "custom_id")
        return ""
    first = seen.setdefault(found, number)
    if first != number:
        told = f"custom_id {shortened(found)!r} is that of line {first}, too"
        reading.fault("duplicate_custom_id", told, number, "custom_id")
    return found


def _model(reading: Reading, number: int, line: _Line) -> str:
    """Empty where the body is wrong."""
    if not bytes(line.body):
        reading.fault(_MISSING, "body must be an object with what is asked", number, "body")
        return ""
    try:
        body = _decode_body(line.body)
    except (msgspec.DecodeError, RecursionError):
        reading.fault("invalid_type", "body must be an object with what is asked", number, "body")
        return ""
    if bytes(body.messages) in (b"", b"null"):
        reading.fault(_MISSING, "body.messages is missing", number, "body.messages")
    if not isinstance(body.model, str) or not 0 < len(body.model) <= _LONGEST_MODEL:
        code = _MISSING if body.model in (None, "") else "invalid_type"
        reading.fault(code, "body.model must name a model", number, "body.model")
        return ""
    return body.model


def read_request(path: Path, offset: int) -> Request:
    """The request whose line begins there; the line was found good. Raises OSError."""
    with path.open("rb") as file:
        file.seek(offset)
        line = _decode_line(file.readline(_LONGEST_LINE + 1).removeprefix(_BOM))
    return Request(line.custom_id, _decode_fields(line.body))
