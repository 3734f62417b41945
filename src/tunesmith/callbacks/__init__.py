"""Telling a URL what happens to a run or a batch: what is wanted, how it is signed, and that it arrives.

What an occurrence is and what its body says is decided by those who offer it; connections are the guarded client's.
"""

from tunesmith.callbacks.message import id_of, shown_url
from tunesmith.callbacks.schedule import STANDARD_SCHEDULE
from tunesmith.callbacks.service import CallbackService, DeliveryPage, DeliverySummary, Poster
from tunesmith.callbacks.signing import Signer, sign
from tunesmith.callbacks.subscription import Occurrence, which

__all__ = [
    "STANDARD_SCHEDULE",
    "CallbackService",
    "DeliveryPage",
    "DeliverySummary",
    "Occurrence",
    "Poster",
    "Signer",
    "id_of",
    "shown_url",
    "sign",
    "which",
]
