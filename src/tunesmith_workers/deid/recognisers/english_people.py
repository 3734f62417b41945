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

_LOCALES = ("en_US", "en_GB", "en_IN", "en_IE", "es_MX", "de_DE", "fr_FR", "it_IT", "es_ES", "nl_NL", "pt_BR")
"""Where Faker's names are taken from; many people with English texts have others than English ones."""

_WORD = r"[A-ZÀ-ÖØ-ÞŁŚŠŽÇ][A-Za-zÀ-ÖØ-öø-ÿŁłŚśŠšŽžćčńęąő]*(?:(?:-|'(?!s\b))[A-ZÀ-Þ]?[a-zà-öø-ÿ]+)*"
_PARTICLE = (
    r"(?:van der|van den|van de|van|von der|von|de la|de los|del|della|de|da|dos|di|der|den|bin|ibn|al|el|ter|le|la)"
)
_RUN = re.compile(
    rf"(?<![A-Za-z0-9_@/.\-À-ÿ])(?<!\d')(?:[A-Z]\.|{_WORD})(?: (?:{_PARTICLE} )?(?:[A-Z]\.(?![a-z])|{_WORD}))*(?![A-Za-z0-9_@/])"
)
_PIECE = re.compile(rf"[A-Z]\.|{_WORD}|{_PARTICLE}(?= )")

_ORDINARY = frozenset(
    "Will Mark Grace May June April August Hope Rose Jordan Chase Faith Bill Art Frank Rob Drew Dale Glen Summer Autumn Crystal Amber Paris Austin "
    "Dallas Houston Madison Charlotte Victoria Florence Sydney Chelsea Brooklyn Savannah Georgia Virginia Carolina Dakota Jackson Lincoln Washington "
    "Carson Hunter Mason Parker Cooper Carter Page Ray Rich Dean Earl Duke Bishop Guy Christian Angel Destiny Harmony Joy Melody Misty Sandy Gene Max "
    "Miles Pat Skip Chip Chuck Jenkins Ruby Perl Julia Ada Pascal Swift Alexa Siri Oracle Major Price Reed Sky Star Dawn Eve Ivy Lily Daisy Violet Iris "
    "Olive Pearl Jade Opal Ginger Holly Hazel Heather Fern Laurel Rocky Stone River Forest Robin Jay Wren Phoenix Sage Basil Rosemary Ace Bud Buddy Sonny "
    "Junior King Prince Royal Noble Justice Liberty Mercy Patience Prudence Charity Constance Felicity Verity Unity Trinity Genesis Nevada Kent Chester "
    "Lance Pierce Wade Chance Case Cash Colt Dash Gray Grey Grant Bond Chad Israel Kenya India China Asia America Santiago San Los Don Dom Sol Mar Luz Del "
    "Cruz Villa Berlin Hamburg Bremen Essen Roman Ernst Ella Ali An Do Ha Ho Le Sue Peg Nick Jack Jimmy Jet Era Ester Ida Max Maria Mercedes Porsche Bentley "
    "Royce Ford Lincoln Tesla Dell Wells Kelly Marina Marine Norm Stew Van Val Vi Wil Woody Young Long Short Best Good Early Day Love Le Sterling Rich "
    "Linus Atlas Apollo Athena Hermes Jasper Clay Flint Garnet Sapphire Emerald Diamond Gold Silver Bell Beau Belle Blue Brown White Black Green".split()
)
"""First names that are also words, places, months or brands: alone they are no name."""

