"""E-mail addresses, and the addresses of machines."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable

from tunesmith_workers.deid.finding import Cues, Reading, Span

_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_EMAIL = re.compile(
    rf"(?<![A-Za-z0-9._%+-])[A-Za-z0-9_](?:[A-Za-z0-9._%+'-]{{0,62}}[A-Za-z0-9_%+-])?@(?:{_LABEL}\.){{1,6}}[A-Za-z]{{2,24}}"
    r"(?![A-Za-z0-9-]|\.[A-Za-z0-9]|@)"
)
_REPOSITORY = re.compile(r"git@[^:\s]+$")


def emails(reading: Reading) -> Iterable[Span]:
    for match in _EMAIL.finditer(reading.folded):
        address_of_a_repository = _REPOSITORY.match(match[0]) and reading.folded[match.end() : match.end() + 1] == ":"
        if not address_of_a_repository:
            yield Span("EMAIL", *match.span(), 1.0)


_OCTET = r"(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)"
_IPV4 = re.compile(
    rf"(?:(?<![0-9A-Za-z_.-])|(?<=(?<![A-Za-z])IP)|(?<=(?<![A-Za-z])ip))(?<!::)(?:{_OCTET}\.){{3}}{_OCTET}(?![0-9A-Za-z_]|\.[0-9]|-\d+\.)"
)
_IPV6 = re.compile(
    r"(?<![0-9A-Za-z_:.])[0-9A-Fa-f]{0,4}(?::[0-9A-Fa-f]{0,4}){2,7}(?:(?:\d{1,3}\.){3}\d{1,3})?(?![0-9A-Za-z_:])"
)
_VERSION = Cues(
    r"\bip\b|ipv4|地址|主机|服务器|登录|host|server|address|login|ping",
    r"版本|固件|驱动|升级|更新|内核|\bv(?:er(?:sion)?)?\b\.?|release|build|firmware|driver|upgrade|updat|chrome|kernel|patch|sdk"
    r"|章|节|条款|section|chapter|clause|oid|第",
    reach=20,
)
_COUNTED_AFTER = re.compile(r"\s?[章节条款]")
_V_BEFORE = re.compile(r"(?:[vV]|版)\.?\s?$")
_IPV6_STARTS = re.compile(r"(?:2[0-9a-f]{3}|3[0-9a-f]{3}|f[cdef][0-9a-f]{2}|64:ff9b|::ffff):", re.IGNORECASE)


_PRODUCT = re.compile(r"\b[A-Z][A-Za-z.+]{2,20} $")
_NETWORK = re.compile(
    r"\b(?i:ips?|ipv4|host|hosts|server|servers|address|from|to|gateway|router|dns|proxy|node|peer|client|ping|login|source|destination|attacker|subnet|vpn|block|allow|ban) $"
)


def _is_version(text: str, match: re.Match[str], address: ipaddress.IPv4Address) -> bool:
    """``Kubernetes 1.29.3.1``: small numbers right after the name of a product."""
    before = text[max(0, match.start() - 24) : match.start()]
    small = all(int(octet) < 100 for octet in match[0].split("."))
    return small and not address.is_private and _PRODUCT.search(before) is not None and not _NETWORK.search(before)


def ips(reading: Reading) -> Iterable[Span]:
    """Addresses that lead to a machine; version numbers, loopback and masks do not."""
    text = reading.folded
    for match in _IPV4.finditer(text):
        address = ipaddress.IPv4Address(match[0])
        nowhere = address.is_loopback or address.is_unspecified or match[0].startswith(("255.", "0."))
        if (
            nowhere
            or _COUNTED_AFTER.match(text, match.end())
            or _V_BEFORE.search(text[: match.start()][-3:])
            or _VERSION.before(text, match.start()) == "bad"
        ):
            continue
        if _is_version(text, match, address):
            continue
        yield Span("IP", *match.span(), 0.95)
    for match in _IPV6.finditer(text):
        if _IPV6_STARTS.match(match[0]) and _is_ipv6(match[0]):
            yield Span("IP", *match.span(), 0.97)


def _is_ipv6(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True
