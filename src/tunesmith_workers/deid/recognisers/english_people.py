"""Names of people in Latin letters: known first names and surnames, and capitalised words beside titles and labels.

A surname alone is found after a title, or where the full name stands elsewhere in the text. Names in small letters are
found only where the text introduces them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from tunesmith_workers.deid import libraries
from tunesmith_workers.deid.finding import Reading, Span
from tunesmith_workers.deid.recognisers import latin_names
from tunesmith_workers.deid.recognisers.english_words import (
    COMPANIES,
    NO_NAMES,
    ORDINARY,
    ORDINARY_SURNAMES,
    ORGANISATION,
    PLACE_BEGINNINGS,
    PLACES,
)
from tunesmith_workers.deid.recognisers.latin_names import NO_NAMES_HERE

_LOCALES = ("en_US", "en_GB", "en_IN", "en_IE", "es_MX", "de_DE", "fr_FR", "it_IT", "es_ES", "nl_NL", "pt_BR")
"""Where Faker's names are taken from; many people with English texts have others than English ones."""
_MORE_LOCALES = (
    "en en_NZ en_NG en_KE en_PK fr_CA fr_BE de_AT nl_BE pt_PT es_AR es_CL es_CO sv_SE da_DK no_NO fi_FI pl_PL cs_CZ sl_SI hr_HR hu_HU ro_RO tr_TR id_ID yo_NG ig_NG ha_NG tw_GH zu_ZA"
).split()
"""Longer lists, in which there are words and places too."""

_WORD = r"[A-ZÀ-ÖØ-ÞŁŚŠŽÇ][A-Za-zÀ-ÖØ-öø-ÿŁłŚśŠšŽžćčńęąő]*(?:(?:-|'(?!s\b))[A-ZÀ-Þ]?[a-zà-öø-ÿ]+)*"
_PARTICLE = r"(?:van der|van den|van de|van|von der|von|de la|de los|del|della|de|da|dos|di|der|den|binti|bint|bin|ibn|al|el|ter|le|la)"
_RUN = re.compile(
    rf"(?<![A-Za-z0-9_@/.\-À-ÿ])(?<!\d')(?:[A-Z]\.|{_WORD})(?: (?:{_PARTICLE} )?(?:[A-Z]\.(?![a-z])|{_WORD}))*(?![A-Za-z0-9_@/])"
)
_PIECE = re.compile(rf"[A-Z]\.|{_WORD}|{_PARTICLE}(?= )")