_NO_NAMES = frozenset(
    "I A An The This That These Those It Its We You He She They My Your His Her Our Their Who What When Where Why How If And Or But So Yes No Not Please Thanks "
    "Thank Dear Hi Hello Hey Best Kind Regards Sincerely From To Cc Bcc Re Fwd Subject Date Monday Tuesday Wednesday Thursday Friday Saturday Sunday January "
    "February March July September October November December Jan Feb Mar Apr Jun Jul Aug Sep Sept Oct Nov Dec Mr Mrs Ms Miss Dr Prof Sir Madam Order Invoice "
    "Ticket Case Call Contact Email Phone Ship Send Meet Ask Tell Yesterday Today Tomorrow Tonight Both After Before During Since Until While Once Our Team "
    "Customer Client Patient Employee Manager Director Engineer Doctor Nurse Officer Agent Driver Passenger Account Card Bank Number Name Address City State "
    "Country Street Road Avenue North South East West New Old Great Saint St Upper Lower Central Attorney Judge Senator Professor Captain Nurse Coach Chef "
    "Passport Visa Mastercard American Express License Plate Report Meeting Project Signed Approved Reviewed Prepared Attn Attention Sales Support Service "
    "Services Security Social General Chief Executive Vice President Chairman CEO CTO CFO COO HR IT QA PM AM USA UK EU US API SQL URL HTTP HTTPS IP ID SSN "
    "PDF CSV JSON XML HTML CSS Python Java Docker Linux Windows Android Google Apple Amazon Microsoft Meta Facebook Twitter Netflix OpenAI Version Chapter "
    "Section Figure Table Appendix Note Warning Error Also Then Now Here There Is Are Was Were Be Been Has Have Had Do Does Did Can Could Should Would May Might "
    "Must Shall Let Make Let's Our Interviewed Interview English French German Spanish Chinese Italian Dutch Indian Irish Monday's Per Via With Without For At "
    "On In By Of As Beneficiary Applicant Tenant Landlord Owner Buyer Seller Guest Resident Member User Admin Student Teacher Witness Plaintiff Defendant "
    "Regarding Concerning Nobody Everybody Someone Everyone Mother Father Brother Sister Uncle Aunt Mom Dad Grandma Grandpa Cousin Neighbor Reply Forward Fax "
    "Mobile Cell Tel Office Home Work Sent Copy Visit Open Close Start Stop End New Next Last First Second Third Lead Senior Deputy Assistant".split()
)
_ORGANISATION = frozenset(
    "Inc Ltd LLC LLP PLC Corp Corporation Company Co Group Holdings Bank University College School Institute Hospital Clinic Center Centre Museum Library "
    "Foundation Trust Church Cathedral Airport Station Bridge Park Garden Gardens Street St Avenue Ave Road Rd Boulevard Blvd Lane Drive Square Plaza Tower "
    "Towers Building House Hotel Inn Restaurant Cafe Bar Stadium Arena Hall Theater Theatre Studio Studios Records Motors Controls Systems Software Technologies "
    "Technology Labs Laboratory Laboratories Industries Partners Associates Capital Securities Insurance Pharmaceuticals Foods Brewery Vineyards Island Islands "
    "Lake River Mountain Mountains Valley Beach Bay Cape Canyon Falls Forest County City Town Village State Province District Airlines Airways Press Times Post "
    "Journal Magazine Award Prize Cup Open Trophy Act Amendment Theorem Law Effect Equation Distribution Transform Test Method Algorithm Syndrome Disease Stanley "
    "Fargo Daniels Sachs Lynch Brothers Bros Sons Hathaway Sandwich Burger Day Days Eve Fools Place Court Way Terrace Heights Hills Hill Creek Springs Island "
    "Package Library Notebook Framework Server Pipeline Language Compiler Powers Cola Pepper Bars Mart Depot Martens Marten Reserve Army Navy Pro Max Plus".split()
)
_COMPANIES = frozenset(
    ("Morgan Stanley", "Jack Daniels", "Johnnie Walker", "Ralph Lauren", "Calvin Klein", "Mary Kay", "Merrill Lynch")
)
_PLACE_BEGINNINGS = frozenset("San Santa Saint Los Las Fort Mount Lake Cape Port Rio Puerto Cerro Sierra Isle".split())
_PLACES = frozenset(
    "London York Angeles Francisco Diego Jose Antonio Texas California Florida Georgia Virginia Carolina Washington Boston Chicago Houston Dallas Austin Seattle "
    "Denver Phoenix Portland Paris Berlin Madrid Rome Milan Tokyo Beijing Shanghai Singapore Sydney Melbourne Toronto Vancouver Dublin Oxford Cambridge "
    "Manchester Birmingham Liverpool Bristol Leeds Edinburgh Glasgow Amsterdam Brussels Vienna Zurich Geneva Lisbon Barcelona Munich Hamburg Frankfurt Delhi "
    "Mumbai England Scotland Wales Ireland France Germany Spain Italy Europe Africa Asia America Canada Mexico Brazil Australia India China Japan Korea Russia "
    "Israel Egypt Turkey Greece Jersey Hampshire Orleans Vegas Louis Paul Petersburg Orlando Atlanta Miami Detroit Philadelphia Baltimore Cleveland Nashville "
    "Memphis Jacksonville Charlotte Columbus Lexington Richmond Arlington Jordan Kent Essex Sussex Surrey Lancaster".split()
)
_TITLE = re.compile(
    r"(?:\b(?:Mr|Mrs|Ms|Mx|Dr|Prof|Rev|Hon|Sgt|Capt|Lt|Col)\.? |\b(?:Miss|Sir|Madam|Lady|Lord|Professor|Doctor|Captain|Sergeant|Detective|Officer|Judge|Justice"
    r"|Senator|Congressman|Congresswoman|Governor|Mayor|Reverend|Father|Sister|Nurse|Attorney|Aunt|Uncle|Coach|Principal|Inspector|Agent) )$"
)
_LABEL = re.compile(
    r"(?:\b(?:name(?: is|'s)?|named|called|i am|i'm|this is|speaking with|spoke (?:with|to)|signed(?: by)?|approved by|prepared by|reviewed by|written by|reported by"
    r"|assigned to|attn|attention|contact|cardholder|account holder|holder|patient|customer|client|employee|tenant|landlord|beneficiary|applicant|passenger|driver"
    r"|guest|student|witness|plaintiff|defendant|owner|regards|sincerely|best|thanks|cheers|yours truly|dear|hi|hello|hey|my (?:wife|husband|son|daughter|boss|friend"
    r"|brother|sister|colleague|neighbou?r|manager|mother|father|partner|cousin|doctor|lawyer|landlord|roommate)|our (?:nurse|manager|accountant|lawyer|ceo|engineer)|met"
    r"|interviewed|hired|married|recipient|from|ship to|bill to|deliver to|payable to|care of|c/o|born)\b[:,]?\s{0,2}(?:is |was )?|(?:^|\n)\s*[-–]\s*)$",
    re.IGNORECASE,
)
_STRONG_LABEL = re.compile(
    r"(?:\b(?:name(?: is|'s)|named|full name:?|name:|signed by|spoke (?:with|to)|cardholder:?|account holder:?|patient:?|employee:?|tenant:?|passenger:?|beneficiary:?|applicant:?"
    r"|recipient:?|regards,?|sincerely,?|attn:?|attention:?|payable to|my (?:wife|husband|son|daughter|boss|friend|brother|sister|colleague|neighbou?r|manager|cousin|partner|"
    r"roommate|landlord))\s{0,2}(?:is |was )?)$",
    re.IGNORECASE,
)
_SMALL = re.compile(r"\b(?:my name is|i am called|name:|named) ([a-z]{2,14})(?: ([a-z]{2,16}))?\b")
_LOOK_BACK = 48
_LONGEST = 10
"""A name has fewer words, with initials and particles."""


