"""Takes personal data out of texts: finds it, and puts something else in its place as a policy says.

    engine = Engine.load(policy="default", policies_dir=None, locale=None)
    texts, counts = engine.texts(["我叫张伟，手机 13800138000"], seed=7)

Importing this is cheap; ``Engine.load`` takes a few seconds, for a dictionary of Chinese and presidio.
It reads plain text only: no images, no tables, no markup, and nothing across the border of two texts.
"""

from tunesmith_workers.deid.engine import Engine, Outcome
from tunesmith_workers.deid.finding import Span
from tunesmith_workers.deid.kinds import KINDS
from tunesmith_workers.deid.policy import BadPolicy, Policy, UnknownPolicy

__all__ = ["KINDS", "BadPolicy", "Engine", "Outcome", "Policy", "Span", "UnknownPolicy"]
