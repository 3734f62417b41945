"""Runs whose output is promised to a folder: put there once they have ended, whatever happens to the server meanwhile."""

from tunesmith.publishing.publisher import Publisher
from tunesmith.publishing.receipt import Receipt

__all__ = ["Publisher", "Receipt"]
