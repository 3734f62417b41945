"""YAML from people, read by the rules of ``contract.config_files`` and written so that any reader understands the same.

What is refused is said with the file's name and the line. ``dump`` quotes whatever a YAML 1.1 or 1.2 reader could take for
something else. No round trip of comments.
"""

from __future__ import annotations

from typing import Any

import yaml

from tunesmith.contract import config_files
from tunesmith.contract.config_files import MAX_BYTES, ConfigFault, ConfigTooLarge, plain_scalar
from tunesmith.errors import InvalidInput, TooLarge


def load(content: bytes | str, *, source: str, max_bytes: int = MAX_BYTES) -> Any:
    """Read one document into plain dict, list, str, int, float, bool and None; an empty one is None.

    Blocks for up to half a second on a document at the limits: call it from a thread when it may be large.

    Args:
        content: the file's bytes, or its text.
        source: what to call it in errors, such as the file's name.
        max_bytes: the size limit.

    Raises:
        InvalidInput: with ``where`` as ``source:line``.
        TooLarge: longer than ``max_bytes``.
    """
    try:
        return config_files.load(content, max_bytes=max_bytes)
    except ConfigTooLarge as fault:
        raise TooLarge(fault.message, where=source) from fault
    except ConfigFault as fault:
        raise InvalidInput(fault.message, where=f"{source}:{fault.line}", mend=fault.mend) from fault


def dump(value: Any) -> bytes:
    """Write plain values as UTF-8 YAML: keys in their order, block style, Chinese and other text readable as it is.

    The result means the same to ``load``, to PyYAML and to a YAML 1.2 reader. Characters beyond U+FFFF, such as emoji,
    come out as escapes: libyaml writes them so, and PyYAML's own writer mangles rarer characters instead.

    Raises:
        UnicodeEncodeError: text with half a surrogate pair, which no file can hold.
    """
    text: str = yaml.dump(
        value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=False, width=4096
    )
    return text.encode()


class _Dumper(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]  # C where libyaml is there
    def ignore_aliases(self, _data: Any) -> bool:
        return True

    def represent_text(self, text: str) -> yaml.ScalarNode:
        style = "|" if "\n" in text else "'" if _means_something_else(text) else None
        node: yaml.ScalarNode = self.represent_scalar("tag:yaml.org,2002:str", text, style=style)
        return node


_Dumper.add_representer(str, _Dumper.represent_text)


def _means_something_else(text: str) -> bool:
    try:
        return not isinstance(plain_scalar(text), str)
    except OverflowError:
        return True
