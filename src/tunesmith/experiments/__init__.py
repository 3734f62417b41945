"""The room of experiments: what groups runs for comparison. Knows nothing of HTTP and nothing of processes."""

from tunesmith.experiments.service import (
    ExperimentPage,
    ExperimentRequest,
    ExperimentService,
    ExperimentSummary,
)

__all__ = ["ExperimentPage", "ExperimentRequest", "ExperimentService", "ExperimentSummary"]
