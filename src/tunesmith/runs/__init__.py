"""Runs: created from a recipe, queued, carried through their attempts, followed and read.

Knows nothing of HTTP, and of experiments only that they have ids.
"""

from tunesmith.runs.artifacts import Artifact, ArtifactBook, ArtifactPage, ArtifactSummary
from tunesmith.runs.book import RunBook, RunPage, RunSummary
from tunesmith.runs.configs import RunConfig, RunConfigs
from tunesmith.runs.creation import RunCreator
from tunesmith.runs.demand import RunWarnings, demand_of
from tunesmith.runs.follow import Follower, Followers
from tunesmith.runs.launch import launch_of
from tunesmith.runs.live import LiveRuns
from tunesmith.runs.request import RequestResolver, Resolved, RunRequest
from tunesmith.runs.resuming import ResumeRequest, RunResumer
from tunesmith.runs.scheduler import Scheduler
from tunesmith.runs.service import RunServices
from tunesmith.runs.stopping import RunStopper
from tunesmith.runs.supervise import Supervisor
from tunesmith.runs.unfinished import UnfinishedRuns
from tunesmith.runs.validation import Validator, Verdict

__all__ = [
    "Artifact",
    "ArtifactBook",
    "ArtifactPage",
    "ArtifactSummary",
    "Follower",
    "Followers",
    "LiveRuns",
    "RequestResolver",
    "Resolved",
    "ResumeRequest",
    "RunBook",
    "RunConfig",
    "RunConfigs",
    "RunCreator",
    "RunPage",
    "RunRequest",
    "RunResumer",
    "RunServices",
    "RunStopper",
    "RunSummary",
    "RunWarnings",
    "Scheduler",
    "Supervisor",
    "UnfinishedRuns",
    "Validator",
    "Verdict",
    "demand_of",
    "launch_of",
]
