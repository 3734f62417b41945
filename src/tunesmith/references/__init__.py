"""What any reference in a request is: a model, a dataset or a path becomes something that exists. One resolver for every door."""

from tunesmith.references.fine_tuned import FineTuned, fine_tuned_name, read_fine_tuned, suffix_in_names
from tunesmith.references.models import ModelNames
from tunesmith.references.references import References, gather
from tunesmith.references.resolved import ModelKind, ResolvedAdapter, ResolvedModel

__all__ = [
    "FineTuned",
    "ModelKind",
    "ModelNames",
    "References",
    "ResolvedAdapter",
    "ResolvedModel",
    "fine_tuned_name",
    "gather",
    "read_fine_tuned",
    "suffix_in_names",
]
