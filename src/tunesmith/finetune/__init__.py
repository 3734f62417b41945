"""Running somebody's own training function: which one it is, what it is called with, what it may answer.

Nothing here imports torch; the function may. HTTP and callbacks are not known here: a result becomes a file and an event
in the log, and the reporter tells whoever asked. What begins a task is in ``service``.
"""

from tunesmith.finetune.downloads import leftovers, sweep
from tunesmith.finetune.function import FunctionReference, refer_to
from tunesmith.finetune.job import RECIPES_FOLDER, FunctionDoor
from tunesmith.finetune.labels import OUTPUT_LOG_PATH, OUTPUT_MODEL_PATH, PUBLISH_TO, REQUEST_SHA256, TASK_ID
from tunesmith.finetune.publish import LOG, MODEL, publish, show_log
from tunesmith.finetune.request import name_faults

__all__ = [
    "LOG",
    "MODEL",
    "OUTPUT_LOG_PATH",
    "OUTPUT_MODEL_PATH",
    "PUBLISH_TO",
    "RECIPES_FOLDER",
    "REQUEST_SHA256",
    "TASK_ID",
    "FunctionDoor",
    "FunctionReference",
    "leftovers",
    "name_faults",
    "publish",
    "refer_to",
    "show_log",
    "sweep",
]
