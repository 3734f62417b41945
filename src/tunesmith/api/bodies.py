"""JSON bodies become their structs here, for every call: strictly by type, and with every fault named at once."""

from __future__ import annotations

from collections.abc import Generator
from functools import lru_cache
from typing import Any

import msgspec
from litestar.dto import AbstractDTO
from litestar.dto.data_structures import DTOFieldDefinition
from litestar.exceptions import ClientException
from litestar.typing import FieldDefinition

from tunesmith.api.faults import faults_in
from tunesmith.errors import InvalidInput

WRONG_FIELDS = "the request has wrong fields"


class StrictBody(AbstractDTO[Any]):
    """What Litestar decodes a body with. Its own way takes "5" for a number, and names one fault only."""

    def decode_bytes(self, value: bytes) -> Any:
        field = self.asgi_connection.route_handler.parsed_data_field
        return decoded(value, field.annotation)

    @classmethod
    def create_for_field_definition(cls, *_: Any, **__: Any) -> None:
        """Nothing is made for a type beforehand: the struct in the handler's signature says all."""

    @classmethod
    def is_supported_model_type_field(cls, field_definition: FieldDefinition) -> bool:
        return field_definition.name == "data"

    @classmethod
    def generate_field_definitions(cls, model_type: type[Any]) -> Generator[DTOFieldDefinition, None, None]:
        del model_type
        yield from ()

    @classmethod
    def detect_nested_field(cls, field_definition: FieldDefinition) -> bool:
        del field_definition
        return False


def decoded(body: bytes, wanted: Any) -> Any:
    """A body as the type that its call takes.

    Raises:
        ClientException: it is no JSON.
        InvalidInput: with every field that is wrong.
        RecursionError, UnicodeDecodeError: it is nested too deeply, or not UTF-8.
    """
    try:
        return _decoder(wanted).decode(body)
    except msgspec.ValidationError as error:
        refusal = str(error)
    except msgspec.DecodeError as error:
        raise ClientException(detail=f"the body is no JSON in UTF-8: {_position(error)}") from error
    faults = faults_in(decoded(body, Any), wanted)
    faults = tuple(msgspec.structs.replace(fault, where=fault.where or "body") for fault in faults)
    raise InvalidInput(WRONG_FIELDS if faults else refusal, faults=faults)


@lru_cache(maxsize=256)
def _decoder(wanted: Any) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(wanted)


def _position(error: msgspec.DecodeError) -> str:
    text = str(error).removeprefix("JSON is malformed: ")
    return text[:1].lower() + text[1:]
