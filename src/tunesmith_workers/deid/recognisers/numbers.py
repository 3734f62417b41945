"""Numbers that name a person or their money: identity cards, bank cards and accounts, social security, passports."""

from __future__ import annotations

import re
from collections.abc import Iterable

from tunesmith_workers.deid.checksums import is_id_card, is_luhn, looks_like_id_card
from tunesmith_workers.deid.finding import Cues, Reading, Span

_NOT_A_DIGIT = re.compile(r"[^0-9Xx]")

COUNTED = (
    r"订单|单号|流水|编号|编码|运单|快递|序列号|批次|型号|货号|工单|案号|税号|信用代码|合同|发票|保单|时间戳|版本"
    r"|\border\b|tracking|invoice|\bref(?:erence)?\b|\bcase\b|ticket|\bsku\b|\bisbn\b|\bimei\b|serial|timestamp"
    r"|\bpart\b|model|batch|\blot\b|\bpo\b|transaction id|confirmation|\bupc\b|\bean\b"
)
"""Words that say that the number after them counts things, not people."""


_ID_CARD = re.compile(
    r"(?<![0-9])(?<![0-9][.-])[1-9]\d{5}[ -]?(?:18|19|20)\d{2}(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])[ -]?\d{3}[\dXx]"
    r"(?![0-9A-Za-z])"
)


def identity_cards(reading: Reading) -> Iterable[Span]:
    """18 characters with a region, a date of birth and the right checksum; with a wrong one it is nothing."""
    for match in _ID_CARD.finditer(reading.folded):
        if is_id_card(_NOT_A_DIGIT.sub("", match[0])):
            yield Span("ID_CARD", *match.span(), 1.0)


_CARD = re.compile(
    r"(?<![0-9A-Za-z_.])(?<![0-9][ -])(?:"
    r"\d{14,19}"
    r"|\d{4}(?P<s>[ -])\d{4}(?P=s)\d{4}(?P=s)\d{4}(?:(?P=s)\d{1,3})?"
    r"|3\d{3}(?P<t>[ -])\d{6}(?P=t)\d{4,5}"
    r"|\d{6}[ -]\d{13}"
    r")(?![0-9A-Za-z_]|[ -][0-9]|\.\d)"
)
_BRANDS = re.compile(
    r"4\d{15}|4\d{18}|(?:5[1-5]|2[2-7])\d{14}|3[47]\d{13}|3[068]\d{12}|35\d{14}|6[0-9]\d{14,17}|81\d{14,17}|9\d{15,18}"
)
_CARD_CUES = Cues(r"卡号|银行卡|信用卡|储蓄卡|借记卡|工资卡|账号|帐号|\bcard\b|visa|master|amex", COUNTED, reach=30)


def bank_cards(reading: Reading) -> Iterable[Span]:
    """A length and a beginning that cards have, and the Luhn check; not where the text calls it an order number."""
    for match in _CARD.finditer(reading.folded):
        digits = _NOT_A_DIGIT.sub("", match[0])
        if (
            _BRANDS.fullmatch(digits)
            and is_luhn(digits)
            and len(set(digits)) > 1
            and not looks_like_id_card(digits)
            and _CARD_CUES.before(reading.folded, match.start()) != "bad"
        ):
            yield Span("BANK_CARD", *match.span(), 0.98)


_ACCOUNT = re.compile(r"(?<![0-9A-Za-z_.-])\d(?:[ -]?\d){5,24}(?![0-9A-Za-z_]|\.\d|-\d)")
_CHINESE_ACCOUNT = re.compile(
    r"(?:银行|对公|收款|汇款|转账|付款|开户|结算|基本|公司|单位|工资)[^\n。；;]{0,30}?(?:账号|帐号|账户|帐户|户头)"
    r"(?:号码|号)?(?:[是为:： 是]|\s){0,4}$"
    r"|(?:账号|帐号|账户|帐户|户头)[^\n。；;]{0,12}(?:银行|支行|分行|信用社|[工农中建招交]行)[:： ]{0,2}$"
    r"|(?:银行|支行|分行|信用社|农商行)[^\n。；;]{0,16}?(?:账|帐)[号户](?:[是为:： ]|\s){0,4}$"
)
_ENGLISH_ACCOUNT = re.compile(
    r"\b(?:(?:bank|checking|savings|deposit|current|wire|payroll)\s+(?:account|acct)|(?:account|acct|a/c)\.?\s*(?:number|no|num|#))"
    r"\.?\s*(?:number|no|num)?\.?\s*(?:is|was|to|into|ending in)?\s*[:#=]?\s*(?:is\s+)?$"
    r"|\b(?:routing|aba|sort code|swift|bic)\b[^\n]{0,40}\b(?:account|acct|a/c)\b\.?\s*[:#=]?\s*$",
    re.IGNORECASE,
)
_PLAIN_ACCOUNT = re.compile(r"(?:账号|帐号|账户|帐户)(?:[是为:： ]|\s){0,4}$")
_BANKING = re.compile(r"银行|支行|分行|开户|转账|汇款|收款|[工农中建招交]行")
_NOT_BANKS = re.compile(
    r"微信|支付宝|游戏|登录|用户|会员|QQ|抖音|微博|utility|electric|customer|steam|game|user", re.IGNORECASE
)
_MOBILE = re.compile(r"1[3-9]\d{9}")