_TITLE = re.compile(
    r"(?:\b(?:Mr|Mrs|Ms|Mx|Dr|Prof|Rev|Hon|Sgt|Capt|Lt|Col)\.? |\b(?:Miss|Sir|Madam|Lady|Lord|Professor|Doctor|Captain|Sergeant|Detective|Officer|Judge|Justice"
    r"|Senator|Congressman|Congresswoman|Governor|Mayor|Reverend|Father|Sister|Nurse|Attorney|Aunt|Uncle|Coach|Principal|Inspector|Agent) )$"
)
_LABEL = re.compile(
    r"(?:\b(?:name(?: is|'s)?|named|called|i am|i'm|this is|speaking with|spoke (?:with|to)|signed(?: by)?|approved by|prepared by|reviewed by|written by|reported by"
    r"|assigned to|attn|attention|contact|cardholder|account holder|holder|pt|patient|customer|client|next of kin|onboarding for|referred by|new hire|(?:served|handled|helped|treated|seen|examined|checked|delivered|answered) by|asks? for|asked|told|tell|guardian|colleague|employee|tenant|landlord|beneficiary|applicant|passenger|driver"
    r"|guest|student|witness|plaintiff|defendant|owner|regards|sincerely|best|thanks|cheers|yours truly|dear|hi|hello|hey|my (?:wife|husband|son|daughter|boss|friend"
    r"|brother|sister|colleague|neighbou?r|manager|mother|father|partner|cousin|doctor|lawyer|landlord|roommate)|our (?:nurse|manager|accountant|lawyer|ceo|engineer)|met"
    r"|interviewed|hired|married|recipient|from|ship to|bill to|deliver to|payable to|care of|c/o|born)\b[:,]?\s{0,2}(?:is |was )?|(?:^|\n)\s*[-–]\s*)$",
    re.IGNORECASE,
)
_STRONG_LABEL = re.compile(
    r"(?:\b(?:name(?: is|'s)|named|full name:?|name:|signed by|spoke (?:with|to)|cardholder:?|account holder:?|patient:?|employee:?|tenant:?|passenger:?|beneficiary:?|applicant:?"
    r"|recipient:?|regards,?|sincerely,?|attn:?|attention:?|payable to|my (?:wife|husband|son|daughter|boss|friend|brother|sister|colleague|neighbou?r|manager|cousin|partner|"
    r"roommate|landlord)|next of kin:?|emergency contact:?|contact person:?|driver:|guest:|client:|customer:|student:|owner:|yours (?:faithfully|sincerely|truly),?|(?:kind|best|warm) regards,?|all the best,|\b(?:b?cc|author|reviewer|assignee|reporter|attendees?|speaker|host|instructor|presenter|examiner|prescriber|physician|surgeon|supervisor|agent|teacher|caller|sender|signatory|director|manager|nominee|designer|editor|photographer):)\s{0,2}(?:is |was )?)$",
    re.IGNORECASE,
)
_NAME_FIELD = re.compile(
    r"\b(?:surname|last name|family name|maiden name|first name|given names?|forename|middle name|nickname)(?: is|:| -)\s{0,2}$",
    re.IGNORECASE,
)
"""What holds a single name."""
_SPEAKS = re.compile(r"(?:^|\n|[.!?] )$")
_FIELD = re.compile(
    r"[\"'](?:\w{1,20}_)?(?:customer|patient|employee|client|recipient|sender|passenger|guest|tenant|contact|applicant|cardholder|account_holder|owner|driver|student|teacher|author|manager|doctor"
    r"|full_?name|first_?name|last_?name|given_?name|family_?name|surname|customer_?name|contact_?name|person|assignee|beneficiary|收件人|姓名|联系人|客户|患者)(?:_name|Name)?[\"']\s?:\s?[\"']$",
    re.IGNORECASE,
)
"""A field of JSON that holds a name."""
_SMALL = re.compile(
    r"\b(?:my name is|my name'?s|(?:hi|hey|hello),? (?:i'?m|this is|it'?s)|i am called|name:|named) ([a-z]{2,14})(?: ([a-z]{2,16}))?\b"
)
_DOUBLED = re.compile(r"[A-Z][a-z]{1,6}-[A-Za-z][a-z]{1,6}")
"""A given name of two syllables as Korean and Chinese ones are written: Sun-hee."""
_LOOK_BACK = 48
_LONGEST = 10
"""A name has fewer words, with initials and particles."""


