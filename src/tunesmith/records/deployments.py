"""Deployments: serving processes, and the states they pass through."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

import msgspec

from tunesmith.records.base import IdempotentCall, Record
from tunesmith.records.runs import Handle


class DeploymentStatus(StrEnum):
    STARTING = "starting"  # the intent is on disk; its engine is being started, or loads the model
    RUNNING = "running"  # the latest health check succeeded
    UNHEALTHY = "unhealthy"  # its engine is there and does not answer as it should
    STOPPED = "stopped"  # ended because somebody asked
    FAILED = "failed"  # its engine could not be started, or ended too often

    @property
    def final(self) -> bool:
        return self in (DeploymentStatus.STOPPED, DeploymentStatus.FAILED)


class Parity(StrEnum):
    OK = "ok"  # its engine says what the trained model said, wherever a certificate tells what that was
    DIFFERS = "differs"  # it says something else
    NONE = "none"  # there is no certificate, or the engine cannot be compared


class EngineKind(StrEnum):
    VLLM = "vllm"
    TRANSFORMERS = "transformers"  # the built-in one


class ServedAdapter(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """An adapter that the engine serves under a name of its own."""

    name: str
    path: str
    rank: int | None = None
    """The largest rank of its matrices, where somebody has to know it."""


class Deployment(Record, frozen=True, kw_only=True):
    """A serving process with a port, a health state and a log."""

    model_path: str
    """The model reference as it was given."""
    created_at: datetime
    path: str
    """What the engine loads, as a folder or a hub id: the base of an adapter, else the model itself."""
    served_name: str
    """What requests to the engine call the model of this deployment."""
    engine: EngineKind
    port: int
    command: tuple[str, ...]
    name: str | None = None
    model_version: str = ""
    tags: tuple[str, ...] = ()
    extra_args: str | tuple[str, ...] = ""
    """As given."""
    arguments: tuple[str, ...] = ()
    """The same, split and checked."""
    preferred_gpu: str | None = None
    health_path: str = "/health"
    gpus: tuple[str, ...] = ()
    adapters: tuple[ServedAdapter, ...] = ()
    """The adapters of this model that the engine serves; the first one is what the deployment is of, if that is an adapter."""
    on_demand: bool = False
    """Started by the service itself, because a model was asked for that nobody had deployed."""
    status: DeploymentStatus = DeploymentStatus.STARTING
    reason: str = ""
    """Why it is not running."""
    attempt: int = 1
    restarts: int = 0
    """How often its engine was started again since it last was healthy for long."""
    process: Handle | None = None
    started_at: datetime | None = None
    """When the engine that is there now began."""
    healthy_at: datetime | None = None
    """When that engine answered its first health check."""
    parity: Parity | None = None
    """Whether the engine that is there now serves what was trained; None until it was compared."""
    parity_reason: str = ""
    """In what it differs."""
    stopped_at: datetime | None = None
    removed_at: datetime | None = None
    """When somebody asked for its end; it has ended once ``stopped_at`` is set, too."""
    idempotency: IdempotentCall | None = None

    @property
    def has_ended(self) -> bool:
        """Whether nothing of it runs any more, nor ever will."""
        return self.status.final and self.stopped_at is not None

    @property
    def model(self) -> str:
        """The folder or hub id of what it serves: the adapter, where it is of one."""
        named = [adapter.path for adapter in self.adapters if adapter.name == self.served_name]
        return named[0] if named else self.path
