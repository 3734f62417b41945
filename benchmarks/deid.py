"""How well personal data is found, by kind, and how fast texts are de-identified.

    python benchmarks/deid.py [--seconds 10]

The quality is measured on the gold table of tests/deid: exact places only, all sentences and those that were held out
while the recognisers were made. The speed is that of one process on one core, after a warm-up, with the texts of the same
table and with longer ones. It prints numbers, and passes or fails nothing.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "deid"))

from gold_parts import Score, rows, scores

from tunesmith.demo import orders
from tunesmith_workers.data.deidentify import Deidentifier
from tunesmith_workers.deid import Engine


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=10.0, help="how long each speed is measured")
    arguments = parser.parse_args()
    began = time.process_time()
    engine = Engine.load()
    print(f"loaded in {time.process_time() - began:.1f} s of processor time, torch loaded: {'torch' in sys.modules}")
    quality(engine)
    rows_of_the_demo(engine)
    speed(engine, arguments.seconds)
    print(f"resident: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024} MiB")


def quality(engine: Engine) -> None:
    table = rows()
    held_out = [row for row in table if row.held_out]
    found, unseen = scores(engine.spans, table), scores(engine.spans, held_out)
    print(f"\n{len(table)} sentences, {len(held_out)} of them held out")
    print(
        f"{'kind':13} {'number':>6} {'recall':>7} {'precision':>9}   held out: {'number':>6} {'recall':>7} {'precision':>9}"
    )
    for kind, score in found.items():
        held = unseen.get(kind, Score(0, 0, 0))
        print(
            f"{kind:13} {score.right + score.missed:6} {score.recall:7.3f} {score.precision:9.3f}"
            f"             {held.right + held.missed:6} {held.recall:7.3f} {held.precision:9.3f}"
        )


def rows_of_the_demo(engine: Engine) -> None:
    """A name in a sentence, and again in the JSON of the answer: both must go, and say the same afterwards."""
    before = orders.train()
    after = Deidentifier(engine, 1).rows(before)
    replaced = alike = 0
    for row, done in zip(before, after, strict=True):
        was, now = (json.loads(one["messages"][2]["content"])["customer"] for one in (row, done))
        sentence = done["messages"][1]["content"]
        replaced += (was not in sentence) + (was != now)
        alike += now in sentence
    print(f"\ndemo: {replaced} of {2 * len(before)} mentions of names replaced, alike in {alike} of {len(before)} rows")


def speed(engine: Engine, seconds: float) -> None:
    texts = [row.text for row in rows()]
    long = ["".join(texts[index : index + 20]) for index in range(0, len(texts), 20)]
    print(f"\n{'':34} {'texts/s':>9} {'characters/s':>13}   per core")
    for name, batch in (("short texts, found", texts), ("long texts, found", long)):
        measured(name, batch, seconds, lambda batch: [engine.spans(text) for text in batch])
    measured("short texts, replaced, one request", texts, seconds, lambda batch: engine.texts(batch, seed=1))


def measured(name: str, batch: list[str], seconds: float, work) -> None:
    work(batch)
    rounds, began = 0, time.process_time()
    while time.process_time() - began < seconds:
        work(batch)
        rounds += 1
    used = time.process_time() - began
    print(f"{name:34} {rounds * len(batch) / used:9,.0f} {rounds * sum(map(len, batch)) / used:13,.0f}")


if __name__ == "__main__":
    main()
