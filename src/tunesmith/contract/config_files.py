"""Reading YAML that people wrote, with the traps taken out: one reader for the service and its workers.

It follows the YAML 1.2 core schema: ``1e-4`` is a number, ``010`` is ten, only ``true`` and ``false`` are booleans, dates stay
text. Keys are always text. Duplicate keys, tags, merge keys, recursion and aliases that expand without end are refused with the
line. No streams, no several documents in one file. Needs PyYAML, which the workers have as well.
"""

from __future__ import annotations

import copy
import math
import re
from typing import Any

import msgspec
import yaml

MAX_BYTES = 5 * 1024 * 1024
MAX_WEIGHT = 100_000
"""How much a document may hold once its aliases are expanded: one for each value, one more for every 64 characters."""
MAX_DEPTH = 32

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class ConfigFault(Exception):
    """A document cannot be read: what is wrong, in which line, and how to fix it."""

    def __init__(self, message: str, *, line: int | None = None, mend: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.line = line
        self.mend = mend


class ConfigTooLarge(ConfigFault):
    """It has more bytes than are read."""


def load(content: bytes | str, *, max_bytes: int = MAX_BYTES) -> Any:
    """Read one document into plain dict, list, str, int, float, bool and None; an empty one is None.

    Blocks for up to half a second on a document at the limits.

    Raises:
        ConfigFault: it is not YAML, or holds what is refused.
        ConfigTooLarge: longer than ``max_bytes``.
    """
    text = _decode(content, max_bytes)
    builder = _Builder()
    try:
        for event in yaml.parse(text, Loader=_LOADER):
            builder.take(event)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise ConfigFault(
            f"is not valid YAML: {error.problem or error.context}",
            line=mark.line + 1 if mark else 1,
            mend="check the indentation (spaces, no tabs), colons and quotes in and above this line",
        ) from error
    except yaml.reader.ReaderError as error:
        raise ConfigFault(
            f"holds a character that YAML does not allow (code {error.character})",
            line=text.encode()[: error.position].count(b"\n") + 1,
            mend="remove the character, or write it as an escape in double quotes",
        ) from error
    return builder.value


def _decode(content: bytes | str, max_bytes: int) -> str:
    try:
        raw = content.encode() if isinstance(content, str) else content
        if len(raw) > max_bytes:
            raise ConfigTooLarge(f"is {len(raw)} bytes long; at most {max_bytes} are read")
        text = raw.decode("utf-8-sig")
    except UnicodeError as error:
        before = error.object[: error.start] if isinstance(error, UnicodeDecodeError | UnicodeEncodeError) else ""
        line = before.count("\n") if isinstance(before, str) else bytes(before).count(b"\n")
        raise ConfigFault("is not UTF-8", line=line + 1, mend="save the file as UTF-8") from error
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise ConfigFault("holds a NUL character", line=line, mend="save the file as UTF-8 text")
    return text


class _Frame(msgspec.Struct):
    """A list or mapping that is being filled."""

    container: list[Any] | dict[str, Any]
    anchor: str | None
    weight_before: int
    key: str | None = None
    """The mapping key whose value comes next."""
    key_lines: dict[str, int] = {}


class _Builder:
    """Turns parser events into plain values, without recursion of its own."""

    def __init__(self) -> None:
        self.value: Any = None
        self._weight = 0
        self._frames: list[_Frame] = []
        self._anchors: dict[str, tuple[Any, int]] = {}
        self._documents = 0

    def take(self, event: yaml.Event) -> None:
        if isinstance(event, yaml.ScalarEvent):
            self._refuse_tag(event)
            self._add_weight(1 + len(event.value) // 64, event)
            self._take_scalar(event)
        elif isinstance(event, yaml.MappingStartEvent | yaml.SequenceStartEvent):
            self._refuse_tag(event)
            self._open(event)
        elif isinstance(event, yaml.CollectionEndEvent):
            self._close(event)
        elif isinstance(event, yaml.AliasEvent):
            self._take_alias(event)
        elif isinstance(event, yaml.DocumentStartEvent):
            self._documents += 1
            if self._documents > 1:
                raise _fault(event, "holds more than one document", mend="keep one, and remove the line `---`")

    def _take_scalar(self, event: yaml.ScalarEvent) -> None:
        frame = self._frames[-1] if self._frames else None
        if "\0" in event.value:
            raise _fault(event, "holds a NUL character", mend="remove the escape")
        if frame and isinstance(frame.container, dict) and frame.key is None:
            self._take_key(frame, event)
            return
        value: Any = event.value
        if event.implicit[0]:
            try:
                value = plain_scalar(event.value)
            except OverflowError as error:
                raise _fault(event, str(error), mend="use a smaller number, or quote it as text") from None
        if event.anchor:
            self._anchors[event.anchor] = (value, 1 + len(event.value) // 64)
        self._put(value)

    def _take_key(self, frame: _Frame, event: yaml.ScalarEvent) -> None:
        line = _line(event)
        if event.implicit[0] and event.value == "<<":
            raise _fault(event, "uses a merge key (<<), which is not supported", mend="write the keys out")
        if event.value in frame.key_lines:
            first = frame.key_lines[event.value]
            raise _fault(
                event, f"gives the key {event.value[:100]!r} twice, first in line {first}", mend="keep one of them"
            )
        frame.key_lines[event.value] = line
        frame.key = event.value
        if event.anchor:
            self._anchors[event.anchor] = (event.value, 1 + len(event.value) // 64)

    def _open(self, event: yaml.CollectionStartEvent) -> None:
        self._refuse_compound_key(event)
        if len(self._frames) >= MAX_DEPTH:
            raise _fault(event, f"is nested more than {MAX_DEPTH} deep", mend="flatten it")
        before = self._weight
        self._add_weight(1, event)
        container: list[Any] | dict[str, Any] = {} if isinstance(event, yaml.MappingStartEvent) else []
        if event.anchor:
            # A reused name must not reach the older value from inside the new one.
            self._anchors.pop(event.anchor, None)
        self._frames.append(_Frame(container, event.anchor, before))

    def _close(self, _event: yaml.CollectionEndEvent) -> None:
        frame = self._frames.pop()
        if frame.anchor:
            self._anchors[frame.anchor] = (frame.container, self._weight - frame.weight_before)
        self._put(frame.container)

    def _take_alias(self, event: yaml.AliasEvent) -> None:
        self._refuse_compound_key(event)
        if any(frame.anchor == event.anchor for frame in self._frames):
            raise _fault(event, f"the alias *{event.anchor} contains itself", mend="write the value out")
        if event.anchor not in self._anchors:
            raise _fault(event, f"the alias *{event.anchor} names no anchor above it", mend="write the value out")
        value, weight = self._anchors[event.anchor]
        self._add_weight(weight, event)
        if len(self._frames) + _depth(value) > MAX_DEPTH:
            raise _fault(event, f"is nested more than {MAX_DEPTH} deep", mend="flatten it")
        self._put(copy.deepcopy(value))

    def _put(self, value: Any) -> None:
        if not self._frames:
            self.value = value
            return
        frame = self._frames[-1]
        if isinstance(frame.container, list):
            frame.container.append(value)
        else:
            assert frame.key is not None
            frame.container[frame.key] = value
            frame.key = None

    def _add_weight(self, weight: int, event: yaml.Event) -> None:
        self._weight += weight
        if self._weight > MAX_WEIGHT:
            raise _fault(event, f"holds more than {MAX_WEIGHT} values", mend="make it smaller, or use fewer aliases")

    def _refuse_tag(self, event: yaml.ScalarEvent | yaml.CollectionStartEvent) -> None:
        if event.tag is not None:
            tag = event.tag.replace("tag:yaml.org,2002:", "!!")[:100]
            raise _fault(event, f"uses the tag {tag}", mend="write the value without a tag; quote it if it is text")

    def _refuse_compound_key(self, event: yaml.Event) -> None:
        frame = self._frames[-1] if self._frames else None
        if frame and isinstance(frame.container, dict) and frame.key is None:
            raise _fault(event, "uses a list, mapping or alias as a key", mend="use text as the key")


def _fault(event: yaml.Event, message: str, *, mend: str) -> ConfigFault:
    return ConfigFault(message, line=_line(event), mend=mend)


def _line(event: yaml.Event) -> int:
    return event.start_mark.line + 1 if event.start_mark else 1


def _depth(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max(map(_depth, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(_depth, value), default=0)
    return 0


_WORDS: dict[str, bool | float | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), math.nan),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"), math.inf),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), -math.inf),
}
_INT = re.compile(r"[-+]?[0-9]+")
_OTHER_BASE = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_LONGEST_INT = 100


def plain_scalar(text: str) -> str | float | bool | None:
    """What an unquoted YAML 1.2 scalar means.

    Raises:
        OverflowError: a number that does not fit into 64 bits.
    """
    if text in _WORDS:
        return _WORDS[text]
    if text[0] not in "-+.0123456789":
        return text
    base = 10 if _INT.fullmatch(text) else 0 if _OTHER_BASE.fullmatch(text) else None
    if base is not None:
        number = int(text, base) if len(text) <= _LONGEST_INT else 2**64
        if not -(2**63) <= number < 2**63:
            raise OverflowError("holds a whole number that does not fit into 64 bits")
        return number
    if _FLOAT.fullmatch(text):
        real = float(text)
        if math.isinf(real):
            raise OverflowError("holds a number that is too large")
        return real
    return text
