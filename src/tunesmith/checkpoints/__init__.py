"""Checkpoints: which complete ones there are, what they are marked as, and which may go when space is short.

Writes no weights and starts nothing; what makes a folder complete is decided by the worker that writes its manifest.
"""

from tunesmith.checkpoints.book import CheckpointBook, CheckpointPage, CheckpointSummary
from tunesmith.checkpoints.keeper import CheckpointKeeper
from tunesmith.checkpoints.manifest import read_manifest
from tunesmith.checkpoints.marks import MarkRequest
from tunesmith.checkpoints.retention import Retention

__all__ = [
    "CheckpointBook",
    "CheckpointKeeper",
    "CheckpointPage",
    "CheckpointSummary",
    "MarkRequest",
    "Retention",
    "read_manifest",
]
