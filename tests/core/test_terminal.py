"""Text from elsewhere never steers the terminal that shows it."""

from __future__ import annotations

import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from tunesmith.terminal import printable


def test_escape_sequences_become_visible():
    """A name that would clear the screen, set the title or turn the text around is shown as what it is."""
    assert printable("a\x1b[2Jb") == "a\\x1b[2Jb"
    assert printable("\x1b]0;owned\x07") == "\\x1b]0;owned\\x07"
    assert printable("safe\rrm -rf\n") == "safe\\x0drm -rf\\x0a"
    assert printable("\x9b31m\x85") == "\\x9b31m\\x85"
    assert printable("gpj.\u202eexe\u2069\u2028") == "gpj.\\u202eexe\\u2069\\u2028"
    assert printable("half \ud800") == "half \\ud800"


def test_ordinary_text_stays_as_it_is():
    text = "data für 数据 👩‍💻 می‌خواهم.jsonl"
    assert printable(text) == text


def test_text_of_several_lines_keeps_its_lines():
    assert printable("one\n\ttwo\r\x1b[0m", lines=True) == "one\n\ttwo\\x0d\\x1b[0m"


@given(st.text(st.characters()))
def test_nothing_printable_controls_anything(text: str):
    """Whatever goes in, what comes out has no control character, can be encoded, and is left alone the second time."""
    shown = printable(text)
    assert not {unicodedata.category(character) for character in shown} & {"Cc", "Cs", "Zl", "Zp"}
    assert not {unicodedata.bidirectional(character) for character in shown} & {
        "LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI",
    }  # fmt: skip
    assert printable(shown) == shown
    shown.encode()
