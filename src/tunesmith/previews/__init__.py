"""Previews: what a training would see of its rows, asked of a worker process and kept for the next time.

Nothing is rendered here, and no HTTP is known.
"""

from tunesmith.previews.service import PreviewService

__all__ = ["PreviewService"]
