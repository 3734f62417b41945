"""Rows built as OpenAI's documentation builds its training files, and chat templates that write calls in the usual ways."""

from __future__ import annotations

from typing import Any

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_current_weather",
        "description": "The weather at a place, now",
        "parameters": {
            "type": "object",
            "properties": {
                "location": {"type": "string", "description": "The city and its country"},
                "format": {"type": "string", "enum": ["celsius", "fahrenheit"]},
            },
            "required": ["location", "format"],
        },
    },
}
ARGUMENTS = '{"location": "Zürich, Switzerland", "format": "celsius"}'
ASKED = {"role": "user", "content": "How warm is it in Zürich?"}

CHAT: dict[str, Any] = {
    "messages": [
        {"role": "system", "content": "Otto is a bot that knows facts and sighs about them."},
        {"role": "user", "content": "Which city is the capital of Italy?"},
        {"role": "assistant", "content": "Rome, as if nobody had ever heard."},
    ]
}
WEIGHTED: dict[str, Any] = {
    "messages": [
        {"role": "system", "content": "Otto is a bot that knows facts and sighs about them."},
        {"role": "user", "content": "Which city is the capital of Italy?"},
        {"role": "assistant", "content": "Rome.", "weight": 0},
        {"role": "user", "content": "With a sigh?"},
        {"role": "assistant", "content": "Rome, as if nobody had ever heard.", "weight": 1},
    ]
}
CALLING: dict[str, Any] = {
    "messages": [
        ASKED,
        {
            "role": "assistant",
            "tool_calls": [
                {
                    "id": "call_id",
                    "type": "function",
                    "function": {"name": "get_current_weather", "arguments": ARGUMENTS},
                }
            ],
        },
    ],
    "parallel_tool_calls": False,
    "tools": [WEATHER],
}
ANSWERED: dict[str, Any] = {
    **CALLING,
    "messages": [
        *CALLING["messages"],
        {"role": "tool", "tool_call_id": "call_id", "content": "21.4"},
        {"role": "assistant", "content": "It is 21.4 °C."},
    ],
}
FUNCTIONS: dict[str, Any] = {
    "messages": [
        ASKED,
        {
            "role": "assistant",
            "content": None,
            "function_call": {"name": "get_current_weather", "arguments": ARGUMENTS},
        },
        {"role": "function", "name": "get_current_weather", "content": "21.4"},
        {"role": "assistant", "content": "It is 21.4 °C."},
    ],
    "functions": [WEATHER["function"]],
}
"""The same in the older form."""
PREFERENCE: dict[str, Any] = {
    "input": {
        "messages": [{"role": "user", "content": "Hello, how cold is San Francisco today?"}],
        "tools": [],
        "parallel_tool_calls": True,
    },
    "preferred_output": [{"role": "assistant", "content": "Rather cold, and cool for the season."}],
    "non_preferred_output": [{"role": "assistant", "content": "It is not particularly cold there."}],
}
REINFORCEMENT: dict[str, Any] = {
    "messages": [
        {"role": "developer", "content": "Count the stars that are asked about."},
        {"role": "user", "content": "Two stars and another one"},
    ],
    "reference_answer": {"stars": 3},
    "difficulty": "easy",
}

_BEGIN = (
    "{% if tools %}{{ '<|im_start|>system\n' + tools | tojson + '<|im_end|>\n' }}{% endif %}"
    "{% for message in messages %}{{ '<|im_start|>' + message.role + '\n' }}"
    "{% if message.content %}{{ message.content }}{% endif %}"
    "{% for call in message.tool_calls or [] %}"
)
_END = "{% endfor %}{{ '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
TEMPLATES = {
    "qwen2.5": _BEGIN
    + "{% if call.function is defined %}{% set call = call.function %}{% endif %}"
    + """{{ '<tool_call>\n{"name": "' }}{{ call.name }}{{ '", "arguments": ' }}{{ call.arguments | tojson }}"""
    + "{{ '}\n</tool_call>' }}"
    + _END,
    "qwen3": _BEGIN
    + "{% if call.function %}{% set call = call.function %}{% endif %}"
    + """{{ '<tool_call>\n{"name": "' }}{{ call.name }}{{ '", "arguments": ' }}"""
    + "{% if call.arguments is string %}{{ call.arguments }}{% else %}{{ call.arguments | tojson }}{% endif %}"
    + "{{ '}\n</tool_call>' }}"
    + _END,
    "llama-3.1": _BEGIN
    + """{{ '{"name": "' + call.function.name + '", ' }}{{ '"parameters": ' }}{{ call.function.arguments | tojson }}{{ '}' }}"""
    + _END,
    "hermes": _BEGIN
    + """{{ '\n<tool_call>\n{"name": "' + call.function.name + '", "arguments": ' + call.function.arguments|tojson }}"""
    + "{{ '}\n</tool_call>' }}"
    + _END,
    "mistral": _BEGIN + "{{ '[TOOL_CALLS] [' + call.function | tojson + ']' }}" + _END,
    "mistral with ids": _BEGIN
    + "{% if not call.id is defined or call.id|length != 9 %}{{ raise_exception('ids have length 9') }}{% endif %}"
    + """{{ '[TOOL_CALLS] [' + (call.function | tojson)[:-1] + ', "id": "' + call.id + '"}]' }}"""
    + _END.replace("{{ '<|im_end|>", "{{ message.tool_call_id or '' }}{{ '<|im_end|>", 1),
    "deepseek": _BEGIN
    + "{{ call.type + '\n' + call.function.name + '\n```json\n' + call.function.arguments + '\n```' }}"
    + _END,
    "trims": _BEGIN + "{{ call.function.name + call.function.arguments.strip() }}" + _END,
    "prints": _BEGIN + "{{ call.function.name }}({{ call.function.arguments }})" + _END,
    "items": _BEGIN
    + "{{ call.function.name }}{% for name, value in call.function.arguments.items() %}"
    + "{{ '<' + name + '>' + value }}{% endfor %}"
    + _END,
}
"""How the templates of these families write a call; ``trims`` and ``prints`` show the arguments as they are, ``items`` one by one."""
