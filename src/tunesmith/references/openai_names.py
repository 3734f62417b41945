"""Names of OpenAI's models that the service knows from the beginning: each stands for an open model of about its class.

By size: what is called nano becomes 1.5 billion parameters, what is called mini or turbo 7, the large ones 14. All are
published under Apache 2.0. The setting ``aliases`` goes before this table, name by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

_SMALL = "Qwen/Qwen2.5-1.5B-Instruct"
_MIDDLE = "Qwen/Qwen2.5-7B-Instruct"
_LARGE = "Qwen/Qwen2.5-14B-Instruct"

DEFAULT_ALIASES: Mapping[str, str] = MappingProxyType(
    {
        "babbage-002": "Qwen/Qwen2.5-1.5B",
        "davinci-002": "Qwen/Qwen2.5-7B",
        "gpt-3.5-turbo": _MIDDLE,
        "gpt-3.5-turbo-0125": _MIDDLE,
        "gpt-3.5-turbo-0613": _MIDDLE,
        "gpt-3.5-turbo-1106": _MIDDLE,
        "gpt-4-0613": _LARGE,
        "gpt-4.1": _LARGE,
        "gpt-4.1-2025-04-14": _LARGE,
        "gpt-4.1-mini": _MIDDLE,
        "gpt-4.1-mini-2025-04-14": _MIDDLE,
        "gpt-4.1-nano": _SMALL,
        "gpt-4.1-nano-2025-04-14": _SMALL,
        "gpt-4o": _LARGE,
        "gpt-4o-2024-08-06": _LARGE,
        "gpt-4o-mini": _MIDDLE,
        "gpt-4o-mini-2024-07-18": _MIDDLE,
        "o4-mini": _MIDDLE,
        "o4-mini-2025-04-16": _MIDDLE,
    }
)
