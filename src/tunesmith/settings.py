"""Settings: one frozen struct, read once from tunesmith.yaml, then TUNESMITH_* variables, then flags.

Nothing here is global: ``load`` returns the struct and ``app.open_services`` passes it on.
"""

from __future__ import annotations

import difflib
import os
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import msgspec

from tunesmith.errors import Fault, InvalidInput, SettingsInvalid

DEFAULT_CONFIG = Path("tunesmith.yaml")
_ENGINE_ARGUMENT = re.compile(r"(--)?[A-Za-z0-9][A-Za-z0-9_-]*=?")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\*?|\*")

Port = Annotated[int, msgspec.Meta(ge=0, le=65535)]
Count = Annotated[int, msgspec.Meta(ge=0)]
Seconds = Annotated[float, msgspec.Meta(ge=0, le=10**8)]


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Every setting with its default. A docstring below a field is what ``tunesmith settings`` prints."""

    host: str = "127.0.0.1"
    port: Port = 8000
    state_dir: Path = Path("state")
    recipes_dir: Path = Path("recipes")
    training_dir: Path = Path("training")
    finetuned_dir: Path | None = None
    allowed_roots: tuple[Path, ...] = ()
    run_environment: tuple[str, ...] = ()
    max_cpu_runs: Count = 1
    max_restarts: Count = 3
    checkpoint_budget_bytes: Count = 0
    stop_grace_seconds: Seconds = 30.0
    start_deadline_seconds: Seconds = 60.0
    max_upload_bytes: Count = 100 * 1024 * 1024
    max_file_bytes: Count = 8 * 1024**3
    max_train_config_bytes: Count = 5 * 1024 * 1024
    max_download_bytes: Count = 2 * 1024**3
    allow_private_urls: bool = False
    webhook_url: str = ""
    default_model: str = ""
    aliases: dict[str, str] = {}
    vllm_command: str = ""
    allowed_engine_args: tuple[str, ...] = ()
    max_deployments: Count = 16
    warm_models: Annotated[int, msgspec.Meta(ge=1)] = 2
    max_engine_restarts: Count = 5
    engine_start_deadline_seconds: Seconds = 600.0
    log_format: Literal["text", "json"] = "text"

    @property
    def is_loopback(self) -> bool:
        return self.host in ("127.0.0.1", "::1", "localhost")

    @property
    def roots(self) -> tuple[Path, ...]:
        """The folders that paths from requests must lie under, resolved."""
        chosen = self.allowed_roots or (self.state_dir, self.training_dir, Path.cwd())
        return tuple(root.resolve() for root in chosen)


DESCRIPTIONS: Mapping[str, str] = {
    "host": "address to listen on; anything but loopback needs an API key",
    "port": "port to listen on; 0 picks a free one",
    "state_dir": "where everything is kept",
    "recipes_dir": "where recipe folders are looked for",
    "training_dir": "where projects find datasets/ and configs/",
    "finetuned_dir": "where the finetune door writes models (default: state_dir/finetuned)",
    "allowed_roots": "folders that paths in requests must lie under (default: state_dir, training_dir, working folder)",
    "run_environment": "variables of the server that runs are given beside the ordinary ones, such as HF_TOKEN or WANDB_*",
    "max_cpu_runs": "how many runs without a GPU may run at once",
    "max_restarts": "how often a run that died with the machine is started again from its newest checkpoint",
    "checkpoint_budget_bytes": "how much disk checkpoints may take before the oldest that nobody needs go; 0: no limit",
    "stop_grace_seconds": "how long a run may take to write its checkpoint before it is killed",
    "start_deadline_seconds": "how long a run may stay in `starting`",
    "max_upload_bytes": "largest file accepted in one upload",
    "max_file_bytes": "largest file accepted in parts",
    "max_train_config_bytes": "largest train config accepted",
    "max_download_bytes": "largest dataset that is fetched from an address",
    "allow_private_urls": "whether datasets and callbacks may name private addresses",
    "webhook_url": "address that is told, as OpenAI's webhooks do, of every training that ends",
    "default_model": "model that chat uses when a request names none",
    "aliases": "model names and the model references they stand for",
    "vllm_command": "how to start vLLM (default: its OpenAI server with this Python, where it is installed)",
    "allowed_engine_args": "more options that a deployment's extra_args may hold: a name, with = after it if it takes a value",
    "max_deployments": "how many engines may be there at once",
    "warm_models": "how many engines are started for models that are asked for without a deployment, and kept",
    "max_engine_restarts": "how often an engine that ended is started again before its deployment has failed",
    "engine_start_deadline_seconds": "how long an engine may take to load its model",
    "log_format": "text for people, json for collectors",
}


class Source(msgspec.Struct, frozen=True):
    """A setting's value and where it came from."""

    name: str
    value: Any
    origin: str


