"""Every journal of a state folder, and the repeatable calls on record in them. How a journal works is in ``journal``."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from tunesmith.access import KeySummary
from tunesmith.callbacks import DeliverySummary
from tunesmith.checkpoints import CheckpointSummary
from tunesmith.datasets import DatasetSummary, TrainConfigSummary, UploadSummary
from tunesmith.deployments import DeploymentSummary
from tunesmith.experiments import ExperimentSummary
from tunesmith.idempotency import IdempotentCalls
from tunesmith.journal import Journal
from tunesmith.openai import UploadInPartsSummary
from tunesmith.openai.batches import BatchSummary
from tunesmith.paths import StatePaths
from tunesmith.records import (
    ArtifactTags,
    Batch,
    Checkpoint,
    Clock,
    Dataset,
    Delivery,
    Deployment,
    Experiment,
    IdempotentCall,
    Key,
    Run,
    TrainConfigFile,
    Upload,
    UploadInParts,
)
from tunesmith.runs import ArtifactSummary, RunSummary


@dataclass(frozen=True)
class Journals:
    """All of them, opened in the order of ``StatePaths.journals``."""

    keys: Journal[Key, KeySummary]
    experiments: Journal[Experiment, ExperimentSummary]
    runs: Journal[Run, RunSummary]
    checkpoints: Journal[Checkpoint, CheckpointSummary]
    deliveries: Journal[Delivery, DeliverySummary]
    artifacts: Journal[ArtifactTags, ArtifactSummary]
    datasets: Journal[Dataset, DatasetSummary]
    uploads: Journal[Upload, UploadSummary]
    train_configs: Journal[TrainConfigFile, TrainConfigSummary]
    deployments: Journal[Deployment, DeploymentSummary]
    uploads_in_parts: Journal[UploadInParts, UploadInPartsSummary]
    batches: Journal[Batch, BatchSummary]

    @classmethod
    def open(cls, paths: StatePaths, clock: Clock) -> Journals:
        return cls(
            keys=Journal.open(paths.keys, Key, KeySummary, clock=clock),
            experiments=Journal.open(paths.experiments, Experiment, ExperimentSummary, clock=clock),
            runs=Journal.open(paths.runs, Run, RunSummary, clock=clock),
            checkpoints=Journal.open(paths.checkpoints, Checkpoint, CheckpointSummary, clock=clock),
            deliveries=Journal.open(paths.deliveries, Delivery, DeliverySummary, clock=clock, cached=256),
            artifacts=Journal.open(paths.artifacts, ArtifactTags, ArtifactSummary, clock=clock),
            datasets=Journal.open(paths.datasets, Dataset, DatasetSummary, clock=clock),
            uploads=Journal.open(paths.uploads, Upload, UploadSummary, clock=clock),
            train_configs=Journal.open(paths.train_configs, TrainConfigFile, TrainConfigSummary, clock=clock),
            deployments=Journal.open(paths.deployments, Deployment, DeploymentSummary, clock=clock),
            uploads_in_parts=Journal.open(paths.uploads_in_parts, UploadInParts, UploadInPartsSummary, clock=clock),
            batches=Journal.open(paths.batches, Batch, BatchSummary, clock=clock),
        )

    @property
    def all(self) -> tuple[Journal[Any, Any], ...]:
        return tuple(getattr(self, field.name) for field in fields(self))


def idempotent_calls_in(journals: Journals) -> IdempotentCalls:
    """The calls that made what is on record, and those to come."""
    calls = IdempotentCalls()
    calls.follow(journals.experiments, lambda one: one.calls)
    calls.follow(journals.runs, _call_of)
    calls.follow(journals.datasets, _call_of)
    calls.follow(journals.uploads, _call_of)
    calls.follow(journals.checkpoints, lambda one: one.calls)
    calls.follow(journals.keys, _call_of)
    calls.follow(journals.deployments, _call_of)
    return calls


def _call_of(
    summary: RunSummary | DatasetSummary | UploadSummary | KeySummary | DeploymentSummary,
) -> tuple[IdempotentCall, ...]:
    return () if summary.idempotency is None else (summary.idempotency,)
