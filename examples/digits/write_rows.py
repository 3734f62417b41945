"""Writes scikit-learn's handwritten digits as train.csv, valid.csv and test.csv: python write_rows.py FOLDER."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    digits = load_digits()
    rows = np.column_stack([digits.data, digits.target])
    train, rest = train_test_split(rows, test_size=0.4, random_state=0, stratify=digits.target)
    valid, test = train_test_split(rest, test_size=0.5, random_state=0, stratify=rest[:, 64])
    for name, part in {"train": train, "valid": valid, "test": test}.items():
        np.savetxt(folder / f"{name}.csv", part, fmt="%d", delimiter=",")
        print(f"{folder / name}.csv: {len(part)} rows")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
