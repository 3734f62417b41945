"""From tokens to text while they come: whole characters only, and nothing that may turn out to begin a stop text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

_INCOMPLETE = "\ufffd"
_MOST_HELD = 8
"""Tokens. No character takes more; one that is still not whole is not going to be."""


class Detokenizer:
    """The text of one answer."""

    def __init__(self, tokenizer: Any, stops: Sequence[str]) -> None:
        self._tokenizer = tokenizer
        self._stops = tuple(stops)
        self._tokens: list[int] = []
        self._told_from = 0
        """The tokens before were told whole, and are decoded along because some tokenizers join words to them."""
        self._read_from = 0
        self._held = ""
        self.stopped = False
        """Whether a stop text has come; what follows it is not told."""

    def add(self, tokens: Sequence[int]) -> str:
        """What these tokens add to the text."""
        if self.stopped:
            return ""
        self._tokens += tokens
        return self._release(self._decoded(), end=False)

    def finish(self) -> str:
        """What was held back."""
        if self.stopped:
            return ""
        return self._release(self._decoded(end=True), end=True)

    def _decoded(self, *, end: bool = False) -> str:
        known = self._text(self._tokens[self._told_from : self._read_from])
        text = self._text(self._tokens[self._told_from :])
        waits = text.endswith(_INCOMPLETE) and len(self._tokens) - self._read_from < _MOST_HELD
        if (waits and not end) or len(text) <= len(known):
            return ""
        self._told_from, self._read_from = self._read_from, len(self._tokens)
        return text[len(known) :]

    def _text(self, tokens: list[int]) -> str:
        text: str = self._tokenizer.decode(tokens, skip_special_tokens=True)
        return text

    def _release(self, new: str, *, end: bool) -> str:
        text = self._held + new
        found = [place for stop in self._stops if (place := text.find(stop)) >= 0]
        if found:
            self.stopped, self._held = True, ""
            return text[: min(found)]
        keep = 0 if end else self._may_begin(text)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def _may_begin(self, text: str) -> int:
        """How many characters at the end could be the beginning of a stop text."""
        longest = max(map(len, self._stops), default=1) - 1
        for size in range(min(longest, len(text)), 0, -1):
            if any(stop.startswith(text[-size:]) for stop in self._stops):
                return size
        return 0
