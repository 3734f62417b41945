"""What the OpenAI-shaped door needs beyond the records that there are: names, rules and states of its own. No HTTP in here."""

from tunesmith.openai.file_checks import FINE_TUNE, FileChecks
from tunesmith.openai.ids import checkpoint_id, file_id, job_id, run_id, upload_id
from tunesmith.openai.models import ListedModel, ModelCatalog
from tunesmith.openai.part_files import PartFiles
from tunesmith.openai.parts import LARGEST_PART, MOST_PARTS, Announced, UploadInPartsSummary, UploadsInParts

__all__ = [
    "FINE_TUNE",
    "LARGEST_PART",
    "MOST_PARTS",
    "Announced",
    "FileChecks",
    "ListedModel",
    "ModelCatalog",
    "PartFiles",
    "UploadInPartsSummary",
    "UploadsInParts",
    "checkpoint_id",
    "file_id",
    "job_id",
    "run_id",
    "upload_id",
]
