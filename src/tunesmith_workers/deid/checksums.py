"""Which numbers can be what they look like: Luhn, identity cards (GB 11643), IBAN. And the digit that makes them right."""

from __future__ import annotations

from datetime import date

_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
_PROVINCES = frozenset(
    "11 12 13 14 15 21 22 23 31 32 33 34 35 36 37 41 42 43 44 45 46 50 51 52 53 54 61 62 63 64 65 71 81 82 83".split()
)


def luhn_digit(body: str) -> str:
    """The last digit of the card number that begins with ``body``."""
    total = 0
    for index, digit in enumerate(reversed(body)):
        doubled = int(digit) * (2 if index % 2 == 0 else 1)
        total += doubled - 9 if doubled > 9 else doubled
    return str(-total % 10)


def is_luhn(number: str) -> bool:
    return len(number) > 1 and luhn_digit(number[:-1]) == number[-1]


def id_card_digit(body: str) -> str:
    """The last character of the identity card number that begins with these 17 digits."""
    total = sum(int(digit) * weight for digit, weight in zip(body, _WEIGHTS, strict=True))
    return "10X98765432"[total % 11]


def is_id_card(number: str) -> bool:
    """Region, date of birth and checksum of an 18-character number."""
    return looks_like_id_card(number) and id_card_digit(number[:17]) == number[17].upper()


def looks_like_id_card(number: str) -> bool:
    """All but the checksum: such a number is a mistyped identity card and nothing else."""
    return (
        len(number) == 18
        and number[:17].isdecimal()
        and (number[17].isdecimal() or number[17] in "Xx")
        and number[:2] in _PROVINCES
        and _is_past_date(number[6:14])
    )


def _is_past_date(text: str) -> bool:
    try:
        day = date(int(text[:4]), int(text[4:6]), int(text[6:]))
    except ValueError:
        return False
    return day.year >= 1850 and day.year < 2100


def iban_digits(country: str, body: str) -> str:
    """The two check digits of an IBAN with this country and account part."""
    return f"{98 - _iban_number(f'{country}00', body) % 97:02d}"


def is_iban(text: str) -> bool:
    return len(text) > 4 and _iban_number(text[:4], text[4:]) % 97 == 1


def _iban_number(head: str, body: str) -> int:
    return int("".join(str(int(character, 36)) for character in body + head))
