"""Experiments, and the projects among them."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any

import msgspec

from tunesmith.records.base import IdempotentCall, Record


class ProjectStatus(StrEnum):
    ACTIVE = "active"
    ARCHIVED = "archived"  # takes no new runs, and its name is free again


class Project(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """What makes a project of an experiment: the files that its runs start from."""

    dataset_name: str
    """An upload, a dataset, or a file below ``datasets/`` of the training folder."""
    training_yaml_name: str
    """A dataset's train config, or a file below ``configs/`` of the training folder."""
    description: str = ""
    status: ProjectStatus = ProjectStatus.ACTIVE


class Experiment(Record, frozen=True, kw_only=True):
    """What groups runs for comparison."""

    name: str
    task_type: str
    created_at: datetime
    goal: str = ""
    version: str = ""
    base_model: str = ""
    owner: str = ""
    param_config: dict[str, Any] = {}
    """Free notes about parameters for people to compare by; runs do not read it."""
    tags: tuple[str, ...] = ()
    idempotency_key: str | None = None
    request_sha256: str | None = None
    """This and ``idempotency_key`` are of records from before there was ``idempotency``."""
    idempotency: IdempotentCall | None = None
    project: Project | None = None
    """Set for an experiment that is a project."""
