"""A few prompts of different length and kind, to compare what two forms of a model compute."""

from __future__ import annotations

from typing import Any

_TEXTS = (
    "The capital of France is",
    'def add(a: int, b: int) -> int:\n    """Return the sum."""\n    return',
    "请用一句话介绍北京的秋天,并说明什么时候去最合适。",
    'Turn the order into JSON: two large pizzas with olives, to 12 Main Street at 7 pm. {"items": [',
    "1, 1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144, 233, 377, 610, 987, 1597, 2584, 4181, 6765, 10946, 17711, 28657, 46368, 75025,",
)


def token_prompts(tokenizer: Any, longest: int | None) -> list[list[int]]:
    """Token ids of each prompt, the last as a chat where the tokenizer has a template; none is longer than ``longest``."""
    prompts = [tokenizer(text)["input_ids"] for text in _TEXTS]
    if tokenizer.chat_template:
        question = [{"role": "user", "content": "Why is the sky blue?"}]
        text = tokenizer.apply_chat_template(question, tokenize=False, add_generation_prompt=True)
        prompts.append(tokenizer(text, add_special_tokens=False)["input_ids"])
    return [prompt[: longest or len(prompt)] for prompt in prompts if prompt]
