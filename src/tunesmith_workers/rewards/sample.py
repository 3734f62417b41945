"""What is graded: an answer with the row that it belongs to; and the words for what kept it from being graded."""

from __future__ import annotations

from typing import Any, Final, Literal

import msgspec

SAMPLE_NAMES: Final = ("output_text", "output_json", "output_tools", "choices")
"""What a template may name after ``sample``."""

Flag = Literal[
    "formula_parse_error",
    "invalid_variable_error",
    "model_grader_parse_error",
    "model_grader_refusal_error",
    "model_grader_server_error",
    "other_error",
    "sample_parse_error",
    "unresponsive_reward_error",
]
"""Why a sample has no score, in the words of OpenAI's ``metadata.errors``."""

_decode = msgspec.json.Decoder().decode


class CannotGrade(Exception):
    """One sample has no score: a fault of the sample or of a judge, not of the grader."""

    def __init__(self, flag: Flag, text: str) -> None:
        super().__init__(text)
        self.flag = flag
        self.text = text


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """One answer."""

    output_text: str
    item: dict[str, Any] = {}  # msgspec copies an empty default
    """The row of the dataset: where the expected answer is."""
    output_tools: tuple[Any, ...] = ()
    """The tool calls of the answer."""
    choices: tuple[Any, ...] | None = None
    """The choices of the completion; without them, one is made of ``output_text``."""

    def value(self, name: str, where: str) -> Any:
        """What ``sample.<name>`` stands for, one of SAMPLE_NAMES. Raises CannotGrade: there is no JSON in the answer."""
        if name == "output_json":
            return self._json(where)
        if name == "choices" and self.choices is None:
            message = {"role": "assistant", "content": self.output_text, "tool_calls": self.output_tools}
            return ({"index": 0, "message": message},)
        return getattr(self, name)

    def _json(self, where: str) -> Any:
        try:
            return _decode(self.output_text)
        except (msgspec.DecodeError, RecursionError, UnicodeEncodeError):
            raise CannotGrade(
                "sample_parse_error", f"{where}: sample.output_json is named, and the answer is no JSON"
            ) from None
