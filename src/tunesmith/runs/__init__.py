"""The room of runs: created from a recipe, queued, carried through their attempts, followed and read.

Knows nothing of HTTP, and of experiments only that they have ids.
"""

from tunesmith.runs.artifacts import Artifact, ArtifactBook, ArtifactPage, ArtifactSummary
from tunesmith.runs.book import RunBook, RunPage, RunSummary
from tunesmith.runs.follow import Follower
from tunesmith.runs.live import LiveRuns
from tunesmith.runs.request import RequestResolver, Resolved, RunRequest
from tunesmith.runs.scheduler import Scheduler
from tunesmith.runs.service import ResumeRequest, RunConfig, RunService, demand_of
from tunesmith.runs.supervise import Supervisor

__all__ = [
    "Artifact",
    "ArtifactBook",
    "ArtifactPage",
    "ArtifactSummary",
    "Follower",
    "LiveRuns",
    "RequestResolver",
    "Resolved",
    "ResumeRequest",
    "RunBook",
    "RunConfig",
    "RunPage",
    "RunRequest",
    "RunService",
    "RunSummary",
    "Scheduler",
    "Supervisor",
    "demand_of",
]
