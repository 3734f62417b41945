"""The train-task door's side of things: its spellings become a recipe's options, its tasks ordinary runs. No HTTP in here."""

from tunesmith.tasks.plan import TaskPlan
from tunesmith.tasks.request import EvaluateRequest, ExportRequest, TrainRequest
from tunesmith.tasks.service import STRATEGY, WARNINGS, TaskService
from tunesmith.tasks.waiting import Ended, EndWaiter

__all__ = [
    "STRATEGY",
    "WARNINGS",
    "EndWaiter",
    "Ended",
    "EvaluateRequest",
    "ExportRequest",
    "TaskPlan",
    "TaskService",
    "TrainRequest",
]
