"""Licence plates: Chinese ones, also of electric cars, by their shape; others where the text speaks of a plate."""

from __future__ import annotations

import re
from collections.abc import Iterable

from tunesmith_workers.deid.finding import Reading, Span

PROVINCES = "京津沪渝冀豫云辽黑湘皖鲁新苏浙赣鄂桂甘晋蒙陕吉闽贵粤青藏川宁琼"
_SIGN = r"[A-HJ-NP-Za-hj-np-z0-9]"
_CHINESE = re.compile(
    rf"[{PROVINCES}使领] ?[A-HJ-NP-Za-hj-np-z][· -]?"
    rf"(?:[DFdfABCEGHJKabceghjk]{_SIGN}\d{{4}}|\d{{5}}[DFdfABCEGHJKabceghjk]|{_SIGN}{{4}}[学警港澳挂]|{_SIGN}{{5}})(?![0-9A-Za-z_])"
)
_FOREIGN = re.compile(
    r"(?i:licen[cs]e plates?|number plates?|\bplates?|\bregistration|\breg\b|vehicle tag)"
    r"(?i:\s+(?:number|no\.?|reads?|reading|was|is|mark|tag|of|plate|ending|the|vehicle|car|van|truck)){0,5}\s*[:#,]?\s*[\"'(]?"
    r"([A-Z0-9]{1,4}(?:[ -]?[A-Z0-9]{2,4}){1,2}|\d{2,3}-[A-Z]{1,2}-\d{1,6})(?![0-9A-Za-z_-])"
)
_VEHICLE = re.compile(
    r"\b(?i:truck|van|car|lorry|taxi|cab|vehicle|sedan|trailer|motorcycle|suv|coupe|hatchback|pickup) ([A-Z]{2,3}-\d{3,4}|[A-Z]{3}\d{4})(?![0-9A-Za-z_-])"
)


def plates(reading: Reading) -> Iterable[Span]:
    for match in _CHINESE.finditer(reading.folded):
        if sum(character.isdecimal() for character in match[0]) >= 2:
            yield Span("PLATE", *match.span(), 0.96)
    for match in _FOREIGN.finditer(reading.folded):
        signs = [character for character in match[1] if character.isalnum()]
        if 4 <= len(signs) <= 8 and any(map(str.isdecimal, signs)) and any(map(str.isalpha, signs)):
            yield Span("PLATE", *match.span(1), 0.9)
    for match in _VEHICLE.finditer(reading.folded):
        yield Span("PLATE", *match.span(1), 0.88)
