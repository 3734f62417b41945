"""Our recognisers, by name. Each is a function from a reading to what it found there."""

from __future__ import annotations

from collections.abc import Mapping

from tunesmith_workers.deid.finding import Recogniser
from tunesmith_workers.deid.recognisers import (
    chinese_places,
    english_places,
    network,
    numbers,
    phones,
    plates,
)
from tunesmith_workers.deid.recognisers.chinese_people import ChinesePeople
from tunesmith_workers.deid.recognisers.english_people import EnglishPeople


def build_recognisers(word_tags: Mapping[str, str]) -> dict[str, Recogniser]:
    """``word_tags`` is jieba's dictionary: every Chinese word with its usual part of speech."""
    return {
        "identity cards": numbers.identity_cards,
        "bank cards": numbers.bank_cards,
        "bank accounts": numbers.bank_accounts,
        "social security numbers": numbers.social_security_numbers,
        "passports": numbers.passports,
        "phones": phones.phones,
        "landlines": phones.landlines,
        "e-mail": network.emails,
        "addresses of machines": network.ips,
        "plates": plates.plates,
        "Chinese addresses": chinese_places.addresses,
        "English addresses": english_places.addresses,
        "Chinese people": ChinesePeople(word_tags).find,
        "English people": EnglishPeople.load().find,
    }
