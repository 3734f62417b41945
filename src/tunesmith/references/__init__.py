"""What any reference in a request is: a model, a dataset or a path becomes something that exists. One resolver for every door."""

from tunesmith.references.fine_tuned import FineTuned, fine_tuned_name, read_fine_tuned, suffix_in_names
from tunesmith.references.leaving import LeavingModels, gone_models, is_within
from tunesmith.references.model_folders import base_named_in
from tunesmith.references.models import ModelNames
from tunesmith.references.references import References, gather
from tunesmith.references.resolved import Located, ModelKind, ResolvedAdapter, ResolvedModel

__all__ = [
    "FineTuned",
    "LeavingModels",
    "Located",
    "ModelKind",
    "ModelNames",
    "References",
    "ResolvedAdapter",
    "ResolvedModel",
    "base_named_in",
    "fine_tuned_name",
    "gather",
    "gone_models",
    "is_within",
    "read_fine_tuned",
    "suffix_in_names",
]