class EnglishPeople:
    """Finds names in Latin letters with two lists of names, first names and surnames."""

    def __init__(self, first: frozenset[str], last: frozenset[str]) -> None:
        self._first = first
        self._last = last

    @classmethod
    def load(cls) -> EnglishPeople:
        first: set[str] = set()
        last: set[str] = set()
        for locale in _LOCALES:
            provider: Any = libraries.load(f"faker.providers.person.{locale}").Provider
            first.update(_single_words(provider.first_names))
            last.update(_single_words(provider.last_names))
        return cls(frozenset(first - _NO_NAMES), frozenset(last - _NO_NAMES))

    def find(self, reading: Reading) -> Iterable[Span]:
        text = reading.folded
        found = [span for match in _RUN.finditer(text) for span in self._in_run(text, match.start(), match[0])]
        found += self._in_small_letters(text)
        yield from found
        yield from _elsewhere(text, found)

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
        if first in _NO_NAMES:
            return False
        if words[1:2] and (first in _PLACE_BEGINNINGS or f"{first} {words[1]}" in _COMPANIES):
            return True
        if len(words) == 2 and words[1] in self._last and first in self._first and first not in _ORDINARY:
            return False  # Gregory Hall, of whom there are as many as of halls
        return any(word in _ORGANISATION for word in words[1 : length + 1])

    def _is_name(self, text: str, words: list[str], length: int, start: int) -> bool:
        """Whether the first ``length`` words, which stand at ``start``, are a person's."""
        first, last = _plain(words[0]), _plain(words[length - 1])
        if first in _NO_NAMES or _is_particle(words[0]):
            return False
        before = text[max(0, start - _LOOK_BACK) : start]
        if _TITLE.search(before):
            return True
        labelled, surely = bool(_LABEL.search(before)), bool(_STRONG_LABEL.search(before))
        if length == 1:
            return self._is_single(text, words[0], start, labelled=labelled, surely=surely)
        known_last = last in self._last
        if len(words[0]) == 2 and words[0][1] == ".":
            return known_last or labelled or words[1][-1] == "."
        if first in _ORDINARY | _PLACES and last in _PLACES:
            return False
        chinese = length == 2 and (_is_pinyin(first, last) or _is_pinyin(last, first))
        known_first = chinese or (first in self._first and first not in _ORDINARY)
        known_both = known_last and (labelled or first in self._first)
        return known_first or ((surely or known_both) and (first in self._first or first not in _PLACES))

    def _is_single(self, text: str, word: str, start: int, *, labelled: bool, surely: bool) -> bool:
        """Whether one capitalised word alone is a person's first name, or a surname that something introduces."""
        name = _plain(word)
        if name in self._first:
            return name not in _ORDINARY or (labelled and _is_addressed(text, start, word))
        return surely and name in self._last and name not in _ORDINARY

    def _length(self, words: list[str]) -> int:
        """The first word and what goes on after it: initials, particles with a surname, up to three more words."""
        length, names = 1, 1
        while length < len(words) and names < 4:
            word = words[length]
            plain = _plain(word)
            if _is_particle(word):
                if length + 1 >= len(words) or _plain(words[length + 1]) in _NO_NAMES:
                    break
                length += 1
                continue
            if plain in _NO_NAMES and plain not in self._last:
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
    return word.capitalize() if word.isupper() and len(word) > 2 else word