def load(
    *,
    config: Path | None = None,
    environ: Mapping[str, str] | None = None,
    flags: Mapping[str, Any] | None = None,
) -> tuple[Settings, list[Source]]:
    """Read the settings; later sources win: file, variables, flags.

    Raises:
        SettingsInvalid: with every wrong name and value at once.
    """
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    faults: list[Fault] = []
    path = config or DEFAULT_CONFIG
    if config is not None or path.exists():
        for name, value in _read_file(path).items():
            if name not in Settings.__struct_fields__:
                faults.append(Fault(message="no such setting", where=f"{path}: {name}", mend=_nearest(name)))
                continue
            values[name], origins[name] = value, str(path)
    for variable, text in (os.environ if environ is None else environ).items():
        name = variable.removeprefix("TUNESMITH_").lower()
        # TUNESMITH_ also prefixes what runs are given (TUNESMITH_RUN_ID, ...): only settings are read.
        if variable.startswith("TUNESMITH_") and name in Settings.__struct_fields__:
            values[name], origins[name] = _split(name, text), variable
    for name, value in (flags or {}).items():
        if value is not None:
            values[name], origins[name] = value, f"--{name.replace('_', '-')}"
    settings = _convert(values, origins, faults)
    return settings, [
        Source(name, getattr(settings, name), origins.get(name, "default")) for name in Settings.__struct_fields__
    ]


def _read_file(path: Path) -> dict[str, Any]:
    from tunesmith.safe_yaml import load as load_yaml  # noqa: PLC0415  # most starts have no file to parse

    try:
        content = load_yaml(path.read_bytes(), source=str(path))
    except OSError as error:
        raise SettingsInvalid(f"cannot be read: {error.strerror}", where=str(path)) from None
    except InvalidInput as error:
        raise SettingsInvalid(error.message, where=error.where, mend=error.mend) from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise SettingsInvalid("must be a mapping of settings to values", where=str(path))
    return content


def _split(name: str, text: str) -> Any:
    if name in ("allowed_roots", "run_environment", "allowed_engine_args"):
        return [part for part in text.split(":") if part]
    if name == "aliases":
        return dict(pair.partition("=")[::2] for pair in text.split(":") if pair)
    return text


def _convert(values: dict[str, Any], origins: dict[str, str], faults: list[Fault]) -> Settings:
    types = {field.name: field.type for field in msgspec.structs.fields(Settings)}
    converted: dict[str, Any] = {}
    for name, value in values.items():
        try:
            converted[name] = msgspec.convert(value, types[name], strict=False, dec_hook=_to_path)
            _refuse_unusable(name, converted[name])
        except msgspec.ValidationError as error:
            faults.append(Fault(message=str(error), where=f"{name} (from {origins[name]})", mend=DESCRIPTIONS[name]))
    if faults:
        raise SettingsInvalid("some settings cannot be used", faults=tuple(faults))
    return Settings(**converted)


def _refuse_unusable(name: str, value: Any) -> None:
    if name == "aliases" and not all(alias and reference for alias, reference in value.items()):
        raise msgspec.ValidationError("an alias needs a name and what it stands for, such as small=HuggingFaceTB/x")
    if name == "allowed_engine_args":
        wrong = [one for one in value if not _ENGINE_ARGUMENT.fullmatch(one)]
        if wrong:
            raise msgspec.ValidationError(
                f"{', '.join(wrong)}: not the name of an option, such as rope-scaling= or enforce-eager"
            )
    if name == "vllm_command":
        _refuse_unsplittable(value)
    if name == "webhook_url" and value and not _is_address(value):
        raise msgspec.ValidationError(
            "not a full http(s) address without user and password, as https://example.org/hook"
        )
    if name == "run_environment":
        wrong = [one for one in value if not _VARIABLE.fullmatch(one) or one.startswith("TUNESMITH_")]
        if wrong:
            raise msgspec.ValidationError(
                f"{', '.join(wrong)}: not the name of a variable, with or without * at its end, that a run may have; those "
                "that begin with TUNESMITH_ are the server's own"
            )


def _is_address(text: str) -> bool:
    try:
        parts = urlsplit(text)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname) and "@" not in parts.netloc


def _refuse_unsplittable(command: str) -> None:
    try:
        shlex.split(command)
    except ValueError as error:
        raise msgspec.ValidationError(f"cannot be split into words as a shell would: {error}") from None


def _to_path(wanted: type, value: Any) -> Any:
    if wanted is Path and isinstance(value, str | Path):
        return Path(value).expanduser()
    raise TypeError(f"expected {wanted.__name__}, got {type(value).__name__}")


def _nearest(name: str) -> str:
    close = difflib.get_close_matches(name, Settings.__struct_fields__, n=1)
    return f"did you mean {close[0]}?" if close else "`tunesmith settings` lists them all"
