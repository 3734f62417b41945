"""The line format under its former name, for training scripts that import it; see ``tunesmith.contract.events``."""

from tunesmith.contract.events import Kind, emit, event_line, read_line

__all__ = ["Kind", "emit", "event_line", "read_line"]
