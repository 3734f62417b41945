"""Postal addresses as English writes them: a number, a street, and whatever of flat, city, state and code goes with it."""

from __future__ import annotations

import re
from collections.abc import Iterable

from tunesmith_workers.deid.finding import Reading, Span

_KINDS = (
    "Street|St|Avenue|Ave|Road|Rd|Boulevard|Blvd|Lane|Ln|Drive|Dr|Court|Ct|Way|Place|Pl|Square|Sq|Terrace|Ter|Parkway|Pkwy"
    "|Highway|Hwy|Circle|Cir|Close|Crescent|Row|Trail|Alley|Mews|Quay|Gardens|Grove|Hill|Plaza|Loop"
)
_UNIT = (
    r"(?:(?:Apt|Apartment|Suite|Ste|Unit|Flat|Floor|Fl|Room|Rm|Bldg|Building|Level|Lot)\b\.? ?#?|#)[A-Za-z0-9][A-Za-z0-9-]{0,5}"
    r"|\d{1,2}(?:st|nd|rd|th) (?:Floor|floor)"
)
_STATE = (
    "A[KLRZ]|C[AOT]|D[CE]|FL|GA|HI|I[ADLN]|K[SY]|LA|M[ADEINOST]|N[CDEHJMVY]|O[HKR]|PA|RI|S[CD]|T[NX]|UT|V[AT]|W[AIVY]"
    "|Alabama|Alaska|Arizona|Arkansas|California|Colorado|Connecticut|Delaware|Florida|Georgia|Hawaii|Idaho|Illinois|Indiana|Iowa"
    "|Kansas|Kentucky|Louisiana|Maine|Maryland|Massachusetts|Michigan|Minnesota|Mississippi|Missouri|Montana|Nebraska|Nevada"
    "|New (?:Hampshire|Jersey|Mexico|York)|(?:North|South) (?:Carolina|Dakota)|Ohio|Oklahoma|Oregon|Pennsylvania|Rhode Island"
    "|Tennessee|Texas|Utah|Vermont|(?:West )?Virginia|Washington|Wisconsin|Wyoming"
)
_CODE = r"\d{5}(?:-\d{4})?|[A-Z]{1,2}\d[A-Z\d]? ?\d[A-Z]{2}|[A-Z]\d[A-Z] ?\d[A-Z]\d|[A-Z]\d[\dW] ?[A-Z\d]{4}|\d{4}"
_COUNTRY = "USA|U\\.S\\.A\\.|United States|UK|United Kingdom|England|Scotland|Ireland|Canada|Australia"
_CITY = r"(?:(?:St|Ft|Mt)\. )?[A-Z][A-Za-z'-]{1,18}(?: [A-Z][A-Za-z'-]{1,18}| upon [A-Z][a-z]{1,18}){0,2}"
_KNOWN_CITY = (
    "New York|London|Los Angeles|Chicago|Houston|Boston|Seattle|Denver|Austin|Dallas|Portland|Atlanta|Miami|Phoenix|San Francisco"
    "|San Diego|San Jose|Philadelphia|Brooklyn|Oakland|Detroit|Manchester|Birmingham|Leeds|Liverpool|Bristol|Edinburgh|Glasgow"
    "|Dublin|Toronto|Vancouver|Montreal|Sydney|Melbourne|Brisbane|Oxford|Cambridge|Springfield"
)
_REST = re.compile(
    rf"(?:,? (?:{_UNIT})(?![A-Za-z0-9]))?"
    rf"(?:,\s{{1,2}}(?:{_UNIT})(?![A-Za-z0-9]))?"
    rf"(?:(?:,\s{{0,2}}|\n){_CITY},?\s(?:{_STATE})\b\.?(?:,?\s(?:{_CODE})\b)?"
    rf"|(?:,\s{{0,2}}|\n){_CITY},?\s(?:{_CODE})(?![A-Za-z0-9-])"
    rf"|,?\s{{0,2}}(?:{_KNOWN_CITY})(?:,?\s(?:{_STATE})\b)?(?:,?\s(?:{_CODE})\b| \d{{1,2}}\b(?! [a-z]))?(?![A-Za-z]))?"
    rf"(?:,\s(?:{_COUNTRY})(?![A-Za-z]))?"
)
_FRONT = r"(?:(?:Flat|Suite|Unit|Apartment|Apt\.?|Room) [A-Za-z0-9]{1,5},? )?"
_NUMBER = r"(?<![0-9A-Za-z_$€£.,#/-])(?<![$€£#] )\d{1,5}(?:-\d{1,4})?[A-Za-z]?"
_SIDE = r"(?:(?:N|S|E|W|NE|NW|SE|SW)\.?|North|South|East|West)"
_WORD = r"(?:(?:St|Mt|Dr|Ft)\. )?(?:[A-Z][A-Za-z']{0,18}(?:-[A-Z][a-z]{1,12})?\.?|\d{1,3}(?:st|nd|rd|th))"
_HOUSE = re.compile(
    rf"{_FRONT}{_NUMBER} (?:{_SIDE} )?(?:(?:{_WORD} ){{1,3}}?(?:{_KINDS})\b\.?(?: {_SIDE}(?![A-Za-z]))?|Broadway\b|Avenue [A-Z]\b"
    r"|(?:Highway|Route|County Road) \d{1,4})(?! (?:Journal|Bank|Capital|Group|Inc|Ltd|LLC|Church|School|Hospital|Station)\b)"
)
_SMALL = re.compile(
    rf"{_NUMBER} (?:[a-z]{{2,14}} ){{1,2}}(?:street|avenue|road|lane|boulevard|drive|st|ave|rd)\b", re.IGNORECASE
)
_LIVES = re.compile(
    r"\b(?:live|lives|lived|living|address|ship|deliver|send|mail|moved|resid\w+)\b[^.\n]{0,24}$", re.IGNORECASE
)
_BOX = re.compile(r"\b(?:P\.? ?O\.? ?|PO |Post Office )Box #?\d{1,6}\b", re.IGNORECASE)


def addresses(reading: Reading) -> Iterable[Span]:
    text = reading.folded
    for pattern in (_HOUSE, _BOX):
        for match in pattern.finditer(text):
            yield Span("ADDRESS", match.start(), _end(text, match.end()), 0.96)
    for match in _SMALL.finditer(text):
        if _LIVES.search(text[max(0, match.start() - 40) : match.start()]):
            yield Span("ADDRESS", match.start(), _end(text, match.end()), 0.9)


def _end(text: str, end: int) -> int:
    rest = _REST.match(text, end)
    assert rest is not None  # every part of it may be absent
    end = rest.end()
    # A full stop belongs to an abbreviation only where the address goes on.
    return end - 1 if text[end - 1] == "." and rest[0] == "" and _ends_sentence(text, end) else end


def _ends_sentence(text: str, end: int) -> bool:
    return re.match(r"\s+[a-z]", text[end:]) is None
