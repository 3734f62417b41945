"""Several who change one record at once: each is heard, and an answer of success is given to as many as it is true for."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tunesmith.access import KeyRing, KeySummary
from tunesmith.errors import Conflict
from tunesmith.experiments import ExperimentSummary, ProjectBook
from tunesmith.experiments.projects import ProjectChange, ProjectRequest
from tunesmith.journal import Journal
from tunesmith.records import Experiment, Key, ProjectStatus, Scope, utc_now


def test_a_key_is_revoked_once(tmp_path: Path) -> None:
    """The first is told so, the others that it was revoked already."""

    async def revoke_at_once() -> list[object]:
        journal = Journal.open(tmp_path / "keys.jsonl", Key, KeySummary)
        ring = KeyRing(journal, utc_now)
        key = await ring.create("mine", Scope.READ)
        told = await asyncio.gather(*(ring.revoke(key.id) for _ in range(20)), return_exceptions=True)
        await journal.close()
        return told

    told = asyncio.run(revoke_at_once())
    assert sum(isinstance(one, Key) for one in told) == 1
    assert sum(isinstance(one, Conflict) for one in told) == 19


def test_changes_of_a_project_at_once_are_all_on_record(tmp_path: Path) -> None:
    """Each changes another field: none undoes what another one was told is done."""

    async def change_at_once() -> Experiment:
        journal = Journal.open(tmp_path / "experiments.jsonl", Experiment, ExperimentSummary)
        book = ProjectBook(journal, utc_now)
        made = await book.create(ProjectRequest(name="p", dataset_name="d.jsonl", training_yaml_name="t.yaml"))
        changes = (
            ProjectChange(description="new"),
            ProjectChange(owner="me"),
            ProjectChange(tags=("a",)),
            ProjectChange(status=ProjectStatus.ARCHIVED),
        )
        await asyncio.gather(*(book.change(made.id, change) for change in changes))
        changed = journal.get(made.id)
        await journal.close()
        assert changed is not None
        return changed

    changed = asyncio.run(change_at_once())
    assert changed.project is not None
    assert (changed.project.description, changed.project.status) == ("new", ProjectStatus.ARCHIVED)
    assert (changed.owner, changed.tags) == ("me", ("a",))
