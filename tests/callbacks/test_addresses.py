"""Which addresses a user's URL may lead to: the whole table, and what hides inside IPv6."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.contract.addresses import Reach, reach

NEVER = (
    "0.1.2.3 0.255.255.255 169.254.169.254 169.254.0.1 169.254.170.2 100.100.100.200 168.63.129.16 192.0.0.192 "
    "224.0.0.1 239.255.255.255 255.255.255.255 "
    "fe80::1 fe80::a9fe:a9fe febf::1 fe80::1%eth0 ::1%lo ff02::1 ff0e::1 fd00:ec2::254 fd00:ec2::23 fd20:ce::254 "
    "fd00:42::42 fd00:c1::a9fe:a9fe fd00:a9fe:a9fe::1 64:ff9b:1::1 64:ff9b:1:a9fe:a9:fe00:: "
    "::ffff:169.254.169.254 ::ffff:0.0.0.1 ::ffff:224.0.0.1 ::ffff:0:169.254.169.254 ::169.254.169.254 "
    "64:ff9b::a9fe:a9fe 64:ff9b::100.100.100.200 2002:a9fe:a9fe:: 2002:a9fe:a9fe::1 2001:0:a9fe:a9fe:: "
    "2001:0:808:808::5601:5601 "
)

PRIVATE = (
    "0.0.0.0 :: ::ffff:0.0.0.0 127.0.0.1 127.255.255.254 10.0.0.1 172.16.0.1 172.31.255.255 192.168.1.1 100.64.0.1 100.127.255.255 192.0.0.1 "
    "192.0.2.1 192.88.99.1 198.18.0.1 198.19.255.255 198.51.100.1 203.0.113.9 240.0.0.1 255.255.255.254 "
    "::1 fc00::1 fd12:3456::1 fec0::1 feff::1 100::1 2001:db8::1 2001:2::1 2001:10::1 2001:20::1 3fff::1 5f00::1 4000::1 "
    "::ffff:127.0.0.1 ::ffff:10.1.2.3 ::ffff:0:127.0.0.1 ::127.0.0.1 ::8.8.8.8 "
    "64:ff9b::127.0.0.1 64:ff9b::10.0.0.1 2002:7f00:1:: 2002:c0a8:101::1 2001:0:808:808::f7f7:f7f7 "
)

PUBLIC = (
    "1.1.1.1 8.8.8.8 93.184.216.34 100.63.255.255 100.128.0.1 172.15.0.1 172.32.0.1 169.253.0.1 169.255.0.1 223.255.255.254 "
    "192.0.1.1 192.31.196.1 198.17.0.1 2606:4700:4700::1111 2001:4860:4860::8888 2a00:1450:4001::1 "
    "::ffff:8.8.8.8 64:ff9b::8.8.8.8 2002:808:808::1 "
)


@pytest.mark.parametrize("text", NEVER.split())
def test_link_local_metadata_and_multicast_are_never_reached(text):
    """Not even where the operator allows private addresses, in whatever IPv6 form they come."""
    assert reach(ip_address(text)) is Reach.NEVER


@pytest.mark.parametrize("text", PRIVATE.split())
def test_private_reserved_and_unassigned_addresses_need_the_operator(text):
    """What is not known to be on the internet counts as private."""
    assert reach(ip_address(text)) is Reach.PRIVATE


@pytest.mark.parametrize("text", PUBLIC.split())
def test_the_internet_is_open_to_all(text):
    """Neighbours of special ranges are judged by what they are."""
    assert reach(ip_address(text)) is Reach.PUBLIC


@given(st.ip_addresses(v=4))
def test_no_ipv6_form_of_an_address_is_trusted_more_than_itself(address: IPv4Address):
    """Mapped, translated, compatible, NAT64, 6to4, and both ends of Teredo."""
    number = int(address)
    forms = [
        IPv6Address(f"::ffff:{address}"),
        IPv6Address(f"::ffff:0:{address}"),
        IPv6Address(f"64:ff9b::{address}"),
        IPv6Address((0x2002 << 112) | (number << 80) | 1),
        IPv6Address((0x20010000 << 96) | (number << 64)),
        IPv6Address((0x20010000 << 96) | (0x08080808 << 64) | (number ^ 0xFFFFFFFF)),
    ]
    if number > 0xFFFF:
        forms.append(IPv6Address(f"::{address}"))
    assert all(reach(form) >= reach(address) for form in forms)


@given(st.ip_addresses(v=4))
def test_what_counts_as_public_is_what_the_standard_library_calls_global(address: IPv4Address):
    """Ours is a stricter table, never a wider one."""
    if reach(address) is Reach.PUBLIC:
        assert address.is_global
        assert not address.is_multicast
