"""A request for an adapter that goes away while the request is read is refused; the base does not answer in its place."""

from __future__ import annotations

import asyncio

import pytest
from serving_parts import loaded

from tunesmith_workers.engine.chat import Refusal, read_request
from tunesmith_workers.engine.engine import Engine
from tunesmith_workers.engine.running import Running

BODY = b"""{"model": "going", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 4,
"response_format": {"type": "json_object"}}"""


def test_an_adapter_that_goes_while_a_request_is_read(tiny_model, adapters):
    running = Running(most_waiting=8)
    engine = Engine(loaded(tiny_model), "tiny", running, prompt_tokens_per_step=64, most_guessed=0)
    engine.add_adapter("going", str(adapters[0]))

    async def main() -> None:
        engine.start()
        with engine._grammars._lock:  # so that its grammar takes until the adapter is gone
            asked = asyncio.create_task(engine.exchange(read_request(BODY)))
            await asyncio.sleep(0.05)
            assert not asked.done()
            await engine.unload_adapter("going")
        with pytest.raises(Refusal, match="just unloaded") as refused:
            await asked
        assert refused.value.status == 404

    try:
        asyncio.run(asyncio.wait_for(main(), 60))
    finally:
        running.stop()
