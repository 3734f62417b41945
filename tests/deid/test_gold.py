"""What is found and what is not, measured on sentences with known answers."""

from __future__ import annotations

from collections import Counter

from gold_parts import rows, scores

from tunesmith_workers.deid import KINDS


def test_the_table_is_large_and_varied():
    """Over 300 sentences in two languages, every kind at least 15 times, many without any personal data."""
    table = rows()
    assert len(table) >= 300
    assert len({row.text for row in table}) == len(table)
    assert sum(row.held_out for row in table) >= 100
    assert sum(not row.spans for row in table) >= 100
    seen = Counter(kind for row in table for kind, _, _ in row.spans)
    assert set(seen) == set(KINDS)
    assert min(seen.values()) >= 15
    for row in table:
        assert all(0 <= start < end <= len(row.text) for _, start, end in row.spans)


def test_what_is_found_is_right_and_nearly_everything_is_found(engine):
    """Recall and precision at least 0.95 in all and 0.90 for every kind, counting exact places only."""
    found = scores(engine.spans, rows())
    assert found["all"].recall >= 0.95, found
    assert found["all"].precision >= 0.95, found
    for kind in KINDS:
        assert found[kind].recall >= 0.90, (kind, found[kind])
        assert found[kind].precision >= 0.90, (kind, found[kind])
