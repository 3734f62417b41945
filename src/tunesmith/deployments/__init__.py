"""Deployments: models that are served by engines in processes of their own, kept alive and told of truthfully."""

from tunesmith.deployments.arguments import EngineArguments
from tunesmith.deployments.book import DeploymentBook, DeploymentPage, DeploymentSummary
from tunesmith.deployments.engines import Engines, name_of
from tunesmith.deployments.health import HealthCheck, Loopback
from tunesmith.deployments.keeper import Keeper, Limits
from tunesmith.deployments.on_demand import Endpoint, OnDemandEngines
from tunesmith.deployments.parity import ParityCheck
from tunesmith.deployments.ports import Ports
from tunesmith.deployments.request import DeploymentRequest, Planner
from tunesmith.deployments.service import DeploymentService

__all__ = [
    "DeploymentBook",
    "DeploymentPage",
    "DeploymentRequest",
    "DeploymentService",
    "DeploymentSummary",
    "Endpoint",
    "EngineArguments",
    "Engines",
    "HealthCheck",
    "Keeper",
    "Limits",
    "Loopback",
    "OnDemandEngines",
    "ParityCheck",
    "Planner",
    "Ports",
    "name_of",
]
