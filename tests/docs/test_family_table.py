"""docs/training.md shows for many model families that acceleration changes nothing (``nox -s families`` writes it)."""

from __future__ import annotations

from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "training.md"
LORA, SFT, LOSS, WEIGHTS, WAYS = range(1, 6)


@pytest.fixture(scope="module")
def rows() -> list[list[str]]:
    _, begin, rest = PAGE.read_text().partition("<!-- families: begin -->")
    table, end, _ = rest.partition("<!-- families: end -->")
    assert begin
    assert end
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if line[:1] == "|"]
    return cells[2:]


def differences(cell: str) -> list[float]:
    """One for each method that was not refused."""
    return [float(value) for value in cell.split(" / ") if value != "-"]


def test_many_families_are_compared(rows):
    """At least fifty by each method, none of them twice."""
    assert len({row[0] for row in rows}) == len(rows)
    for method in (LORA, SFT):
        assert sum(row[method] == "same" for row in rows) >= 50


def test_acceleration_changes_no_result(rows):
    """The same losses to 1e-4 and the same weights to 1e-3 of what training changed, or refused with the reason."""
    for row in rows:
        assert {row[LORA], row[SFT]} <= {"same", "refused"}, row
        assert all(difference <= 1e-4 for difference in differences(row[LOSS])), row
        assert all(difference <= 1e-3 for difference in differences(row[WEIGHTS])), row
        assert row[WAYS], row
