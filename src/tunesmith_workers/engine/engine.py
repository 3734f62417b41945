"""The engine: one base model with its adapters, the thread that computes, and requests that become exchanges with it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from tunesmith_workers.engine.adapters import read_adapter
from tunesmith_workers.engine.batch import NO_ADAPTER
from tunesmith_workers.engine.chat import (
    ChatRequest,
    Refusal,
    most_tokens,
    prompt_of,
    sampling_of,
    schema_of,
    stops_of,
)
from tunesmith_workers.engine.conversation import Exchange
from tunesmith_workers.engine.grammar import Grammar, Grammars
from tunesmith_workers.engine.loading import Loaded
from tunesmith_workers.engine.running import Full, Running
from tunesmith_workers.engine.sampling import Chooser
from tunesmith_workers.engine.scheduler import Answer, Event, Scheduler
from tunesmith_workers.engine.threads import Threads
from tunesmith_workers.models.loading import load_tokenizer
from tunesmith_workers.process.faults import ModelUnavailable, WorkerFault

_RETRY_SECONDS = 1
_ADAPTER_SECONDS = 60.0
_MOST_ADAPTERS = 64
_SHORT_CHARACTERS = 20_000
"""A conversation of so many is tokens in a millisecond or few."""


class Busy(Refusal):
    """As many requests wait as may wait."""

    def __init__(self) -> None:
        super().__init__("the engine is busy: as many requests wait as may", code="engine_busy", status=429)
        self.retry_seconds = _RETRY_SECONDS


class Engine:
    """What is served, by name."""

    def __init__(
        self,
        loaded: Loaded,
        name: str,
        *,
        most_waiting: int,
        prompt_tokens_per_step: int,
        most_guessed: int,
    ) -> None:
        """``name`` is what requests call the base by."""
        self._loaded = loaded
        self.name = name
        self.adapters: dict[str, tuple[int, str]] = {}
        """Number and folder, by name."""
        self._tokenizers = {name: loaded.tokenizer}
        self._scheduler = Scheduler(
            loaded.backend, prompt_tokens_per_step=prompt_tokens_per_step, most_guessed=most_guessed
        )
        self._grammars = Grammars(loaded.tokenizer, sorted(loaded.ends))
        self._loop: asyncio.AbstractEventLoop | None = None
        self.running = Running(
            self._scheduler, self._deliver, most_waiting=most_waiting, before_step=_watching(loaded.model.device)
        )
        self._changing = asyncio.Lock()

    @property
    def names(self) -> list[str]:
        return [self.name, *self.adapters]

    @property
    def longest(self) -> int:
        return self._loaded.backend.longest

    @property
    def dtype(self) -> str:
        """The precision that it computes in."""
        return str(self._loaded.model.dtype).removeprefix("torch.")

    def start(self) -> None:
        """Begin to compute. Called in the event loop."""
        self._loop = asyncio.get_running_loop()
        self.running.start()

    async def exchange(self, request: ChatRequest) -> Exchange:
        """Begin to answer a request.

        Raises:
            Refusal: it cannot be answered; ``Busy`` when it can be later.
        """
        adapter = self._adapter_of(request.model)
        tokenizer = self._tokenizers[request.model or self.name]
        prompt = await self._prompt(request, tokenizer)
        most = most_tokens(request, prompt, self.longest)
        schema = schema_of(request)
        grammar = None if schema is None else await self._grammar(schema)
        sampling = sampling_of(request, self._loaded.defaults, self._vocabulary)
        ends = frozenset[int]() if request.ignore_eos else self._loaded.ends
        exchange = Exchange(tokenizer, stops_of(request))
        answers = [
            Answer(
                prompt,
                Chooser(sampling, number),
                most=most,
                ends=ends,
                adapter=adapter,
                grammar=grammar and grammar.copy(),
                owner=exchange,
            )
            for number in range(request.n or 1)
        ]
        exchange.expect(answers)
        try:
            self.running.submit(answers)
        except Full:
            raise Busy from None
        return exchange

    async def _prompt(self, request: ChatRequest, tokenizer: Any) -> list[int]:
        if request.characters <= _SHORT_CHARACTERS:
            return prompt_of(request, tokenizer)
        return await asyncio.to_thread(prompt_of, request, tokenizer)  # others are answered meanwhile

    async def load_adapter(self, name: str, folder: str) -> None:
        """Serve an adapter of the base under a name; one that is there already under it, of the same folder, stays.

        Raises:
            Refusal: it cannot be loaded.
        """
        async with self._changing:
            known = self.adapters.get(name)
            if known is not None and known[1] == folder:
                return
            if known is not None or name == self.name:
                raise Refusal(f"{name!r} is served already", param="lora_name", status=409)
            if len(self.adapters) >= _MOST_ADAPTERS:
                raise Refusal(f"{_MOST_ADAPTERS} adapters are loaded already", param="lora_name", status=409)
            try:
                await asyncio.to_thread(self.add_adapter, name, folder)
            except WorkerFault as fault:
                raise Refusal(f"{fault.text} ({fault.where}); {fault.mend}", param="lora_path") from fault

    def add_adapter(self, name: str, folder: str) -> None:
        """As ``load_adapter``, from a thread or before the engine starts.

        Raises:
            ModelUnavailable: it cannot be loaded.
        """
        adapter = read_adapter(name, folder, self._loaded.model)
        # What was trained is what is served: a run may have chosen another chat template than its base has.
        try:
            tokenizer = load_tokenizer(folder, with_weights=False)
        except ModelUnavailable:
            tokenizer = self._loaded.tokenizer
        added: list[int] = []
        self._between_steps(lambda: added.append(self._loaded.bank.add(adapter)))
        self._tokenizers[name] = tokenizer
        self.adapters[name] = added[0], folder

    async def unload_adapter(self, name: str) -> None:
        """Serve an adapter no longer. Answers of it that are under way end badly.

        Raises:
            Refusal: there is none of that name.
        """
        async with self._changing:
            if name not in self.adapters:
                raise Refusal(f"no adapter {name!r} is loaded", param="lora_name", status=404)
            number, _ = self.adapters.pop(name)
            del self._tokenizers[name]

            def remove() -> None:
                self._deliver(self._scheduler.end_adapter(number))
                self._loaded.bank.remove(number)

            await asyncio.to_thread(self._between_steps, remove)

    def _between_steps(self, change: Callable[[], object]) -> None:
        if not self.running.alive:
            change()
        elif not self.running.between_steps(change, _ADAPTER_SECONDS):
            raise ModelUnavailable(f"the engine did not come to it in {_ADAPTER_SECONDS:g} s", mend="try again")

    @property
    def _vocabulary(self) -> int:
        return int(self._loaded.model.get_input_embeddings().num_embeddings)

    def _adapter_of(self, model: str) -> int:
        if model in ("", self.name):
            return NO_ADAPTER
        if model not in self.adapters:
            raise Refusal(
                f"the model {model!r} is not served here; there is: {', '.join(self.names)}",
                param="model",
                code="model_not_found",
                status=404,
            )
        return self.adapters[model][0]

    async def _grammar(self, schema: Mapping[str, Any]) -> Grammar:
        try:
            return await asyncio.to_thread(self._grammars.of_schema, schema)
        except WorkerFault as fault:
            raise Refusal(fault.text, param=fault.where) from fault

    def _deliver(self, events: Sequence[Event]) -> None:
        """From the thread that computes: one call for all that a step came to."""
        assert self._loop is not None
        self._loop.call_soon_threadsafe(_hand_out, events)


def _watching(device: torch.device) -> Callable[[], object]:
    """What is done between steps: on a CPU, others may come to need it, too."""
    return Threads(torch.get_num_threads()).look if device.type == "cpu" else lambda: None


def _hand_out(events: Sequence[Event]) -> None:
    for event in events:
        event.answer.owner.put(event)
