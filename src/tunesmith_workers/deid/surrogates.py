"""Makes up data of a kind in the shape of an original: as many digits, the same separators, a right checksum.

Every value follows from the random numbers it is given. Names and e-mail users come from Faker; what
Faker writes in another shape than people do (Chinese addresses with a postcode at their end) is put together here.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable, Mapping
from itertools import accumulate
from typing import Any

from tunesmith_workers.deid import libraries
from tunesmith_workers.deid.checksums import iban_digits, id_card_digit, is_iban, luhn_digit
from tunesmith_workers.deid.finding import HAN
from tunesmith_workers.deid.folding import fold

_PROVINCES = "京津沪渝冀豫云辽黑湘皖鲁苏浙赣鄂桂甘晋蒙陕吉闽贵粤青琼川宁"
_PLATE_LETTERS = "ABCDEFGHJKLMNPQRSTUVWXYZ"
_REGIONS = (
    "110105 120103 130102 140105 210102 220102 230103 310104 320105 330106 340104 350203 360103 370102 410105 420106 430104 440106 500105 510107 520102"
    " 530102 610113 620102".split()
)
_AREAS = {
    2: ("10", "21", "22", "23", "24", "25", "27", "28", "29", "20"),
    3: ("311", "371", "411", "512", "571", "591", "731", "755", "851", "871"),
}
_TRANSLITERATED = "安东 保罗 查理 大卫 埃里克 弗兰克 格雷 汉斯 伊恩 杰克 凯文 卢卡斯 马丁 诺曼 奥斯卡 彼得 罗伯特 西蒙 托马斯 维克多 威廉 米勒 布朗 戴维斯 威尔逊".split()
_PLACES = (
    ("河北省", "保定市", "莲池区"), ("江苏省", "常州市", "天宁区"), ("浙江省", "绍兴市", "越城区"), ("福建省", "泉州市", "丰泽区"), ("山东省", "烟台市", "芝罘区"),
    ("河南省", "洛阳市", "涧西区"), ("湖北省", "宜昌市", "西陵区"), ("湖南省", "衡阳市", "雁峰区"), ("广东省", "佛山市", "禅城区"), ("四川省", "绵阳市", "涪城区"),
    ("陕西省", "咸阳市", "渭城区"), ("辽宁省", "鞍山市", "铁东区"), ("安徽省", "芜湖市", "镜湖区"), ("江西省", "九江市", "浔阳区"), ("云南省", "曲靖市", "麒麟区"),
)  # fmt: skip
_ROADS = "解放路 人民路 中山路 建设路 和平路 文化路 新华街 胜利路 光明路 朝阳街 长江路 黄河路 学府路 青年路 迎宾大道 滨河路 东风路 团结巷 幸福路 友谊街".split()
_FROM_FAKER = frozenset({"EMAIL", "ADDRESS"})
_CAPITALS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_EXAMPLE_DOMAINS = ("example.com", "example.org", "example.net")


class _Names:
    """Names to draw from, as often as they are met."""

    def __init__(self, weights: Mapping[str, float]) -> None:
        self._names = list(weights)
        self._sums = list(accumulate(weights.values()))

    def draw(self, chance: random.Random) -> str:
        return chance.choices(self._names, cum_weights=self._sums)[0]


def _weighed(names: Iterable[str]) -> dict[str, float]:
    return dict(names) if isinstance(names, Mapping) else dict.fromkeys(names, 1.0)


class Surrogates:
    """Makes up values. Building one takes milliseconds, so it is kept; nothing stays in it from one value to the next."""

    def __init__(self) -> None:
        faker = libraries.load("faker")
        self._english: Any = faker.Faker("en_US")
        chinese, english = (libraries.load(f"faker.providers.person.{name}").Provider for name in ("zh_CN", "en_US"))
        # Drawn here from its lists: Faker weighs every name anew for each that it draws.
        surnames = _weighed(chinese.last_names)
        self._surnames = _Names({name: weight for name, weight in surnames.items() if len(name) == 1})
        self._long_surnames = _Names({name: weight for name, weight in surnames.items() if len(name) > 1})
        self._given_names = _Names(_weighed(chinese.first_names))
        self._first_names = _Names(_weighed(english.first_names))
        self._last_names = _Names(_weighed(english.last_names))
        self._makers: dict[str, Callable[[str, random.Random], str]] = {
            "PERSON": self._person,
            "PHONE": _phone,
            "LANDLINE": _landline,
            "EMAIL": self._email,
            "ID_CARD": _id_card,
            "SSN": _ssn,
            "BANK_CARD": _bank_card,
            "BANK_ACCOUNT": _bank_account,
            "ADDRESS": self._address,
            "IP": _ip,
            "PLATE": _plate,
            "PASSPORT": _passport,
        }

    def make(self, kind: str, original: str, chance: random.Random) -> str:
        """Something of this kind in the shape of ``original``; it may be the original, by chance."""
        if kind in _FROM_FAKER:
            self._english.seed_instance(chance.getrandbits(64))
        return self._makers[kind](original, chance)

    def _person(self, original: str, chance: random.Random) -> str:
        if HAN.search(original):
            return self._chinese_person(original, chance)
        words = original.split(" ")
        made = [self._english_word(word, index, words, chance) for index, word in enumerate(words)]
        return " ".join(made)

    def _chinese_person(self, original: str, chance: random.Random) -> str:
        if "·" in fold(original):
            parts = re.split(r"([^\u3400-\u9fff]+)", original)
            return "".join(chance.choice(_TRANSLITERATED) if HAN.search(part) else part for part in parts)
        given = max(0, len(original) - (2 if len(original) > 3 else 1))
        surname = (self._long_surnames if len(original) > 3 else self._surnames).draw(chance)
        name: str = surname
        while len(name) < len(surname) + given:
            name += self._given_names.draw(chance)
        return name[: len(surname) + given]

    def _english_word(self, word: str, index: int, words: list[str], chance: random.Random) -> str:
        if len(word.rstrip(".")) == 1:
            return chance.choice(_CAPITALS) + word[1:]
        if word.islower() and len(words) > 1 and 0 < index < len(words) - 1:
            return word
        is_last = index and index == len(words) - 1
        made = (self._last_names if is_last else self._first_names).draw(chance)
        return made.upper() if word.isupper() else made.lower() if word.islower() else made

    def _email(self, _original: str, chance: random.Random) -> str:
        user: str = self._english.user_name()
        return f"{user}{chance.randrange(100)}@{chance.choice(_EXAMPLE_DOMAINS)}"

    def _address(self, original: str, chance: random.Random) -> str:
        return _chinese_address(original, chance) if HAN.search(original) else self._english_address(original, chance)

    def _english_address(self, original: str, chance: random.Random) -> str:
        if re.match(r"P|p", original) and "ox" in original:
            return _refilled(original, lambda _: str(chance.randrange(1, 10)))
        made: str = f"{chance.randrange(1, 9999)} {self._english.last_name()} {chance.choice(('Street', 'Avenue', 'Road', 'Lane', 'Drive'))}"
        if re.search(r"(?:Apt|Suite|Unit|Flat|Floor|Room|Ste|#)", original):
            made += f", Apt {chance.randrange(1, 99)}"
        if re.search(r"\b[A-Z]{2}\.? \d{5}", original):
            made += f", {self._english.city()}, {self._english.state_abbr()} {chance.randrange(10001, 99951):05d}"
        elif original.count(",") or "\n" in original:
            made += f", {self._english.city()}"
        return made


def _chinese_address(original: str, chance: random.Random) -> str:
    province, city, district = chance.choice(_PLACES)
    made = province if re.search(r"省|自治区", original) else ""
    made += city if "市" in original else ""
    made += district if re.search(r"[区县旗]", original) else ""
    made += f"{chance.choice(_ROADS)}{chance.randrange(1, 999)}号"
    if re.search(r"栋|幢|号楼|座", original):
        made += f"{chance.randrange(1, 40)}栋"
    if "单元" in original:
        made += f"{chance.randrange(1, 6)}单元"
    if re.search(r"室|房|户|层|楼|\d-\d", original):
        made += f"{chance.randrange(1, 30)}{chance.randrange(1, 9):02d}室"
    return made


def _refilled(original: str, digit: Callable[[int], str]) -> str:
    """The original with its digits, of whatever script, replaced one by one."""
    made, count = [], 0
    for character in original:
        if character.isdecimal():
            made.append(digit(count))
            count += 1
        else:
            made.append(character)
    return "".join(made)


def _random_digits(chance: random.Random, count: int) -> str:
    return "".join(str(chance.randrange(10)) for _ in range(count))


def _filled(original: str, digits: str) -> str:
    return _refilled(original, lambda index: digits[index])


def _digits(original: str) -> str:
    return "".join(character for character in fold(original) if character.isdecimal())


def _phone(original: str, chance: random.Random) -> str:
    digits = _digits(original)
    if re.fullmatch(r"(?:0086|86)?1[3-9]\d{9}", digits):
        return _filled(original, f"{digits[:-11]}1{chance.choice('3578')}{_random_digits(chance, 9)}")
    folded = fold(original)
    country = re.match(r"(?:\+|00)(\d{1,3})(?=\D)|\+(1)(?=\d{10})|\+(\d\d)", folded)
    kept = len(_digits(country[0])) if country else 1 if re.match(r"1[ .-]", folded) else 0
    start = 1 if digits[kept : kept + 1] == "0" else 0
    body = "0" * start + "".join(str(chance.randrange(2, 10)) for _ in range(len(digits) - kept - start))
    return _filled(original, digits[:kept] + body)


def _landline(original: str, chance: random.Random) -> str:
    digits = _digits(original)
    match = re.fullmatch(r"(0086|86)?(0?)(10|2\d|[3-9]\d{2})([2-8]\d{6,})", digits)
    if match is None or (not match[1] and not match[2]):
        return _filled(original, f"{chance.randrange(2, 9)}{_random_digits(chance, len(digits) - 1)}")
    area = chance.choice(_AREAS[len(match[3])])
    body = f"{chance.randrange(2, 9)}{_random_digits(chance, len(match[4]) - 1)}"
    return _filled(original, f"{match[1] or ''}{match[2]}{area}{body}")


def _id_card(original: str, chance: random.Random) -> str:
    born = f"{chance.randrange(1950, 2011)}{chance.randrange(1, 13):02d}{chance.randrange(1, 29):02d}"
    body = f"{chance.choice(_REGIONS)}{born}{_random_digits(chance, 3)}"
    number = iter(body + id_card_digit(body))
    return "".join(next(number) if character.isalnum() else character for character in original)


def _ssn(original: str, chance: random.Random) -> str:
    area = chance.choice([number for number in range(1, 900) if number != 666])
    return _filled(original, f"{area:03d}{chance.randrange(1, 100):02d}{chance.randrange(1, 10000):04d}")


def _bank_card(original: str, chance: random.Random) -> str:
    digits = _digits(original)
    # The first two tell the brand, and so the length.
    body = digits[:2] + _random_digits(chance, len(digits) - 3)
    return _filled(original, body + luhn_digit(body))


def _bank_account(original: str, chance: random.Random) -> str:
    signs = "".join(character for character in fold(original) if character.isalnum()).upper()
    if signs[:2].isalpha() and is_iban(signs):
        body = "".join(
            chance.choice(_PLATE_LETTERS) if sign.isalpha() else str(chance.randrange(10)) for sign in signs[4:]
        )
        number = iter(signs[:2] + iban_digits(signs[:2], body) + body)
        return "".join(next(number) if character.isalnum() else character for character in original)
    return _filled(original, str(chance.randrange(1, 10)) + _random_digits(chance, len(_digits(original)) - 1))


def _ip(original: str, chance: random.Random) -> str:
    if ":" in fold(original):
        return "2001:db8:" + ":".join(f"{chance.randrange(0x1000, 0x10000):x}" for _ in range(6))
    first = _digits(fold(original).split(".")[0])
    # Private addresses stay private ones, so that a text still makes sense.
    network = {"10": "10", "192": "192.168", "172": "172.16"}.get(
        first, str(chance.choice((23, 45, 61, 89, 101, 118, 139, 178)))
    )
    count = 4 - len(network.split("."))
    return ".".join([network, *[str(chance.randrange(1, 255)) for _ in range(count)]])


def _plate(original: str, chance: random.Random) -> str:
    made = []
    for index, character in enumerate(original):
        folded = fold(character)
        if index == 0 and folded in _PROVINCES + "新藏使领":
            made.append(chance.choice(_PROVINCES))
        elif folded.isdecimal():
            made.append(str(chance.randrange(10)))
        elif folded.isascii() and folded.isalpha():
            keeps_electric = folded in "DFdf" and len(_signs(original)) == 8
            made.append(folded if keeps_electric else chance.choice(_PLATE_LETTERS))
        else:
            made.append(character)
    return "".join(made)


def _signs(text: str) -> str:
    return "".join(character for character in text if character.isalnum())


def _passport(original: str, chance: random.Random) -> str:
    return _refilled(original, lambda _: str(chance.randrange(10)))
