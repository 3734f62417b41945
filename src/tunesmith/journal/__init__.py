"""Append-only journals: one JSON line per change, fsynced before anybody is told, replayed at the start.

What a record means is decided by the services; this package only keeps what it is handed.
"""

from tunesmith.journal.disk import LOCAL_DISK, Disk
from tunesmith.journal.journal import Journal
from tunesmith.journal.lines import Entry
from tunesmith.journal.pages import (
    PAGE_BYTES,
    fill,
    name_before,
    name_cursor,
    newest_first,
    page_of,
    position_before,
)
from tunesmith.journal.repair import repair
from tunesmith.journal.verify import Verdict, verify
from tunesmith.journal.watermarks import Watermark, WatermarkKeeper, Watermarks, watermark_of

__all__ = [
    "LOCAL_DISK",
    "PAGE_BYTES",
    "Disk",
    "Entry",
    "Journal",
    "Verdict",
    "Watermark",
    "WatermarkKeeper",
    "Watermarks",
    "fill",
    "name_before",
    "name_cursor",
    "newest_first",
    "page_of",
    "position_before",
    "repair",
    "verify",
    "watermark_of",
]
