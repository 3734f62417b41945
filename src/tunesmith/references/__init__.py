"""What any reference in a request is: a model, a dataset or a path becomes something that exists. One resolver for every door."""

from tunesmith.references.model_folders import lora_rank
from tunesmith.references.models import ModelNames
from tunesmith.references.references import References, gather
from tunesmith.references.resolved import ModelKind, ResolvedModel

__all__ = ["ModelKind", "ModelNames", "References", "ResolvedModel", "gather", "lora_rank"]
