"""Rewrites a text so that one pattern fits all ways to type a character. Its length never changes: positions stay exact."""

from __future__ import annotations

import sys
import unicodedata

_DASHES = "‐‑‒–—―−－﹣"
_SPACES = "\u00a0\u2007\u2009\u200a\u202f\u3000"
_DOTS = "・•‧∙⋅･"


def fold(text: str) -> str:
    """Full-width letters, digits and signs, foreign digits, dashes and spaces as their ASCII forms."""
    return text.translate(_TABLE)


def _table() -> dict[int, int]:
    table = {code: ord(_digit(chr(code))) for code in range(0x80, sys.maxunicode + 1) if chr(code).isdecimal()}
    table |= {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)}
    table |= dict.fromkeys(map(ord, _DASHES), ord("-"))
    table |= dict.fromkeys(map(ord, _SPACES), ord(" "))
    table |= dict.fromkeys(map(ord, _DOTS), ord("·"))
    table[ord("’")] = ord("'")
    return table


def _digit(character: str) -> str:
    return str(unicodedata.decimal(character))


_TABLE = _table()
