"""Splits a JSON array into its items while it is read, without decoding them: brackets and strings are all it looks at.

Whether an item is valid JSON is its decoder's to find.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import msgspec

# An object with nothing nested is passed over whole; a string that does not end here has an empty group 1.
_TOKEN = re.compile(
    rb'\{(?:[^"{}\[\]]++|"(?:[^"\\]++|\\.)*+")*+\}|"(?:[^"\\]++|\\.)*+("?)|[\[\]{},]',
    re.DOTALL,
)
_REST_OF_STRING = re.compile(rb'(?:[^"\\]++|\\.)*+("?)', re.DOTALL)
_QUOTE, _COMMA = b'",'
_OPENING = b"[{"


class Item(msgspec.Struct, frozen=True, gc=False):
    """An item and the line it begins on; without text, it was too long to hold, or ``fault`` says what is there instead."""

    line: int
    text: bytes | None
    bytes: int = 0
    fault: str = ""


def array_items(blocks: Iterator[bytes], limit: int) -> Iterator[Item]:
    """The items of the array that begins with the first block."""
    splitter = _Splitter(limit)
    for block in blocks:
        yield from splitter.feed(block)
    yield from splitter.end()


class _Splitter:
    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held = b""
        """From the beginning of the item under way, unless that is too long to hold."""
        self._scanned = 0
        self._depth = 0
        self._in_string = False
        self._line = 1
        """The line that what is held begins on."""
        self._let_go = 0
        """Bytes of the item under way that are held no more."""
        self._began = 1
        self._closed = False
        self._told = False
        """Whether it was said that something follows the end."""
        self._items = 0

    def feed(self, block: bytes) -> Iterator[Item]:
        if self._closed:
            yield from self._after_the_end(block)
            return
        self._held += block
        start = 0
        for sign, token in self._signs():
            if sign == _COMMA:
                if self._depth == 1:
                    yield self._item(start, token.start())
                    start = token.end()
                continue
            self._depth += 1 if sign in _OPENING else -1
            if self._depth == 0:
                yield from self._close(start, token)
                return
            if self._depth == 1 and sign in _OPENING:
                self._pass(start, token.end())
                start = token.end()
        self._shorten(start)

    def end(self) -> Iterator[Item]:
        if not self._closed:
            if self._held.strip() or self._let_go:
                yield self._item(0, len(self._held))
            yield Item(self._line, None, fault="is not valid JSON: the array ends without its closing bracket")

    def _signs(self) -> Iterator[tuple[int, re.Match[bytes]]]:
        """Brackets and commas outside of strings, as far as what is held goes."""
        if self._in_string:
            found = _REST_OF_STRING.match(self._held, self._scanned)
            assert found is not None
            self._scanned, self._in_string = found.end(), not found[1]
        if self._in_string:
            return
        for token in _TOKEN.finditer(self._held, self._scanned):
            sign = self._held[token.start()]
            if sign != _QUOTE and token.end() - token.start() == 1:
                yield sign, token
            elif sign == _QUOTE and not token[1]:
                self._in_string, self._scanned = True, token.end()
                return
        self._scanned = len(self._held)

    def _item(self, start: int, end: int) -> Item:
        text = self._held[start:end]
        stripped = text.strip()
        if self._let_go:
            item = Item(self._began, None, self._let_go + len(text))
        elif len(stripped) > self._limit:
            item = Item(self._line + _lead(text), None, len(stripped))
        else:
            # Empty: a comma too many. The decoder says so, with the line.
            item = Item(self._line + (_lead(text) if stripped else 0), stripped, len(text))
        self._let_go = 0
        self._items += 1
        self._pass(start, end + 1)
        return item

    def _close(self, start: int, bracket: re.Match[bytes]) -> Iterator[Item]:
        self._closed = True
        if self._held[start : bracket.start()].strip() or self._items or self._let_go:
            yield self._item(start, bracket.start())
        else:
            self._pass(start, bracket.end())
        rest, self._held = self._held[bracket.end() :], b""
        yield from self._after_the_end(rest)

    def _after_the_end(self, rest: bytes) -> Iterator[Item]:
        if rest.strip() and not self._told:
            self._told = True
            yield Item(
                self._line + _lead(rest), None, fault="is not valid JSON: something follows the end of the array"
            )
        self._line += rest.count(b"\n")

    def _pass(self, start: int, end: int) -> None:
        self._line += self._held.count(b"\n", start, end)

    def _shorten(self, start: int) -> None:
        """Hold no more than is needed: what comes from ``start`` on, or nothing when that is too long."""
        self._held = self._held[start:]
        self._scanned -= start
        if self._let_go or len(self._held) > self._limit:
            if not self._let_go:
                self._began = self._line + _lead(self._held)
            self._pass(0, self._scanned)
            self._let_go += self._scanned
            self._held = self._held[self._scanned :]
            self._scanned = 0


def _lead(text: bytes) -> int:
    """Lines before the first sign that is not blank."""
    return text.count(b"\n", 0, len(text) - len(text.lstrip()))
