"""A stream whose engine dies in the middle: the SDK raises, instead of handing out half an answer as a whole one.

Says when the first chunk has come, then waits for a line on its standard input: by then somebody has killed the engine.
"""

from __future__ import annotations

import sys
from typing import Any

from openai import APIError, OpenAI
from sdk_parts import Steps, address, arguments, expect, say

BEGUN = "the stream has begun"


def main() -> None:
    asked = arguments(__doc__)
    steps = Steps()
    messages: Any = [{"role": "user", "content": "Count from 1 to 1000, one number a line."}]
    with OpenAI(**address(), max_retries=0) as client, steps.step("a stream that breaks off raises APIError") as seen:
        stream = iter(
            client.chat.completions.create(model=asked.model, messages=messages, max_tokens=2000, n=4, stream=True)
        )
        chunks = [next(stream)]
        say(BEGUN)
        sys.stdin.readline()
        try:
            chunks.extend(stream)
        except APIError as error:
            expect(error.message, "the error says something", error=repr(error))
            expect(
                isinstance(error.body, dict),
                "the error came in the stream, as {error: {...}}",
                error=repr(error),
                body=error.body,
            )
            seen.update(chunks=len(chunks), error=error.message)
            return
        expect(False, "a stream whose engine was killed raises", chunks=len(chunks), last=chunks[-1].to_dict())
    steps.outcome()


if __name__ == "__main__":
    main()
