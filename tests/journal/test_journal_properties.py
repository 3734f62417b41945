"""For any records whatever: what comes back after a restart is what was put in."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from journal_parts import Note, NoteSummary, opened

from tunesmith.journal import Journal, verify
from tunesmith.journal.index import Index

# Everything UTF-8 can hold, with what breaks line-based formats made likely.
NASTY = st.text(
    st.one_of(st.characters(codec="utf-8"), st.sampled_from('\n\r\0\x0b\x1c\x85\u2028\u2029"\\,{}\ufeff\U0001f600')),
    max_size=20,
)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | NASTY,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NASTY, inner, max_size=3),
    max_leaves=6,
)
# A few ids, so that they repeat; some that look like the line's own syntax.
IDS = st.sampled_from(["a", "b", 'c"', "\\", '","crc":"', "中", "\n"])
NOTES = st.builds(
    Note,
    id=IDS,
    text=NASTY,
    count=st.integers(-(2**63), 2**63 - 1),
    open=st.booleans(),
    more=st.dictionaries(NASTY, JSON, max_size=3),
)
STEPS = st.lists(st.lists(st.tuples(NASTY, NOTES), min_size=1, max_size=5), max_size=8)


@given(steps=STEPS)
@settings(deadline=None, max_examples=60)
def test_replay_gives_back_what_was_appended(steps):
    """Latest records, histories, summaries and their order, in the writing process and in the next."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "notes.jsonl"
        appended = [change for group in steps for change in group]
        asyncio.run(_append(path, steps, appended))
        asyncio.run(_check(opened(path), appended))
        verdict = verify(path)
        assert (verdict.sound, verdict.lines, verdict.records, verdict.torn_bytes) == (True, *[len(appended)] * 2, 0)


async def _append(path: Path, steps: list[list[tuple[str, Note]]], appended: list[tuple[str, Note]]) -> None:
    journal = opened(path, cached=2)
    for group in steps:
        await asyncio.gather(*(journal.append(event, note) for event, note in group))
    await _check(journal, appended)


async def _check(journal: Journal[Note, NoteSummary], appended: list[tuple[str, Note]]) -> None:
    latest = {note.id: note for _, note in appended}
    assert list(journal.summaries) == list(dict.fromkeys(note.id for _, note in appended))
    for record_id, note in latest.items():
        assert journal.get(record_id) == note
        assert journal.summary(record_id) == NoteSummary(note.id, note.count, note.open)
        changes = [(event, change) for event, change in appended if change.id == record_id]
        history = journal.history(record_id)
        assert [(entry.event, msgspec.json.decode(entry.data, type=Note)) for entry in history] == changes
    await journal.close()


@given(notes=st.lists(NOTES, max_size=12), block=st.integers(1, 700))
@settings(deadline=None, max_examples=60)
def test_replay_does_not_depend_on_where_blocks_end(notes, block):
    """A block may end in the middle of a line, of a character or of a checksum."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "notes.jsonl"
        asyncio.run(_append(path, [[("written", note)] for note in notes], [("written", note) for note in notes]))
        whole, pieces = Index[NoteSummary](), Index[NoteSummary]()
        with path.open("rb") as file:
            size = path.stat().st_size
            whole.replay(path, file.fileno(), size, NoteSummary)
            pieces.replay(path, file.fileno(), size, NoteSummary, block=block)
        assert vars(pieces) == vars(whole)
        assert whole.length == size
