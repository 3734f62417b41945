"""Telephone numbers: Chinese mobile and landline numbers, US ones, and any with a country code."""

from __future__ import annotations

import re
from collections.abc import Iterable

from tunesmith_workers.deid.finding import Cues, Reading, Span
from tunesmith_workers.deid.recognisers.numbers import COUNTED

_CALLED = (
    r"手机|电话|联系|致电|拨打|回电|热线|座机|固话|总机|传真|微信|号码|来电|短信"
    r"|\bcall|phone|\btel\b|mobile|\bcell\b|\btext\b|reach|contact|\bfax\b|whatsapp|\bring\b|dial|\bsms\b|voicemail"
)
_CUES = Cues(_CALLED, COUNTED, reach=24)
_CLOSE = Cues(_CALLED, COUNTED + r"|版本|version", reach=20)

_MOBILE = re.compile(
    r"(?<![0-9_])(?<![0-9][.-])(?<![A-Za-z]-)(?:(?:\+|00)?86[ -]?|\(\+?86\) ?)?"
    r"1[3-9]\d(?P<s>[ -]?)\d{4}(?P=s)\d{4}(?![0-9A-Za-z_]|[.-]\d)"
)
_GLUED = re.compile(r"(?:tel|phone|mobile|cell|mob|手机)$", re.IGNORECASE)


def phones(reading: Reading) -> Iterable[Span]:
    """Mobile numbers of China, numbers of the US, numbers with a country code."""
    yield from _chinese_mobiles(reading)
    yield from _international(reading)
    if not reading.chinese:
        yield from _national(reading)


def _chinese_mobiles(reading: Reading) -> Iterable[Span]:
    text = reading.folded
    for match in _MOBILE.finditer(text):
        start = match.start()
        glued = start > 0 and text[start - 1].isascii() and text[start - 1].isalpha()
        if glued and not _GLUED.search(text[max(0, start - 6) : start]):
            continue
        if _CLOSE.before(text, start) == "bad":
            continue
        yield Span("PHONE", *match.span(), 0.94)


_INTERNATIONAL = re.compile(
    r"(?<![0-9A-Za-z_+])(?:\+|(?<![0-9][ .-])00(?=[1-9]\d?[ -]))(?!86)[1-9]\d{0,2}(?:[ .-]?\(?\d{1,4}\)?){2,5}(?:\s?(?:x|ext\.?)\s?\d{1,5})?"
    r"(?![0-9A-Za-z_])"
)
_DIGITS = re.compile(r"\D")


def _international(reading: Reading) -> Iterable[Span]:
    for match in _INTERNATIONAL.finditer(reading.folded):
        if 8 <= len(_DIGITS.sub("", match[0])) <= 20 and _CLOSE.before(reading.folded, match.start()) != "bad":
            yield Span("PHONE", *match.span(), 0.93)


_US = re.compile(
    r"(?<![0-9A-Za-z_])(?<![0-9][.-])(?:1[ .-])?(?:\([2-9]\d{2}\)[ -]?|[2-9]\d{2}(?P<s>[ .-]))[2-9]\d{2}[ .-]\d{4}"
    r"(?:,?\s?(?:x|ext\.?|extension)\s?\d{1,6})?(?![0-9A-Za-z_]|[.-]\d)",
    re.IGNORECASE,
)
_UK = re.compile(
    r"(?<![0-9A-Za-z_-])(?:0\d{2} \d{4} \d{4}|\(0\d{2}\) \d{4} \d{4}|0\d{3} \d{3} \d{4}|0\d{4} \d{6}|07\d{3} \d{3} ?\d{3}|04\d{2} \d{3} \d{3})(?![0-9A-Za-z_-])"
)
_BARE = re.compile(r"(?<![0-9A-Za-z_.$-])(?:1?[2-9]\d{2}[2-9]\d{6}|[2-9]\d{2}-\d{4}|07\d{9})(?![0-9A-Za-z_]|[.-]\d)")


def _national(reading: Reading) -> Iterable[Span]:
    text = reading.folded
    for pattern in (_US, _UK):
        for match in pattern.finditer(text):
            if _CUES.before(text, match.start()) != "bad":
                yield Span("PHONE", *match.span(), 0.92)
    for match in _BARE.finditer(text):
        # Ten digits in a row are a phone number only where somebody says so.
        if _CUES.before(text, match.start()) == "good":
            yield Span("PHONE", *match.span(), 0.85)


_LANDLINE = re.compile(
    r"(?<![0-9A-Za-z_])(?<![0-9][.-])(?:(?:(?:\+|00)86[ -]?\(?0?|86-0?)|\(0|0)(?:10|2[0-57-9]|[3-9]\d{2})\)?[ -]{0,2}"
    r"[2-8](?:\d{7}|\d{6}|\d{3}[ -]\d{4}|\d{2}[ -]\d{4})(?:(?: ?转 ?| ?分机 ?| ?ext\.? ?|-)\d{1,6})?(?![0-9A-Za-z_]|[.-]\d)"
)
_LOCAL = re.compile(
    r"(?:电话|座机|固话|总机|传真|办公室)(?:号码|号)?(?:[是为:： ]|\s){0,3}([2-8]\d{2,3}[ -]?\d{4}(?:(?: ?转 ?| ?分机 ?|-)\d{1,6})?)"
    r"(?![0-9A-Za-z_]|[.-]\d)"
)


def landlines(reading: Reading) -> Iterable[Span]:
    """Chinese landlines: area code and 7 or 8 digits, or those digits alone where the text calls them a telephone."""
    text = reading.folded
    for match in _LANDLINE.finditer(text):
        if (reading.chinese or "86" in match[0][:4]) and _CLOSE.before(text, match.start()) != "bad":
            yield Span("LANDLINE", *match.span(), 0.93)
    for match in _LOCAL.finditer(text):
        yield Span("LANDLINE", *match.span(1), 0.88)
