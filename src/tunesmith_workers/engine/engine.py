"""The engine: one base model with its adapters, the thread that computes, and requests that become exchanges with it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec
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
from tunesmith_workers.engine.loading import Loaded, defaults_of, ends_of
from tunesmith_workers.engine.running import Full, Running
from tunesmith_workers.engine.sampling import Chooser
from tunesmith_workers.engine.scheduler import Answer, Event, Scheduler
from tunesmith_workers.engine.threads import Threads
from tunesmith_workers.models.loading import load_generation_config, load_tokenizer
from tunesmith_workers.process.faults import ModelUnavailable, WorkerFault

_T = TypeVar("_T")
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


class Named(msgspec.Struct, frozen=True):
    """The base or an adapter, and what belongs to it: what was trained is what is served."""

    adapter: int
    folder: str
    tokenizer: Any
    """With the chat template that it was trained with."""
    ends: frozenset[int]
    """Tokens that end an answer."""
    defaults: Mapping[str, float]
    """Of sampling, as its authors set them."""


class Engine:
    """What is served, by name."""

    def __init__(
        self, loaded: Loaded, name: str, running: Running, *, prompt_tokens_per_step: int, most_guessed: int
    ) -> None:
        """
        Args:
            loaded: the base.
            name: what requests call it by.
            running: the thread that loaded it.
            prompt_tokens_per_step: so many tokens of prompts are computed beside answers.
            most_guessed: so many tokens of answers are guessed in one step, together.
        """
        self._loaded, self.name, self.running = loaded, name, running
        self._served = {name: Named(NO_ADAPTER, "", loaded.tokenizer, loaded.ends, loaded.defaults)}
        self._scheduler = Scheduler(
            loaded.backend, prompt_tokens_per_step=prompt_tokens_per_step, most_guessed=most_guessed
        )
        self._grammars = Grammars(loaded.tokenizer, sorted(loaded.ends))
        self._loop: asyncio.AbstractEventLoop | None = None
        # On a CPU, others may come to need it, too.
        self._threads = Threads(torch.get_num_threads() if loaded.model.device.type == "cpu" else 1)
        running.serve(self._scheduler, self._deliver, self._threads.apply)
        self._changing = asyncio.Lock()

    @property
    def names(self) -> list[str]:
        """The base first."""
        return list(self._served)

    @property
    def longest(self) -> int:
        return self._loaded.backend.longest

    @property
    def dtype(self) -> str:
        """The precision that it computes in."""
        return str(self._loaded.model.dtype).removeprefix("torch.")

    def start(self) -> None:
        """Begin to answer. Called in the event loop."""
        self._loop = asyncio.get_running_loop()
        self._threads.watch()

    async def exchange(self, request: ChatRequest) -> Exchange:
        """Begin to answer a request.

        Raises:
            Refusal: it cannot be answered; ``Busy`` when it can be later.
        """
        named = self._named(request.model)
        prompt = await self._prompt(request, named.tokenizer)
        most = most_tokens(request, prompt, self.longest)
        schema = schema_of(request)
        grammar = None if schema is None else await self._grammar(schema)
        sampling = sampling_of(request, named.defaults, self._vocabulary)
        exchange = Exchange(named.tokenizer, stops_of(request))
        answers = [
            Answer(
                prompt,
                Chooser(sampling, number),
                most=most,
                ends=frozenset() if request.ignore_eos else named.ends,
                adapter=named.adapter,
                grammar=grammar and grammar.copy(),
                owner=exchange,
            )
            for number in range(request.n or 1)
        ]
        if self._served.get(request.model or self.name) is not named:
            raise Refusal(f"{request.model!r} was just unloaded", param="model", code="model_not_found", status=404)
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
            known = self._served.get(name)
            if known is not None and known.folder == folder:
                return
            if known is not None:
                raise Refusal(f"{name!r} is served already", param="lora_name", status=409)
            if len(self._served) > _MOST_ADAPTERS:
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
        number = self._between_steps(lambda: self._loaded.bank.add(read_adapter(name, folder, self._loaded.model)))
        try:
            tokenizer = load_tokenizer(folder, with_weights=False)
        except ModelUnavailable:
            tokenizer = self._loaded.tokenizer
        has_own = (Path(folder) / "generation_config.json").is_file()
        own = load_generation_config(folder) if has_own else self._loaded.model.generation_config
        self._served[name] = Named(number, folder, tokenizer, ends_of(own, tokenizer), defaults_of(own))

    async def unload_adapter(self, name: str) -> None:
        """Serve an adapter no longer. Answers of it that are under way end badly.

        Raises:
            Refusal: there is none of that name.
        """
        async with self._changing:
            if name not in self._served or name == self.name:
                raise Refusal(f"no adapter {name!r} is loaded", param="lora_name", status=404)
            number = self._served.pop(name).adapter

            def remove() -> None:
                self._deliver(self._scheduler.end_adapter(number))
                self._loaded.bank.remove(number)

            await asyncio.to_thread(self._between_steps, remove)

    def _between_steps(self, change: Callable[[], _T]) -> _T:
        try:
            return self.running.between_steps(change, _ADAPTER_SECONDS)
        except TimeoutError:
            raise ModelUnavailable(
                f"the engine did not come to it in {_ADAPTER_SECONDS:g} s", mend="try again"
            ) from None

    @property
    def _vocabulary(self) -> int:
        return int(self._loaded.model.get_input_embeddings().num_embeddings)

    def _named(self, model: str) -> Named:
        found = self._served.get(model or self.name)
        if found is None:
            raise Refusal(
                f"the model {model!r} is not served here; there is: {', '.join(self.names)}",
                param="model",
                code="model_not_found",
                status=404,
            )
        return found

    async def _grammar(self, schema: Mapping[str, Any]) -> Grammar:
        try:
            return await asyncio.to_thread(self._grammars.of_schema, schema)
        except WorkerFault as fault:
            raise Refusal(fault.text, param=fault.where) from fault

    def _deliver(self, events: Sequence[Event]) -> None:
        """From the thread that computes: one call for all that a step came to."""
        if self._loop is not None:  # else nobody has asked anything yet
            self._loop.call_soon_threadsafe(_hand_out, events)


def _hand_out(events: Sequence[Event]) -> None:
    for event in events:
        event.answer.owner.put(event)
