"""The finetune door: POST /finetune trains with the function this server was started with, or with a built-in recipe."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from litestar import post
from litestar.params import JSONBody

from tunesmith.api.access import NEEDS_WRITE
from tunesmith.api.services import HttpRequest, services_of
from tunesmith.finetune import OUTPUT_LOG_PATH, OUTPUT_MODEL_PATH, TASK_ID
from tunesmith.records import Run, RunState


class FinetuneBody(msgspec.Struct, frozen=True, kw_only=True):
    """The request, as far as the document says it. What is really checked, and all at once, is the JSON itself."""

    task_id: Annotated[Any, msgspec.Meta(description="comes back in every callback and names a folder")] = None
    call_back_api: Annotated[Any, msgspec.Meta(description="http(s) address of the receiver")] = None
    input_content: Annotated[
        Any,
        msgspec.Meta(
            description="`customized_input` with `train_dataset_path`, `valid_dataset_path` and `test_dataset_path`: "
            "files, folders or http(s) addresses"
        ),
    ] = None
    param_dict: Annotated[
        Any,
        msgspec.Meta(
            description="`finetune_mode` (`full` or `lora`), `config_param` (an object), `show_frequecy` (or "
            "`show_frequency`), `measurement` (`step` or `epoch`), `total_epoch_number`, `batch_size`, `lr`"
        ),
    ] = None


class FinetuneAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What was begun, now or by an earlier request for the task; all else comes by callback."""

    task_id: str
    run_id: str
    status: RunState
    output_model_path: str
    output_log_path: str


@post("/finetune", opt=NEEDS_WRITE, tags=["Finetune"], status_code=200)
async def finetune(request: HttpRequest, data: JSONBody[FinetuneBody]) -> FinetuneAnswer:
    """Train, and tell `call_back_api` every `show_frequecy` steps or epochs, and at the end. A bad request names every fault.

    Every field is required, and no other is allowed. Repeating a request under the same `task_id` begins nothing: it answers
    with the run that is there. Another request under that id is refused.
    """
    del data  # a struct keeps no more than its own fields, and stops at the first fault
    given: dict[str, Any] = await request.json()
    return _answer(await services_of(request).finetune.begin(given))


def _answer(run: Run) -> FinetuneAnswer:
    return FinetuneAnswer(
        task_id=run.labels[TASK_ID],
        run_id=run.id,
        status=run.state,
        output_model_path=run.labels[OUTPUT_MODEL_PATH],
        output_log_path=run.labels[OUTPUT_LOG_PATH],
    )


HANDLERS = [finetune]
