"""The journaled records and the states they pass through. Frozen: a change is a new record under the same id."""

from tunesmith.records.access import Key, Scope
from tunesmith.records.base import Clock, IdempotentCall, Record, new_id, utc_now
from tunesmith.records.batches import Batch, BatchCounts, BatchFault, BatchStatus, BatchUsage
from tunesmith.records.checkpoints import Checkpoint, Mark
from tunesmith.records.datasets import Dataset, FileCheck, TrainConfigFile, Upload
from tunesmith.records.deliveries import BodySource, Delivery, DeliveryAttempt, DeliveryState, Endpoint, Uptime
from tunesmith.records.deployments import Deployment, DeploymentStatus, EngineKind, Parity, ServedAdapter
from tunesmith.records.experiments import Experiment, Project, ProjectStatus
from tunesmith.records.runs import (
    LEGAL_MOVES,
    PUBLISH_FILE,
    PUBLISH_TO,
    ArtifactTags,
    Callback,
    CallbackEvent,
    DatasetReference,
    Exit,
    Handle,
    ProcessIdentity,
    Progress,
    Resources,
    Run,
    RunKind,
    RunState,
    ToldWarning,
)
from tunesmith.records.uploads_in_parts import UploadInParts, UploadInPartsStatus

__all__ = [
    "LEGAL_MOVES",
    "PUBLISH_FILE",
    "PUBLISH_TO",
    "ArtifactTags",
    "Batch",
    "BatchCounts",
    "BatchFault",
    "BatchStatus",
    "BatchUsage",
    "BodySource",
    "Callback",
    "CallbackEvent",
    "Checkpoint",
    "Clock",
    "Dataset",
    "DatasetReference",
    "Delivery",
    "DeliveryAttempt",
    "DeliveryState",
    "Deployment",
    "DeploymentStatus",
    "Endpoint",
    "EngineKind",
    "Exit",
    "Experiment",
    "FileCheck",
    "Handle",
    "IdempotentCall",
    "Key",
    "Mark",
    "Parity",
    "ProcessIdentity",
    "Progress",
    "Project",
    "ProjectStatus",
    "Record",
    "Resources",
    "Run",
    "RunKind",
    "RunState",
    "Scope",
    "ServedAdapter",
    "ToldWarning",
    "TrainConfigFile",
    "Upload",
    "UploadInParts",
    "UploadInPartsStatus",
    "Uptime",
    "new_id",
    "utc_now",
]
