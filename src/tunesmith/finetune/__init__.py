"""Running somebody's own training function: which one it is, what it is called with, what it may answer.

Nothing here imports torch; the function may. HTTP and callbacks are not known here: a result becomes a file and an event
in the log, and the reporter tells whoever asked.
"""

from tunesmith.finetune.datasets import is_address
from tunesmith.finetune.downloads import leftovers, make_folder, new_folder, sweep
from tunesmith.finetune.function import FunctionReference, refer_to
from tunesmith.finetune.job import RECIPE, RECIPES_FOLDER, Data, FunctionDoor, Job, Model, Training, write_job
from tunesmith.finetune.labels import (
    OUTPUT_LOG_PATH,
    OUTPUT_MODEL_PATH,
    PUBLISH_TO,
    REQUEST_SHA256,
    TASK_ID,
    labels_of,
)
from tunesmith.finetune.publish import LOG, MODEL, publish, show_log
from tunesmith.finetune.request import CustomizedInput, FinetuneRequest, ParamDict, name_faults, read_request
from tunesmith.finetune.tasks import Turns, digest_of

__all__ = [
    "LOG",
    "MODEL",
    "OUTPUT_LOG_PATH",
    "OUTPUT_MODEL_PATH",
    "PUBLISH_TO",
    "RECIPE",
    "RECIPES_FOLDER",
    "REQUEST_SHA256",
    "TASK_ID",
    "CustomizedInput",
    "Data",
    "FinetuneRequest",
    "FunctionDoor",
    "FunctionReference",
    "Job",
    "Model",
    "ParamDict",
    "Training",
    "Turns",
    "digest_of",
    "is_address",
    "labels_of",
    "leftovers",
    "make_folder",
    "name_faults",
    "new_folder",
    "publish",
    "read_request",
    "refer_to",
    "show_log",
    "sweep",
    "write_job",
]
