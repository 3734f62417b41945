"""Chinese postal addresses: found by their fine end (a house number, a flat), followed to the left by words of places.

A province, city or district alone is no address of a person, so it is left.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator

from tunesmith_workers.deid.finding import Reading, Span, Token

_COUNT = r"(?:\d{1,5}(?:[-之]\d{1,4})?|[一二三四五六七八九十百零〇两]{1,6}|[甲乙丙丁]\d{1,4})"
_COMPOUND = r"小区|社区|花园|公寓|家园|嘉园|新村|新城|花城|豪庭|名苑|雅苑|公馆|名邸|宿舍|大院|别墅|山庄|家属院|苑|城|府|湾|庭|园|里|坊|邨|居|轩"
_BUILDING = r"大厦|广场|中心|大楼|写字楼|科技园|产业园|工业园|创意园|软件园|创业园|园区|商厦|商城|百货|酒店|宾馆|教学楼|图书馆|大学|学院|医院|中学|小学|校区|市场|商场"
_STREET_NUMBER = (
    r"(?:大街|大道|路|街|巷|弄|胡同|里|条|段|道)"
    r"(?:[东西南北中一二三四五六七八九十]{1,2}(?:段|路|街|巷|弄|条|里)|[东西南北中])?"
    rf"\s?{_COUNT}(?:号|弄|巷|#)(?:大?院|楼(?![下上前后里外]))?"
)
_ANCHOR = re.compile(
    rf"{_STREET_NUMBER}"
    rf"|(?:村|屯|寨|庄|坪|湾|坝|沟)(?:民委员会|委会)?\s?{_COUNT}(?:组|社|队|号)"
    rf"|(?:{_COMPOUND})(?:[一二三四五六七八九十\dA-Z东西南北]{{1,2}}[期区苑里])?\s?(?:{_COUNT}|[A-Z]\d?)(?:栋|幢|号楼|座|单元|号院|号|楼)"
    rf"|(?:{_BUILDING})\s?(?:[A-Z]\d?|{_COUNT})(?:座|栋|幢|号楼|楼|层|室|区)"
)
_TAIL = re.compile(
    rf"[ ,，]?(?:"
    rf"[A-Za-z一二三四五六七八九十东西南北]?[^\W的是在和与有到去了这那及或把被让给跟很也\d_]{{1,9}}?(?:{_COMPOUND}|{_BUILDING})(?=[\dA-Z一二三四五六七八九十东西南北主附裙])"
    rf"|[^\W的是在和与有到去了这那及或把被让给跟很也\d_]{{2,9}}?(?:{_BUILDING}|小区|花园|公寓|家园|新村)(?=的|门口|楼下|对面|旁|$|[\W\d_])"
    rf"|(?:[A-Za-z]\d{{0,4}}|{_COUNT})(?:号楼(?![下上前后里外])|号院|栋|幢|座|塔|单元|层|楼(?![下上前后里外])|号库|号仓|号铺|号厂房|室|房|户|号|门|区|期|组|舍)(?:[东西南北][门侧户]?)?"
    rf"|附\d{{1,4}}号|[主附裙]楼(?=\d)"
    rf"|[东西南北](?:校区|[区苑座楼])"
    rf"|[A-Z]?\d{{1,4}}(?:-[A-Z]?\d{{1,5}}){{0,3}}(?:室|号|房)?(?![\d年月日个元点:：])"
    rf")"
)
_MOST_TAILS = 8
_NO_OWN_NAME = re.compile(rf"(?:{_COMPOUND}|{_BUILDING}|国际)+")

_AFTER_CUE = re.compile(
    r"(?:地址|住址|住所|家住|住在|现住|居住于|居住在|寄到|寄往|送到|送货到|户籍地|收货地)(?:[是为在:： ]|\s){0,3}"
    r"([^\W_]{2,30}?(?:大街|大道|路|街|巷|弄|胡同|小区|花园|公寓|家园|新村|社区|村|苑|大厦|宿舍|别墅))(?![^\W\d_])"
)
_ADMIN = "省市区县旗镇乡村州盟岛屯庄寨"
_ADMIN_WORDS = frozenset(
    "新区 开发区 高新区 自治区 自治州 自治县 街道 社区 工业园区 园区 大学城 经济技术开发区 高新技术开发区 特区 林场 农场 景区 片区".split()
)
_STREETS = frozenset(
    "路 街 道 巷 弄 里 段 条 大街 大道 胡同 东路 西路 南路 北路 中路 东街 西街 南街 北街 中街 支路 环路".split()
)
_SIDES = frozenset("东南西北中前后")
_NO_NAME_TAGS = frozenset({"p", "c", "u", "uj", "ul", "uz", "ud", "ug", "uv", "d", "r", "x", "y", "o", "e", "zg", "f"})
_NO_NAME_WORDS = frozenset(
    "地址 住址 住 在 到 于 是 为 至 家 寄 送 去 来 往 从 我 你 他 她 它 们 我家 他家 她家 位于 住在 家住 现住 寄到 送到 搬到 前往 来到 "
    "居住 公司 单位 办公 收货 快递 户籍 籍贯 发货 联系 通讯 邮寄 回家 门店 店 总部 学校 医院 本人 客户 租 买 说 请 把 将 现 号 楼 和 与 及".split()
)


def addresses(reading: Reading) -> Iterable[Span]:
    """From the largest place that is named to the last detail."""
    if not reading.tokens:
        return
    text, tokens = reading.folded, reading.tokens
    starts = [token.start for token in tokens]
    for match in _ANCHOR.finditer(text):
        start = _start(tokens, bisect_right(starts, match.start()) - 1, match.start())
        if start < match.start():
            yield Span("ADDRESS", start, _end(text, match.end()), 0.96)
    for match in _AFTER_CUE.finditer(text):
        first = bisect_right(starts, match.start(1)) - 1
        if tokens[first].tag.startswith("ns") or tokens[first].word[-1] in _ADMIN:
            yield Span("ADDRESS", match.start(1), _end(text, match.end()), 0.88)


def _end(text: str, end: int) -> int:
    for _ in range(_MOST_TAILS):
        match = _TAIL.match(text, end)
        if match is None:
            break
        end = match.end()
    return end


def _start(tokens: tuple[Token, ...], index: int, anchor: int) -> int:
    """Where the address begins whose fine end begins at ``anchor``, within the token at ``index``."""
    position = anchor
    bridge: list[int] = []
    """Words that may be the name of a street or a compound, if what stands before them is a place."""
    named = False
    for token in _leftwards(tokens, index):
        if token.start >= anchor:
            continue
        word = token.word[: anchor - token.start]
        if word == " " and not bridge:
            position = token.start
        elif _is_place(token, word):
            position = token.start
            named = named or (word not in _STREETS and len(word) > 1)
            bridge.clear()
        elif _may_be_name(token, word) and len(bridge) < 2:
            # The word right before the fine end may be of any sort; others only on the way to a place.
            if not named and word not in _SIDES and not _NO_OWN_NAME.fullmatch(word):
                position = token.start
                named = True
            elif named:
                bridge.append(token.start)
            else:
                position = token.start
        else:
            break
    while position < anchor and _char(tokens, position) == " ":
        position += 1
    return position


def _leftwards(tokens: tuple[Token, ...], index: int) -> Iterator[Token]:
    yield from reversed(tokens[max(0, index - 24) : index + 1])


def _char(tokens: tuple[Token, ...], position: int) -> str:
    for token in tokens:
        if token.start <= position < token.end:
            return token.word[position - token.start]
    return ""


def _is_place(token: Token, word: str) -> bool:
    if word in _NO_NAME_WORDS:
        return False
    return (
        token.tag.startswith("ns")
        or word in _ADMIN_WORDS
        or word in _STREETS
        or (word[-1] in _ADMIN and token.tag not in _NO_NAME_TAGS)
        or (word[-1] in "路街巷" and len(word) > 2 and token.tag[:1] == "n")
    )


def _may_be_name(token: Token, word: str) -> bool:
    return (
        word not in _NO_NAME_WORDS
        and (token.tag not in _NO_NAME_TAGS or word in _SIDES or len(word) > 2 or (token.tag == "f" and len(word) > 1))
        and word[-1].isalnum()
    )
