"""What can be asked of runs, each by the one who does it. No HTTP, and no process is touched here directly."""

from __future__ import annotations

from dataclasses import dataclass

from tunesmith.runs.book import RunBook
from tunesmith.runs.configs import RunConfigs
from tunesmith.runs.creation import RunCreator
from tunesmith.runs.demand import RunWarnings
from tunesmith.runs.follow import Followers
from tunesmith.runs.live import LiveRuns
from tunesmith.runs.resuming import RunResumer
from tunesmith.runs.stopping import RunStopper
from tunesmith.runs.unfinished import UnfinishedRuns


@dataclass(frozen=True, kw_only=True)
class RunServices:
    """The services of runs, for every door."""

    book: RunBook
    unfinished: UnfinishedRuns
    live: LiveRuns
    followers: Followers
    configs: RunConfigs
    warnings: RunWarnings
    creator: RunCreator
    stopper: RunStopper
    resumer: RunResumer
