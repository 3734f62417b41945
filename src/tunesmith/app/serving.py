"""Builds what serves models: deployments, and what answers conversations."""

from __future__ import annotations

from tunesmith.app.base import Base
from tunesmith.checkpoints import CheckpointBook
from tunesmith.deployments import (
    DeploymentService,
    EngineArguments,
    Engines,
    HealthCheck,
    Keeper,
    Limits,
    OnDemandEngines,
    ParityCheck,
    Planner,
    Ports,
)
from tunesmith.inference import ChatService
from tunesmith.references import ModelNames, References
from tunesmith.runner import Executor, Slots
from tunesmith.runs import Scheduler


def deployments_of(
    base: Base,
    slots: Slots,
    executor: Executor,
    references: References,
    checkpoints: CheckpointBook,
    scheduler: Scheduler,
) -> DeploymentService:
    settings, ports = base.settings, Ports()
    names = ModelNames(settings.aliases, base.paths, base.book)  # other deployments' names are the service's to refuse
    engines = Engines(vllm_command=settings.vllm_command, has_gpu=bool(slots.gpus))

    def other_meaning(name: str) -> str | None:
        return "a checkpoint" if checkpoints.referenced(name) is not None else names.other_meaning(name)

    return DeploymentService(
        book=base.deployed,
        planner=Planner(
            resolve=references.resolve,
            engines=engines,
            arguments=EngineArguments(settings.allowed_engine_args),
            other_meaning=other_meaning,
        ),
        engines=engines,
        keeper=_engine_keeper(base, executor, engines, ports),
        ports=ports,
        leases=slots,
        paths=base.paths,
        clock=base.clock,
        max_deployments=settings.max_deployments,
        stop_grace_seconds=settings.stop_grace_seconds,
        released=scheduler.look_again,
    )


def _engine_keeper(base: Base, executor: Executor, engines: Engines, ports: Ports) -> Keeper:
    return Keeper(
        book=base.deployed,
        executor=executor,
        engines=engines,
        ports=ports,
        health=HealthCheck(base.loopback),
        parity=ParityCheck(base.loopback),
        paths=base.paths,
        clock=base.clock,
        limits=Limits(
            start_deadline_seconds=base.settings.engine_start_deadline_seconds,
            max_restarts=base.settings.max_engine_restarts,
            stop_grace_seconds=base.settings.stop_grace_seconds,
        ),
    )


def chat_of(base: Base, deployments: DeploymentService, references: References) -> ChatService:
    return ChatService(
        resolve=references.resolve,
        engines=OnDemandEngines(
            deployments, base.loopback, ParityCheck(base.loopback), warm_models=base.settings.warm_models
        ),
        loopback=base.loopback,
        default_model=base.settings.default_model,
    )
