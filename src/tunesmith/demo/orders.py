"""The demo's data: one-line orders in English and the JSON they stand for, made up from word lists.

Every row is a function of its seed. Training and held-out orders can never meet: which side an order belongs to is
decided by a hash of its six values. Nothing here reads or writes files, and nothing knows about models.
"""

from __future__ import annotations

import json
import random
import zlib
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

KEYS = ("customer", "item", "quantity", "size", "color", "city")
INSTRUCTION = "Turn the order into JSON: " + ", ".join(KEYS) + "."

TRAIN_ROWS = 400
HELD_OUT_ROWS = 60

DEMO_HYPERPARAMS: Mapping[str, Any] = MappingProxyType(
    {
        "lora.r": 16,
        "lora.lora_alpha": 32,
        "training.learning_rate": 0.001,
        "training.per_device_train_batch_size": 8,
        "training.max_steps": 60,
        "training.warmup_steps": 3,
        "training.logging_steps": 2,
        "checkpoint.save_steps": 30,
    }
)
"""What the demo asks of the ``lora`` recipe. Measured: 20 steps get 55 of 60 held-out orders right, 50 steps all."""

Row = dict[str, Any]


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_FIRST_NAMES = _words("""
    Maria Ahmed Chen Olivia Tomas Priya Jonas Fatima Diego Hannah Kofi Yuki Elena Samuel Ingrid Mateo
    Aisha Peter Leila Bruno Nadia Oscar Mei Viktor Clara Hugo Amara Felix Sofia Ravi Greta Pablo Zoe
    Emil Rosa Ivan Lucia Noah
""")
_LAST_NAMES = _words("""
    Silva Khan Berg Novak Rossi Okafor Tanaka Meyer Lopez Larsen Patel Dubois Costa Weber Haddad
    Kowalski Moreno Fischer Ito Santos Nilsson Rahman Bauer Ferrari Walsh Horvat Adeyemi Laurent Petrov
    Quinn
""")
_CITIES = _words("""
    Lisbon Oslo Nairobi Boston Kyoto Madrid Cairo Toronto Berlin Lima Prague Dublin Seoul Athens Vienna
    Mumbai Helsinki Denver Accra Porto Warsaw Chicago Geneva Osaka Tunis Bergen Havana Sydney Zurich
    Quito
""")
_ITEMS = _words("""
    mug/mugs lamp/lamps chair/chairs blanket/blankets backpack/backpacks vase/vases jacket/jackets
    notebook/notebooks umbrella/umbrellas basket/baskets pillow/pillows candle/candles scarf/scarves
    kettle/kettles clock/clocks mirror/mirrors towel/towels shirt/shirts box/boxes dress/dresses
    hat/hats teapot/teapots rug/rugs bench/benches
""")
"""Each singular with its plural: the order may say either, the answer always says the singular."""
_SIZES = _words("""
    small medium large tiny huge
""")
_COLORS = _words("""
    red blue green black white yellow purple orange brown gray pink silver teal navy
""")
_NUMBER_WORDS = _words("""
    one two three four five six seven eight nine ten eleven twelve
""")

_PHRASES = (
    "{customer} from {city} wants {count} {size} {color} {things}.",
    "Please send {count} {color} {things}, {size}, to {customer} in {city}.",
    "Hi, this is {customer}. I need {count} {size} {things} in {color}, {city}.",
    "{count} {color} {things} ({size}) for {customer}, {city}",
    "Ship to {city}: {count} {size} {color} {things}, name {customer}.",
    "Can {customer} get {count} {things}, {size} and {color}, sent to {city}?",
)


def train(count: int = TRAIN_ROWS, seed: int = 0) -> list[Row]:
    """``count`` different rows to train on."""
    return _take(count, seed, held_out=False)


def held_out(count: int = HELD_OUT_ROWS, seed: int = 0) -> list[Row]:
    """``count`` different rows to score on; none of them is in ``train`` of any size or seed."""
    return _take(count, seed, held_out=True)


def to_json_lines(rows: list[Row]) -> str:
    """The rows as a JSON Lines file."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _take(count: int, seed: int, *, held_out: bool) -> list[Row]:
    chosen: dict[str, Row] = {}
    for answer, row in _endless_rows(random.Random(f"orders-{seed}")):
        if _belongs_to_held_out(answer) == held_out:
            chosen.setdefault(answer, row)
        if len(chosen) >= count:
            break
    return list(chosen.values())[:count]


def _endless_rows(source: random.Random) -> Iterator[tuple[str, Row]]:
    while True:
        singular, plural = source.choice(_ITEMS).split("/")
        quantity = source.randint(1, 12)
        values = {
            "customer": f"{source.choice(_FIRST_NAMES)} {source.choice(_LAST_NAMES)}",
            "item": singular,
            "quantity": quantity,
            "size": source.choice(_SIZES),
            "color": source.choice(_COLORS),
            "city": source.choice(_CITIES),
        }
        spoken = {
            **{key: str(value) for key, value in values.items()},
            "count": source.choice((str(quantity), _NUMBER_WORDS[quantity - 1])),
            "things": singular if quantity == 1 else plural,
        }
        answer = json.dumps(values)
        yield answer, _as_row(source.choice(_PHRASES).format_map(spoken), answer)


def _as_row(sentence: str, answer: str) -> Row:
    return {
        "messages": [
            {"role": "system", "content": INSTRUCTION},
            {"role": "user", "content": sentence[0].upper() + sentence[1:]},
            {"role": "assistant", "content": answer},
        ]
    }


def _belongs_to_held_out(answer: str) -> bool:
    # A tenth of all possible orders: plenty for scoring, and the list of training orders hardly shrinks.
    return zlib.crc32(answer.encode()) % 10 == 0
