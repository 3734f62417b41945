"""Gradients of a batch in parts: in forked workers as long as they answer, and one after the other in here once they do not.

A step in which a worker fails is neither lost nor changed: no gradient of it was added, and all its parts are computed
again. Later steps go on in one process, which is slower and takes no more memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

from tunesmith_workers.cpu.forked_worker import Work, WorkerFailed
from tunesmith_workers.cpu.forked_workers import ForkedWorkers, Patience, add_gradient
from tunesmith_workers.process.events import emit_message


class BatchParts:
    """Adds up gradients of the parts of a batch.

    Raises:
        OSError: no forked workers can be started.
    """

    def __init__(
        self,
        count: int,
        work: Work,
        parameters: Sequence[nn.Parameter],
        *,
        patience: Patience,
        stop_asked: Callable[[], bool],
    ) -> None:
        self.count = count
        self._work = work
        self._parameters = parameters
        self._workers: ForkedWorkers | None = ForkedWorkers(
            count, work, parameters, patience=patience, stop_asked=stop_asked
        )

    def add_gradients(self, requests: Sequence[Any], tokens: Sequence[int]) -> list[Any]:
        """Add the gradients of at most ``count`` parts; their results are returned in order.

        Raises:
            StepDropped: the training was asked to stop in the middle. No gradient was added.
        """
        if self._workers is not None:
            try:
                return self._workers.add_gradients(requests, tokens)
            except WorkerFailed as failure:
                self._continue_alone(failure)
        return [self._add(request) for request in requests]

    def close(self) -> None:
        """End the workers."""
        if self._workers is not None:
            self._workers.close()
            self._workers = None

    def _continue_alone(self, failure: WorkerFailed) -> None:
        self.close()
        emit_message(
            f"{failure}: its step is computed again, and the training continues in one process, which is slower",
            level="warning",
            where="training.accelerate",
            mend="if memory is short, halve training.per_device_train_batch_size and double "
            "gradient_accumulation_steps; training.accelerate: off starts no workers",
        )

    def _add(self, request: Any) -> Any:
        result, gradients = self._work(request)
        for parameter, gradient in zip(self._parameters, gradients, strict=True):
            if gradient is not None:
                add_gradient(parameter, gradient)
        return result
