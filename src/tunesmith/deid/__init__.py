"""De-identification: a long-lived worker process that takes personal data out of texts. Knows no HTTP and no rules of its own."""

from tunesmith.deid.service import Deidentified, DeidService, PolicyOverview, TextRequest

__all__ = ["DeidService", "Deidentified", "PolicyOverview", "TextRequest"]
