"""Experiments: what groups runs for comparison, and projects. Knows nothing of HTTP and nothing of processes."""

from tunesmith.experiments.projects import ProjectBook, ProjectChange, ProjectPage, ProjectRequest
from tunesmith.experiments.resources import ProjectResources, StartingPoint
from tunesmith.experiments.service import (
    SCOPE,
    ExperimentPage,
    ExperimentRequest,
    ExperimentService,
    ExperimentSummary,
)

__all__ = [
    "SCOPE",
    "ExperimentPage",
    "ExperimentRequest",
    "ExperimentService",
    "ExperimentSummary",
    "ProjectBook",
    "ProjectChange",
    "ProjectPage",
    "ProjectRequest",
    "ProjectResources",
    "StartingPoint",
]
