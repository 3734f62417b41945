"""What any reference in a request is: a model, a dataset or a path becomes something that exists. One resolver for every door."""

from tunesmith.references.models import ModelNames
from tunesmith.references.references import References, gather

__all__ = ["ModelNames", "References", "gather"]
