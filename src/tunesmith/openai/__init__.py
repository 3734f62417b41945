"""What the OpenAI-shaped door needs beyond the records that there are: names, rules and states of its own. No HTTP in here."""

from tunesmith.openai.file_checks import FINE_TUNE, FileChecks
from tunesmith.openai.ids import checkpoint_id, file_id, job_id, run_id, upload_id
from tunesmith.openai.models import ListedModel, ModelCatalog

__all__ = [
    "FINE_TUNE",
    "FileChecks",
    "ListedModel",
    "ModelCatalog",
    "checkpoint_id",
    "file_id",
    "job_id",
    "run_id",
    "upload_id",
]
