"""Small, learnable rows for the real model: one line of an order, and the JSON that it stands for."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[2]
_THINGS = ("cup", "lamp", "chair", "book", "pen", "bag")


def write_orders(folder: Path, counts: Mapping[str, int]) -> dict[str, Path]:
    """A file of so many rows for each name; no row is in two of them."""
    chance = random.Random(7)
    number = 0
    files = {}
    folder.mkdir(parents=True, exist_ok=True)
    for name, count in counts.items():
        lines = []
        for _ in range(count):
            number += 1
            thing, many = chance.choice(_THINGS), chance.randint(1, 9)
            asked = {"role": "user", "content": f"Order {number}: {many} x {thing}"}
            answered = {"role": "assistant", "content": json.dumps({"item": thing, "count": many})}
            lines.append(json.dumps({"messages": [asked, answered]}) + "\n")
        files[name] = folder / f"{name}.jsonl"
        files[name].write_text("".join(lines))
    return files
