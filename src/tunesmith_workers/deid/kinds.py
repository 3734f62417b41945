"""The kinds of personal data that are told apart. Their names are fixed: policies and reports use them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

KINDS: Mapping[str, str] = MappingProxyType(
    {
        "PERSON": "a person's name; of `Mr Smith` and `王先生` the name without the title",
        "PHONE": "a mobile number, or any number of a country that does not tell the two apart",
        "LANDLINE": "a Chinese landline number, with its extension",
        "EMAIL": "an e-mail address",
        "ID_CARD": "a Chinese identity card number of 18 characters with a right checksum",
        "SSN": "a US social security number",
        "BANK_CARD": "the number of a bank or credit card that passes the Luhn check",
        "BANK_ACCOUNT": "an IBAN with a right checksum, or an account number that the text calls one",
        "ADDRESS": "a postal address down to a street, a building or a village group; a city alone is none",
        "IP": "an IPv4 or IPv6 address other than loopback and masks",
        "PLATE": "a vehicle's licence plate",
        "PASSPORT": "the number of a passport or travel permit that the text calls one",
    }
)
