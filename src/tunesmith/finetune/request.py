"""POST /finetune as it is sent: every field checked for itself, so that one answer names all faults. Pure.

msgspec stops at the first fault; here the fields of each struct are converted one by one.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

import msgspec

from tunesmith.errors import Fault
from tunesmith.finetune.result import Measurement

Text = Annotated[str, msgspec.Meta(min_length=1, max_length=4096)]
Count = Annotated[int, msgspec.Meta(ge=1, le=2**53)]
_FOLDER_NAME = re.compile(r"\w[\w.-]*")
_LONGEST_NAME = 150
_SPELLINGS = ("show_frequecy", "show_frequency")


class CustomizedInput(msgspec.Struct, frozen=True, kw_only=True):
    """Local paths or http(s) addresses."""

    train_dataset_path: Text
    valid_dataset_path: Text
    test_dataset_path: Text


class InputContent(msgspec.Struct, frozen=True, kw_only=True):
    """What is trained on."""

    customized_input: CustomizedInput


class ParamDict(msgspec.Struct, frozen=True, kw_only=True):
    """How it is trained, and how often one is told."""

    finetune_mode: Literal["full", "lora"]
    config_param: dict[str, Any]
    show_frequecy: Count
    measurement: Measurement
    total_epoch_number: Count
    batch_size: Count
    lr: Annotated[float, msgspec.Meta(gt=0)]


class FinetuneRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The whole request; every field is required."""

    task_id: Text
    call_back_api: Text
    input_content: InputContent
    param_dict: ParamDict


def read_request(given: dict[str, Any]) -> tuple[FinetuneRequest | None, list[Fault]]:
    """The request, or None with everything that is wrong with it."""
    faults: list[Fault] = []
    plain = _one_spelling(given, faults)
    request = _read(plain, FinetuneRequest, "", faults)
    task_id = plain.get("task_id")
    if isinstance(task_id, str) and task_id:
        faults += name_faults(task_id, "task_id")
    faults += _frequency_faults(plain.get("param_dict"))
    return (None, faults) if faults or not isinstance(request, FinetuneRequest) else (request, [])


def name_faults(name: str, where: str) -> list[Fault]:
    """What keeps a name from being one of a folder."""
    if _FOLDER_NAME.fullmatch(name) and len(name.encode()) <= _LONGEST_NAME:
        return []
    mend = f"use letters, digits, _, - and full stops, at most {_LONGEST_NAME} bytes, beginning with a letter or digit"
    return [Fault(message="cannot be a folder's name", where=where, mend=mend)]


def _read(given: Any, wanted: Any, where: str, faults: list[Fault]) -> Any:
    if not (isinstance(wanted, type) and issubclass(wanted, msgspec.Struct)):
        try:
            return msgspec.convert(given, wanted)
        except msgspec.ValidationError as error:
            faults.append(Fault(message=str(error), where=where))
            return None
    if not isinstance(given, dict):
        faults.append(Fault(message="must be an object", where=where))
        return None
    fields = {field.name: field.type for field in msgspec.structs.fields(wanted)}
    prefix = f"{where}." if where else ""
    read = {}
    for name, kind in fields.items():
        if name in given:
            read[name] = _read(given[name], kind, prefix + name, faults)
        else:
            faults.append(Fault(message="is missing", where=prefix + name, mend="every field is required"))
    for name in given:
        if name not in fields:
            known = ", ".join(fields)
            faults.append(Fault(message="is no field", where=prefix + name[:100], mend=f"the fields are {known}"))
    return wanted(**read) if set(read) == set(fields) else None


def _one_spelling(given: dict[str, Any], faults: list[Fault]) -> dict[str, Any]:
    params = given.get("param_dict")
    if not isinstance(params, dict) or _SPELLINGS[1] not in params:
        return given
    rest = {name: value for name, value in params.items() if name != _SPELLINGS[1]}
    value = params[_SPELLINGS[1]]
    if rest.setdefault(_SPELLINGS[0], value) != value:
        where = "param_dict.show_frequency"
        faults.append(Fault(message="differs from show_frequecy", where=where, mend="send one of the two"))
    return {**given, "param_dict": rest}


def _frequency_faults(params: Any) -> list[Fault]:
    if not isinstance(params, dict) or params.get("measurement") != "epoch":
        return []
    every, total = params.get("show_frequecy"), params.get("total_epoch_number")
    if type(every) is not int or type(total) is not int or total >= every:
        return []
    message = f"is {total}, and must be at least show_frequecy, {every}, when measuring epochs"
    return [Fault(message=message, where="param_dict.total_epoch_number", mend="train longer, or show more often")]
