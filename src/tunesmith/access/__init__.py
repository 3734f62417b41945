"""API keys: made, listed, revoked and checked. Only hashes of secrets are ever stored."""

from tunesmith.access.keys import LONGEST_NAME, KeyRing, KeySummary, NewKey

__all__ = ["LONGEST_NAME", "KeyRing", "KeySummary", "NewKey"]