class EnglishPeople:
    """Finds names in Latin letters with lists of names.

    Args:
        first: first names, which may stand alone.
        rare: more of them, which need a surname or an introduction.
        last: surnames.
    """

    def __init__(self, first: frozenset[str], rare: frozenset[str], last: frozenset[str]) -> None:
        self._first = first
        self._rare = rare
        self._last = last

    @classmethod
    def load(cls) -> EnglishPeople:
        first, last = _names_of(_LOCALES)
        more_first, more_last = _names_of(_MORE_LOCALES)
        known = NO_NAMES | NO_NAMES_HERE
        return cls(
            first=frozenset(first - NO_NAMES | (latin_names.FIRST - NO_NAMES)),
            rare=frozenset(more_first - known),
            last=frozenset(last - NO_NAMES | (more_last - known) | (latin_names.LAST - NO_NAMES)),
        )

    def find(self, reading: Reading) -> Iterable[Span]:
        text = reading.folded
        for match in _RUN.finditer(text):
            yield from self._in_run(text, match.start(), match[0])
        yield from self._in_small_letters(text)

    def _in_run(self, text: str, start: int, run: str) -> Iterator[Span]:
        """Names among capitalised words that stand in a row."""
        pieces = [(match[0], start + match.start(), start + match.end()) for match in _PIECE.finditer(run)]
        index = 0
        while index < len(pieces):
            words = [piece[0] for piece in pieces[index : index + _LONGEST]]
            length = self._length(words)
            if self._names_other(words, length):
                break
            if self._is_name(text, words, length, pieces[index][1]):
                yield Span("PERSON", pieces[index][1], pieces[index + length - 1][2], 0.8)
                index += length
            else:
                index += 1

    def _names_other(self, words: list[str], length: int) -> bool:
        """A first name and then a word of companies and places, as in Morgan Stanley or Hudson River."""
        first = _plain(words[0])
        if first in NO_NAMES:
            return False
        if words[1:2] and (first in PLACE_BEGINNINGS or f"{first} {words[1]}" in COMPANIES):
            return True
        if (
            len(words) == 2
            and words[1] in self._last
            and ((first in self._first and first not in ORDINARY) or _DOUBLED.fullmatch(first))
        ):
            return False  # Gregory Hall, of whom there are as many as of halls
        return any(word in ORGANISATION for word in words[1 : length + 1])

    def _is_name(self, text: str, words: list[str], length: int, start: int) -> bool:
        """Whether the first ``length`` words, which stand at ``start``, are a person's."""
        first = _plain(words[0])
        before = text[max(0, start - _LOOK_BACK) : start]
        if _is_particle(words[0]) or (
            first in NO_NAMES and not (first == "May" and length > 1 and _LABEL.search(before))
        ):
            return False
        if _TITLE.search(before):
            return True
        surely = bool(_STRONG_LABEL.search(before) or _FIELD.search(before))
        labelled = surely or bool(_LABEL.search(before))
        if length == 1:
            return self._is_single(text, words[0], start, labelled=labelled, surely=surely)
        return self._is_full_name(text, words[:length], start, labelled=labelled, surely=surely)

    def _is_full_name(self, text: str, words: list[str], start: int, *, labelled: bool, surely: bool) -> bool:
        """Whether several capitalised words in a row are a person's first name and surname."""
        first, last = _plain(words[0]), _plain(words[-1])
        known_last = last in self._last
        if len(words[0]) == 2 and words[0][1] == ".":
            return known_last or labelled or words[1][-1] == "."
        if first in ORDINARY | PLACES and last in PLACES:
            return False
        chinese = len(words) == 2 and (_is_pinyin(first, last) or _is_pinyin(last, first))
        doubled = len(words) == 2 and (
            (known_last and _DOUBLED.fullmatch(first) is not None)
            or (
                first in self._last
                and _DOUBLED.fullmatch(last) is not None
                and last[-1].islower()
                and "-" in last
                and last.partition("-")[2].islower()
            )
        )
        if chinese or doubled or (first in self._first and first not in ORDINARY):
            return True
        if first in self._first or first in self._rare:
            return known_last or labelled
        return first not in PLACES and (surely or (known_last and (labelled or _is_spoken_of(text, start, words))))

    def _is_single(self, text: str, word: str, start: int, *, labelled: bool, surely: bool) -> bool:
        """Whether one capitalised word alone is a person's first name, or a surname that something introduces."""
        name = _plain(word)
        if word.isupper() and len(word) < 5 and not surely:
            return False  # an abbreviation, such as ETA
        if name in self._first:
            return name not in ORDINARY or (labelled and _is_addressed(text, start, word))
        before = text[max(0, start - _LOOK_BACK) : start]
        if _NAME_FIELD.search(before):
            return True
        if text.startswith(": ", start + len(word)) and _SPEAKS.search(before):
            surely = surely or name in self._rare
        introduced = surely or (labelled and name in self._rare and _is_addressed(text, start, word))
        return introduced and (name in self._last or name in self._rare) and name not in ORDINARY | PLACES

    def _length(self, words: list[str]) -> int:
        """The first word and what goes on after it: initials, particles with a surname, up to three more words."""
        length, names = 1, 1
        while length < len(words) and names < 4:
            word = words[length]
            plain = _plain(word)
            if _is_particle(word):
                if length + 1 >= len(words) or _plain(words[length + 1]) in NO_NAMES:
                    break
                length += 1
                continue
            if plain in NO_NAMES and plain not in self._last:
                break
            if len(plain) > 2 and plain.isupper() and not words[0].isupper():
                break
            length += 1
            names += 1
        return length

    def _in_small_letters(self, text: str) -> Iterator[Span]:
        for match in _SMALL.finditer(text):
            if match[1].capitalize() in self._first:
                known = match[2] is not None and match[2].capitalize() in self._last
                yield Span("PERSON", match.start(1), match.end(2 if known else 1), 0.75)


