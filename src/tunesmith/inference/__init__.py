"""Prompts and their answers: any model reference is answered by the engine that serves it, which is started if need be."""

from tunesmith.inference.answers import Answer, Usage
from tunesmith.inference.chat import ChatService, Delta, End
from tunesmith.inference.completions import Completions, EngineRefused
from tunesmith.inference.request import BatchRequest, ChatRequest, GenerationFields, Message

__all__ = [
    "Answer",
    "BatchRequest",
    "ChatRequest",
    "ChatService",
    "Completions",
    "Delta",
    "End",
    "EngineRefused",
    "GenerationFields",
    "Message",
    "Usage",
]
