"""Text from elsewhere on a terminal: names and messages may hold characters that move the cursor, recolour the screen or
turn the reading direction around. Here they become visible escapes.

It does not measure, wrap or colour.
"""

from __future__ import annotations

import re

# C0, DEL and C1; the bidirectional controls; what breaks a line without being a newline; halves of surrogate pairs, which
# no terminal's encoding can write. Joiners stay: languages are written with them.
_UNSAFE = "\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2028\u2029\u2066-\u2069\ud800-\udfff"
_ON_ONE_LINE = re.compile(f"[{_UNSAFE}]")
_ON_SEVERAL_LINES = re.compile(f"(?![\n\t])[{_UNSAFE}]")


def printable(text: str, *, lines: bool = False) -> str:
    r"""``text`` as it may be shown: each unsafe character as ``\x1b`` or ``\u202e``.

    A name fits on one line: its newlines and tabs are escaped, too. With ``lines``, both stay as they are: for text that
    has several lines on purpose, such as a message or a traceback.
    """
    return (_ON_SEVERAL_LINES if lines else _ON_ONE_LINE).sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code <= 0xFF else f"\\u{code:04x}"
