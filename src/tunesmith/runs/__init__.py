"""The room of runs: created from a recipe, queued, carried through their attempts, followed and read.

Knows nothing of HTTP, and of experiments only that they have ids.
"""

from tunesmith.runs.book import RunBook, RunPage, RunSummary
from tunesmith.runs.follow import Follower
from tunesmith.runs.live import LiveRuns
from tunesmith.runs.logs import LogLine, LogPage, MetricsPage, read_log, read_metrics
from tunesmith.runs.references import References
from tunesmith.runs.scheduler import Scheduler
from tunesmith.runs.service import ResumeRequest, RunRequest, RunService
from tunesmith.runs.supervise import Supervisor

__all__ = [
    "Follower",
    "LiveRuns",
    "LogLine",
    "LogPage",
    "MetricsPage",
    "References",
    "ResumeRequest",
    "RunBook",
    "RunPage",
    "RunRequest",
    "RunService",
    "RunSummary",
    "Scheduler",
    "Supervisor",
    "read_log",
    "read_metrics",
]
