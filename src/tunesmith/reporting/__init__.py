"""What becomes of a run's events: messages to its callback, in the shape that it asked for, and to the service's webhook.

Knows runs, callbacks and the finetune door's results, which know nothing of each other.
"""

from tunesmith.reporting.finetune_shape import FinetuneShape
from tunesmith.reporting.listener import RunListener
from tunesmith.reporting.openai_events import EventType, OpenAIEvents
from tunesmith.reporting.reporter import Reporter

__all__ = ["EventType", "FinetuneShape", "OpenAIEvents", "Reporter", "RunListener"]
