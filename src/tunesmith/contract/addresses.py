"""How far an address may be trusted: the judgement behind every URL that a user gives. Pure tables; resolves nothing.

They follow the IANA registries of special-purpose addresses, because ``is_global`` takes multicast, site-local, NAT64 and
6to4 for public, and differs between versions of Python.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from types import MappingProxyType

Address = IPv4Address | IPv6Address


class Reach(IntEnum):
    """How far an address may be trusted; the larger the less."""

    PUBLIC = 0  # anybody's, on the internet
    PRIVATE = 1  # this machine, this network, or reserved for something special
    NEVER = 2  # link-local, where clouds hand out credentials; and what no server listens on


THIS_MACHINE: Mapping[Address, Address] = MappingProxyType(
    {IPv4Address("0.0.0.0"): IPv4Address("127.0.0.1"), IPv6Address("::"): IPv6Address("::1")}  # noqa: S104  # nothing listens
)
"""Addresses that a program listens on, given by people as its address: a kernel connects them to loopback."""


def reach(address: Address) -> Reach:
    """Judge an address with all IPv4 addresses it carries inside; the worst counts."""
    if address in THIS_MACHINE:
        return reach(THIS_MACHINE[address])
    if isinstance(address, IPv4Address):
        if any(address in network for network in _NEVER_4):
            return Reach.NEVER
        return Reach.PRIVATE if any(address in network for network in _PRIVATE_4) else Reach.PUBLIC
    if address.scope_id is not None or any(address in network for network in _NEVER_6):
        return Reach.NEVER
    public = any(address in network for network in _PUBLIC_6) and not any(address in net for net in _PRIVATE_6)
    return max([Reach.PUBLIC if public else Reach.PRIVATE, *map(reach, _carried(address))])


def _carried(address: IPv6Address) -> list[IPv4Address]:
    """The IPv4 addresses that a gateway, a tunnel or the kernel would make of it."""
    number = int(address)
    if address in _6TO4:
        return [_low32(number >> 80)]
    if address in _TEREDO:
        return [_low32(number >> 64), _low32(~number)]
    if any(address in network for network in _LAST_32_BITS) and number > 1:
        return [_low32(number)]
    return []


def _low32(number: int) -> IPv4Address:
    return IPv4Address(number & 0xFFFFFFFF)


_NEVER_4 = tuple(
    map(
        IPv4Network,
        (
            "0.0.0.0/8",  # "this network", but for 0.0.0.0 itself
            "100.100.100.200/32",  # metadata at Alibaba
            "168.63.129.16/32",  # the host's agent at Azure; a public address otherwise
            "169.254.0.0/16",  # link-local, and metadata nearly everywhere
            "192.0.0.192/32",  # metadata at Oracle
            "224.0.0.0/4",  # multicast
            "255.255.255.255/32",  # broadcast
        ),
    )
)
_PRIVATE_4 = tuple(
    map(
        IPv4Network,
        (
            "10.0.0.0/8",
            "100.64.0.0/10",  # carrier-grade NAT
            "127.0.0.0/8",
            "172.16.0.0/12",
            "192.0.0.0/24",  # protocol assignments
            "192.0.2.0/24",  # documentation
            "192.88.99.0/24",  # relays of 6to4
            "192.168.0.0/16",
            "198.18.0.0/15",  # benchmarking
            "198.51.100.0/24",  # documentation
            "203.0.113.0/24",  # documentation
            "240.0.0.0/4",  # reserved
        ),
    )
)
_NEVER_6 = tuple(
    map(
        IPv6Network,
        (
            "64:ff9b:1::/48",  # a local NAT64: where it puts the IPv4 address cannot be known
            "fd00:42::42/128",  # metadata at Scaleway
            "fd00:a9fe:a9fe::/48",  # metadata at Linode
            "fd00:c1::a9fe:a9fe/128",  # metadata at Oracle
            "fd00:ec2::/32",  # metadata and other services at AWS
            "fd20:ce::254/128",  # metadata at Google
            "fe80::/10",  # link-local
            "ff00::/8",  # multicast
        ),
    )
)
# What is none of these is not assigned to anybody, and counts as private.
_PUBLIC_6 = tuple(map(IPv6Network, ("2000::/3", "64:ff9b::/96", "::ffff:0:0/96")))
_PRIVATE_6 = tuple(
    map(
        IPv6Network,
        (
            "2001::/23",  # protocol assignments, Teredo among them
            "2001:db8::/32",  # documentation
            "3fff::/20",  # documentation
        ),
    )
)
_6TO4 = IPv6Network("2002::/16")
_TEREDO = IPv6Network("2001::/32")
# NAT64, IPv4-mapped, IPv4-translated, and IPv4-compatible, which holds ::1, too.
_LAST_32_BITS = tuple(map(IPv6Network, ("64:ff9b::/96", "::ffff:0:0/96", "::ffff:0:0:0/96", "::/96")))
