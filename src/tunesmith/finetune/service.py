"""Tasks of the finetune door: checked, begun once whoever repeats them, and then ordinary runs. No HTTP in here.

Not imported with the package: the process of a function has no use for it.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import structlog

from tunesmith.errors import Conflict, InvalidInput, Unavailable
from tunesmith.finetune.downloads import new_folder
from tunesmith.finetune.inputs import Inputs
from tunesmith.finetune.job import FunctionDoor
from tunesmith.finetune.labels import REQUEST_SHA256
from tunesmith.finetune.place import make_place, name_of
from tunesmith.finetune.plan import RunPlan, plan_for_function, plan_for_recipe
from tunesmith.finetune.publish import show_log
from tunesmith.finetune.request import FinetuneRequest, read_request
from tunesmith.finetune.tasks import Turns, digest_of
from tunesmith.net.guarded import GuardedClient
from tunesmith.paths import StatePaths
from tunesmith.recipes import RecipeBook
from tunesmith.records import Run, utc_now
from tunesmith.references import References

_log = structlog.get_logger()
_BUILT_IN = {"full": "sft", "lora": "lora"}


class FinetuneService:
    """Begins tasks."""

    def __init__(
        self,
        *,
        function: FunctionDoor | None,
        run_of_task: Callable[[str], Run | None],
        create_run: Callable[[RunPlan], Awaitable[Run]],
        references: References,
        client: GuardedClient,
        recipes: RecipeBook,
        paths: StatePaths,
        folder: Path,
        default_model: str,
        max_download_bytes: int,
        allow_private_urls: bool,
    ) -> None:
        """
        Args:
            function: what is called; without it, built-in recipes.
            run_of_task: the run that a task of this id has begun, if there is one.
            create_run: makes a run of a plan; raises what creating a run raises.
            references: what datasets are looked up with.
            client: what addresses are vetted and fetched with.
            recipes: where the built-in ones are.
            paths: the state folder's.
            folder: what is finetuned is kept below it.
            default_model: what a request without a model trains.
            max_download_bytes: how large a dataset that is fetched may be.
            allow_private_urls: whether a function's process may fetch from private addresses.
        """
        self._function = function
        self._run_of_task = run_of_task
        self._create_run = create_run
        self._inputs = Inputs(references, client, reads_rows=function is None, max_download_bytes=max_download_bytes)
        self._recipes = recipes
        self._paths = paths
        self._folder = folder
        self._default_model = default_model
        self._max_download_bytes = max_download_bytes
        self._allow_private_urls = allow_private_urls
        self._turns = Turns()

    async def begin(self, given: dict[str, Any]) -> Run:
        """The run of a task as it is on record, or begun now.

        Raises:
            InvalidInput, MissingReference, Forbidden: with all that is wrong with the request at once.
            Conflict: the task was begun with another request.
            OutOfSpace: nothing was begun.
        """
        wanted, faults = read_request(given)
        if wanted is None:
            await self._inputs.refer(given, faults)
        assert wanted is not None  # or it had faults, and they were raised
        # Shielded, so that whoever waits for the turn sees what was begun, also when the client that asked has gone.
        return await asyncio.shield(self._begin_once(wanted, given))

    async def _begin_once(self, wanted: FinetuneRequest, given: dict[str, Any]) -> Run:
        async with self._turns.turn(wanted.task_id):
            earlier = self._run_of_task(wanted.task_id)
            if earlier is not None:
                return _repeated(wanted, earlier)
            datasets = await self._inputs.refer(given, [])
            if self._function is None:
                return await self._built_in(wanted, datasets)
            return await self._own(self._function, wanted, datasets)

    async def _own(self, door: FunctionDoor, wanted: FinetuneRequest, datasets: dict[str, str]) -> Run:
        place = await self._place(door.model_name, wanted.task_id)
        plan = plan_for_function(
            door,
            wanted,
            datasets,
            place,
            max_download_bytes=self._max_download_bytes,
            allow_private_urls=self._allow_private_urls,
        )
        return await self._create(plan, [place])

    async def _built_in(self, wanted: FinetuneRequest, datasets: dict[str, str]) -> Run:
        model = wanted.param_dict.config_param.get("model") or self._default_model
        if not isinstance(model, str):
            raise InvalidInput("must be text", where="param_dict.config_param.model", mend="name a model reference")
        recipe = await anyio.to_thread.run_sync(self._recipes.get, _BUILT_IN[wanted.param_dict.finetune_mode])
        downloads = new_folder(self._paths)
        try:
            local = await self._inputs.fetched(datasets, downloads)
            place = await self._place(name_of(model) or recipe.name, wanted.task_id)
        except BaseException:
            await _remove(downloads)
            raise
        run = await self._create(plan_for_recipe(recipe, model, wanted, local, place), [downloads, place])
        try:
            await anyio.to_thread.run_sync(show_log, self._paths.run(run.id).log.resolve(), place)
        except OSError as error:
            # The run is on its way; the log is put there once more at its end.
            _log.warning("log_not_shown", run_id=run.id, place=str(place), reason=str(error))
        return run

    async def _create(self, plan: RunPlan, made: list[Path]) -> Run:
        """The run, or nothing of the folders that were made for it; raises what creating a run raises."""
        try:
            return await self._create_run(plan)
        except Unavailable:
            raise  # it may be on record, as after a cancellation, and needs them then: the next start knows
        except Exception:
            await _remove(*made)
            raise

    async def _place(self, model_name: str, task_id: str) -> Path:
        return await anyio.to_thread.run_sync(make_place, self._folder.resolve() / model_name, task_id, utc_now())


def _repeated(wanted: FinetuneRequest, earlier: Run) -> Run:
    """Raises Conflict: the task is another one. Its data may be gone by now: a repeat is not checked again."""
    if earlier.labels.get(REQUEST_SHA256) != digest_of(wanted):
        raise Conflict(
            f"task {wanted.task_id} was begun with another request, as run {earlier.id}",
            where="task_id",
            mend="choose a new task_id for a new task",
        )
    return earlier


async def _remove(*folders: Path) -> None:
    with anyio.CancelScope(shield=True):
        for folder in folders:
            await anyio.to_thread.run_sync(partial(shutil.rmtree, folder, ignore_errors=True))
