"""Which statuses a call can answer. Most of it follows from its path, body, scope and parameters; the rest is a table."""

from __future__ import annotations

from collections.abc import Mapping

from litestar.handlers import HTTPRouteHandler
from litestar.params import HeaderParameter, PathParameter

from tunesmith.api.access import OPEN, OPT
from tunesmith.api.multipart_file import MultipartFile
from tunesmith.api.openai.errors import OPENAI
from tunesmith.api.parameters import declared
from tunesmith.records import Scope

_KEY = "Idempotency-Key"
_NOT_HERE = "A file, model or recipe that the request names does not exist; all that is missing is named."
_WORKER = "The worker process ended without an answer; the log has its output."
_LOST = "The process of the run is gone, and how it ended cannot be known."
_BUSY = "The service is stopping, or too much of this is going on at once; try again."
_RUN = {400: f"The body is no JSON, or: {_NOT_HERE[0].lower()}{_NOT_HERE[1:]}"}
_OPENAI_WRONG = (
    "A field or parameter is wrong, something that the request names does not exist, or something is in the way; "
    "the message says what."
)
_DOWNLOAD = {
    304: "What `If-None-Match` names is what is there.",
    416: "The range begins behind the end of the file.",
}

ALSO: Mapping[str, Mapping[int, str]] = {
    "healthz": {503: "A background task of the service has ended; the document names it, and the process exits."},
    "create_run": {**_RUN, 409: "The project is archived."},
    "resume_run": {**_RUN, 409: "The run is not over, or has no complete checkpoint, or the project is archived."},
    "cancel_run": {409: "The run has already ended otherwise."},
    "cancel_experiment_run": {409: "The run has already ended otherwise."},
    "pause_run": {409: "The run is not running, or has no checkpoint to resume from."},
    "go_on": {409: "The run is not paused, or its data has changed since."},
    "mark_checkpoint": {400: "The body is no JSON, or that run has no complete checkpoint at that path."},
    "create_project": {409: "An active project has the name."},
    "change_project": {409: "Another active project has the name by now."},
    "create_project_run": {**_RUN, 409: "The project is archived."},
    "create_deployment": {
        400: f"The body is no JSON, or: {_NOT_HERE[0].lower()}{_NOT_HERE[1:]}",
        409: "The name is taken, the GPU is in use, or there are as many as max_deployments allows.",
    },
    "create_batch": {
        400: "The body is no JSON, or the file, the endpoint or the window cannot be used.",
        429: "As many batches are unfinished as may.",
    },
    "cancel_batch": {400: "It is over already."},
    "create_dataset": {409: "There is a dataset of that name."},
    "delete_dataset": {409: "An unfinished run uses it."},
    "upload_file": {409: "The dataset is full, or the upload was stopped."},
    "delete_upload": {409: "An unfinished run uses it."},
    "preview_dataset": {**_RUN, 500: _WORKER},
    "validate_data": {400: _NOT_HERE, 500: _WORKER, 503: _BUSY},
    "process_data": {**_RUN, 409: "The output folder holds other files.", 500: _WORKER},
    "deidentify": {500: _WORKER, 503: _BUSY},
    "finetune": {**_RUN, 409: "The `task_id` was used with another body."},
    "resolve_model": {400: _NOT_HERE},
    "start_task": {**_RUN, 409: "There is something in the output folder, or another run is to put its output there."},
    "evaluate": {**_RUN, 409: "The run was cancelled.", 500: _LOST},
    "export_onnx": {
        **_RUN,
        409: "There is something at the output path, another run is to put its output there, or the run was cancelled.",
        500: _LOST,
    },
    "show_service_config": {404: "There is none."},
    "delete_service_config": {404: "There is none."},
    "revoke_key": {409: "It was revoked already."},
    "resend_delivery": {409: "It is being sent right now."},
    "create_completion": {
        404: "There is no such model.",
        429: "As many requests wait for this model as may; try again.",
    },
    "create_part": {413: "The part has more than 64 MiB."},
    "file_content": _DOWNLOAD,
    "download_file": _DOWNLOAD,
    "download_run_artifact": _DOWNLOAD,
    "download_project_artifact": _DOWNLOAD,
}
"""By the name of the handler's function: what its route does not tell."""

_GOES_ON = {202: "The run goes on: `Prefer` asked not to wait for it, or it took longer than is waited."}
SUCCESS: Mapping[str, Mapping[int, str]] = {
    "evaluate": _GOES_ON,
    "export_onnx": _GOES_ON,
    "run_events": {204: "The run is over and everything was sent: do not come back."},
    "file_content": {206: "The range that was asked for."},
    "download_file": {206: "The range that was asked for."},
    "download_run_artifact": {206: "The range that was asked for."},
    "download_project_artifact": {206: "The range that was asked for."},
}
"""Good answers beside the usual one."""


def errors_of(handler: HTTPRouteHandler) -> dict[int, str]:
    """What can be answered with a problem document, or in OpenAI's form, with the reasons."""
    if handler.opt.get(OPENAI):
        found = {400: _OPENAI_WRONG}
    else:
        found = {422: "A field or parameter is wrong or not known; every one is named, with the choices."}
    needed = handler.opt.get(OPT)
    if needed != OPEN:
        found[401] = "No API key was sent, or it is not valid."
        found[403] = "The key's scope is too narrow, or something outside the allowed roots is named."
    if declared(handler, PathParameter):
        found[404] = "There is no such record."
    if handler.parsed_data_field is not None:
        found.setdefault(400, "The body is no JSON in UTF-8.")
        found[413] = "The body is too large."
    if issubclass(handler.operation_class, MultipartFile):
        found[413] = "The file is too large."
        found[415] = "The body is no multipart/form-data."
    if needed in (Scope.WRITE, Scope.ADMIN):
        found[503] = "The journal stopped after a failed write, or the service is stopping."
        found[507] = "The disk is full; nothing was changed."
    if _KEY in declared(handler, HeaderParameter):
        found[409] = f"The `{_KEY}` was used with another body."
    for status, reason in ALSO.get(handler.handler_name, {}).items():
        found[status] = f"{found[status]} Or: {reason}" if status == 409 and 409 in found else reason
    return dict(sorted(found.items()))


def successes_of(handler: HTTPRouteHandler, usual: str) -> dict[int, str]:
    """The good answers: the usual one, a repeat, a part of a file."""
    found = {handler.status_code: usual, **SUCCESS.get(handler.handler_name, {})}
    if _KEY in declared(handler, HeaderParameter):
        repeat = f"A repeat under the same `{_KEY}`: the record that the first call made."
        found[200] = f"{found[200]} Or: {repeat}" if 200 in found else repeat
    return dict(sorted(found.items()))
