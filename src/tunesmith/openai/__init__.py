"""What the OpenAI-shaped door needs beyond the records that there are: names, rules and states of its own. No HTTP in here."""

from tunesmith.openai import hyperparameters, job_repeats, job_request, labels
from tunesmith.openai.file_checks import FINE_TUNE, FileChecks
from tunesmith.openai.graders import Graders
from tunesmith.openai.ids import checkpoint_id, checkpoint_record_id, file_id, job_id, run_id, upload_id
from tunesmith.openai.job_checks import JobChecks
from tunesmith.openai.job_events import JobEvent, measured_at, measured_in, newest_events
from tunesmith.openai.labels import is_job, name_of_model
from tunesmith.openai.model_deletion import ModelDeletion
from tunesmith.openai.models import ListedModel, ModelCatalog
from tunesmith.openai.part_files import PartFiles
from tunesmith.openai.parts import LARGEST_PART, MOST_PARTS, Announced, UploadInPartsSummary, UploadsInParts
from tunesmith.openai.results import RESULTS, ResultFiles
from tunesmith.openai.results import upload_of as result_upload_of

__all__ = [
    "FINE_TUNE",
    "LARGEST_PART",
    "MOST_PARTS",
    "RESULTS",
    "Announced",
    "FileChecks",
    "Graders",
    "JobChecks",
    "JobEvent",
    "ListedModel",
    "ModelCatalog",
    "ModelDeletion",
    "PartFiles",
    "ResultFiles",
    "UploadInPartsSummary",
    "UploadsInParts",
    "checkpoint_id",
    "checkpoint_record_id",
    "file_id",
    "hyperparameters",
    "is_job",
    "job_id",
    "job_repeats",
    "job_request",
    "labels",
    "measured_at",
    "measured_in",
    "name_of_model",
    "newest_events",
    "result_upload_of",
    "run_id",
    "upload_id",
]