_PINYIN_SURNAMES = frozenset(
    "Wang Li Zhang Liu Chen Yang Zhao Huang Zhou Wu Xu Sun Hu Zhu Gao Lin Guo Luo Liang Song Zheng Xie Tang Feng Yu Dong Xiao "
    "Cheng Cao Yuan Deng Fu Shen Zeng Peng Lu Lyu Su Jiang Cai Jia Ding Wei Xue Ye Yan Pan Du Dai Xia Zhong Tian Ren Fan Fang "
    "Shi Yao Tan Liao Zou Xiong Jin Hao Kong Bai Cui Kang Mao Qiu Qin Gu Hou Shao Meng Long Duan Lei Qian Yin Chang Qiao Gong "
    "Wen Pang Zhan Fei Yue Qi Ouyang Zhuge Situ Cheung Wong Chan Leung Lau Kwok".split()
)
_SYLLABLE = r"(?:[bpmfdtnlgkhjqxrzcsyw]|zh|ch|sh)?(?:iang|uang|iong|ang|eng|ing|ong|iao|ian|uan|uai|an|en|in|un|ai|ei|ao|ou|ia|ie|iu|ua|uo|ui|ue|a|o|e|i|u)"
_PINYIN = re.compile(rf"(?:{_SYLLABLE}){{1,2}}")


def _is_pinyin(surname: str, given: str) -> bool:
    """``Zhang Wei``, ``Xiaoming Li``: a Chinese surname, and one or two syllables of Chinese that are no surname's alone."""
    return surname in _PINYIN_SURNAMES and given[1:].islower() and _PINYIN.fullmatch(given.lower()) is not None


def _plain(word: str) -> str:
    """``SMITH`` as Smith, ``I'm`` as I, and ``Don't``, which is not what Don has, as Do."""
    head, _, tail = word.partition("'")
    if tail in _SHORTENED:
        return head.removesuffix("n") if tail == "t" else head
    return word.capitalize() if word.isupper() and len(word) > 2 else word


_SHORTENED = frozenset({"m", "re", "ve", "d", "ll", "t"})


def _is_particle(word: str) -> bool:
    return word[0].islower()


def _is_addressed(text: str, start: int, word: str) -> bool:
    """``Dear Grace,`` and ``my friend Mark`` but not ``from April to June``."""
    if _VAGUE_LABEL.search(text[max(0, start - _LOOK_BACK) : start]):
        return False
    return text[start + len(word) : start + len(word) + 1] in {"", ",", ".", " ", "!", "\n", "'"}


_VAGUE_LABEL = re.compile(r"\b(?:from|met|best|thanks|contact)\b[:,]?\s{0,2}$", re.IGNORECASE)


def _names_of(locales: Iterable[str]) -> tuple[set[str], set[str]]:
    """First names and surnames, each a single word."""
    first: set[str] = set()
    last: set[str] = set()
    for locale in locales:
        provider: Any = libraries.load(f"faker.providers.person.{locale}").Provider
        for names, kind in ((first, "first_names"), (last, "last_names")):
            for which in (kind, f"{kind}_male", f"{kind}_female"):
                given = getattr(provider, which, ())
                names.update(_single_words(() if isinstance(given, property) else given))
    return first, last


def _is_spoken_of(text: str, start: int, words: list[str]) -> bool:
    """Whether an unknown word and a surname are a person's by what stands around them: within a sentence, or doing something."""
    first, last = words[0], words[1]
    if last in ORDINARY_SURNAMES or last in ORDINARY or last in PLACES or last in ORGANISATION or first in ORGANISATION:
        return False
    before = text[max(0, start - 16) : start]
    within = _WITHIN.search(before) is not None and _DETERMINED.search(before) is None
    return within or (
        _SPEAKS.search(before) is not None and _ACTS.match(text, start + len(first) + 1 + len(last)) is not None
    )


_WITHIN = re.compile(r"(?:[a-z]|,|;) $")
_DETERMINED = re.compile(
    r"\b(?:the|an?|this|that|these|your|my|our|his|her|their|its|every|each|in|at|of|for) $", re.IGNORECASE
)
_ACTS = re.compile(
    r" (?:said|says|asked|asks|called|calls|wrote|writes|replied|told|tells|wants|wanted|needs|needed|likes|lives|lived|works|worked|agreed|thinks|thought|emailed|ordered"
    r"|confirmed|complained|reported|resigned|joined|left|scored|paid|signed|applied|attended|moved|and [A-Z])\b"
)


def _single_words(names: Iterable[str]) -> Iterator[str]:
    return (name for name in names if len(name) > 1 and name[0].isupper() and " " not in name)
