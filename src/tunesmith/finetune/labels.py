"""The labels that the finetune door gives a run: what it was asked for and has promised.

A repeat of the request gets the same answer from them. ``Run.upgraded`` knows these names as well.
"""

from __future__ import annotations

from pathlib import Path

from tunesmith.finetune.publish import LOG, MODEL
from tunesmith.finetune.request import FinetuneRequest
from tunesmith.finetune.tasks import digest_of

TASK_ID = "task_id"
REQUEST_SHA256 = "finetune.request_sha256"
"""Hash of the request, to tell a repeat from another one under the same id."""
OUTPUT_MODEL_PATH = "finetune.output_model_path"
OUTPUT_LOG_PATH = "finetune.output_log_path"
PUBLISH_TO = "finetune.publish_to"
"""Of a built-in recipe: the folder that gets its model and its log. A training function writes there itself."""


def labels_of(request: FinetuneRequest, place: Path) -> dict[str, str]:
    """The labels of a task whose output belongs into ``place``."""
    return {
        TASK_ID: request.task_id,
        REQUEST_SHA256: digest_of(request),
        OUTPUT_MODEL_PATH: str(place / MODEL),
        OUTPUT_LOG_PATH: str(place / LOG),
    }