def bank_accounts(reading: Reading) -> Iterable[Span]:
    """Numbers that the words before them call a bank account. IBANs are presidio's."""
    for match in _ACCOUNT.finditer(reading.folded):
        digits = _NOT_A_DIGIT.sub("", match[0])
        before = reading.folded[max(0, match.start() - 60) : match.start()].split("\n")[-1]
        if _NOT_BANKS.search(before[-16:]) or looks_like_id_card(digits) or _MOBILE.fullmatch(digits):
            continue
        around = reading.folded[max(0, match.start() - 60) : match.end() + 30]
        if (
            _CHINESE_ACCOUNT.search(before)
            or _ENGLISH_ACCOUNT.search(before)
            or (_PLAIN_ACCOUNT.search(before) and _BANKING.search(around))
        ):
            yield Span("BANK_ACCOUNT", *match.span(), 0.9)


_SSN = re.compile(
    r"(?<![0-9A-Za-z_-])(?<!\d[. ])(?!000|666|9)\d{3}(?P<s>[- ]?)(?!00)\d{2}(?P=s)(?!0000)\d{4}(?![0-9A-Za-z_]|-\d|\.\d)"
)
_SSN_CUES = Cues(r"\bssn\b|social security|\bss#|社会安全号|社保号", COUNTED, reach=40)


def social_security_numbers(reading: Reading) -> Iterable[Span]:
    """Three, two and four digits with dashes; with spaces or together only where the text calls them one."""
    for match in _SSN.finditer(reading.folded):
        cue = _SSN_CUES.before(reading.folded, match.start())
        if cue == "good" or (match["s"] == "-" and cue is None):
            yield Span("SSN", *match.span(), 0.95)


_PASSPORT = re.compile(r"(?<![0-9A-Za-z_-])(?=[A-Z0-9]{0,3}\d{5})(?:[A-Z]{1,2}\d{6,8}|\d{9})(?![0-9A-Za-z_]|-\d|\.\d)")
_PASSPORT_CUES = Cues(
    r"护照|通行证|旅行证|passport|travel document",
    r"身份证|手机|电话|订单|银行|卡号|\bssn\b|social security|phone|account|order|visa number|flight|航班",
    reach=40,
)


def passports(reading: Reading) -> Iterable[Span]:
    """A letter or two and digits, or nine digits, near a word for passport."""
    for match in _PASSPORT.finditer(reading.folded):
        before = _PASSPORT_CUES.before(reading.folded, match.start())
        lettered = before is None and match[0][0].isalpha()
        if before == "good" or (
            lettered and (_follows(reading.folded, match.end()) or _is_spoken_of(reading.folded, match.start()))
        ):
            yield Span("PASSPORT", *match.span(), 0.92)


def _is_spoken_of(text: str, start: int) -> bool:
    """``a passport; hers is M23456789``: the word stands in the clause before."""
    line = text[max(0, start - 80) : start].rpartition("\n")[2]
    return _SPOKEN_OF.search(line) is not None


_SPOKEN_OF = re.compile(
    r"(?:护照|通行证|passport)[^.。!?！？\d]{0,60}(?:是|为|:|号|\bis|\bwas|number|no\.?) ?$", re.IGNORECASE
)


def _follows(text: str, end: int) -> bool:
    return _PASSPORT_CUES.after(text, end) == "good"