def _is_particle(word: str) -> bool:
    return word[0].islower()


def _is_addressed(text: str, start: int, word: str) -> bool:
    """``Dear Grace,`` and ``my friend Mark`` but not ``from April to June``."""
    if _VAGUE_LABEL.search(text[max(0, start - _LOOK_BACK) : start]):
        return False
    return text[start + len(word) : start + len(word) + 1] in {"", ",", ".", " ", "!", "\n", "'"}


_VAGUE_LABEL = re.compile(r"\b(?:from|met|best|thanks|contact)\b[:,]?\s{0,2}$", re.IGNORECASE)


def _single_words(names: Iterable[str]) -> Iterator[str]:
    return (name for name in names if len(name) > 1 and name[0].isupper() and " " not in name)


def _elsewhere(text: str, found: list[Span]) -> Iterator[Span]:
    """First name or surname alone, where the full name stands in the text too."""
    parts: set[str] = set()
    for span in found:
        words = text[span.start : span.end].split(" ")
        if len(words) > 1:
            parts.update(
                word
                for word in (words[0], words[-1])
                if len(word) > 2 and word not in _ORDINARY and word[0].isupper() and "." not in word
            )
    if parts:
        pattern = "|".join(map(re.escape, sorted(parts, key=len, reverse=True)))
        for match in re.finditer(
            rf"(?<![A-Za-z0-9_@./-])(?:{pattern})(?![A-Za-z0-9_@/-])(?! (?:{'|'.join(sorted(_ORGANISATION))})\b)", text
        ):
            yield Span("PERSON", *match.span(), 0.7)
