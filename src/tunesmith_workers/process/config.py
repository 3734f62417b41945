"""The resolved config of a run, as frozen structs. Defaults stand in recipe.yaml and nowhere else.

The server writes a config with every option in it. A config written by hand may leave options out: ``run.sh`` passes the
recipe's own recipe.yaml, and its defaults fill the gaps.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec

from tunesmith.contract import config_files
from tunesmith.contract.config_files import ConfigFault
from tunesmith.contract.environment import OUTPUT_DIR, RESUME_FROM, RUN_DIR
from tunesmith_workers.process.faults import BadConfig

_LARGEST = 16 * 1024 * 1024
"""In bytes; the service writes none that is larger."""

Positive = Annotated[int, msgspec.Meta(ge=1)]
Share = Annotated[float, msgspec.Meta(ge=0, lt=1)]
Tolerance = Annotated[float, msgspec.Meta(gt=0)]

DType = Literal["auto", "bfloat16", "float32"]
Attention = Literal["auto", "sdpa", "eager", "flash_attention_2"]
TrainOn = Literal["assistant", "all"]
Overlong = Literal["truncate", "drop", "error"]
Accelerate = Literal["auto", "off"]


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A section of the config."""


class Job(Section, frozen=True, kw_only=True):
    type: str
    method: str | None = None
    project: str | None = None


class Model(Section, frozen=True, kw_only=True):
    base: str | None
    adapter_base: str | None = None  # a default, as recipes that people copied earlier do not have it
    dtype: DType
    attention: Attention


class Data(Section, frozen=True, kw_only=True):
    train_file: str | None
    validation_file: str | None
    test_file: str | None
    max_length: Positive
    overlong: Overlong
    train_on: TrainOn
    chat_template: str | None


class Lora(Section, frozen=True, kw_only=True):
    r: Positive
    lora_alpha: Positive
    lora_dropout: Share
    target_modules: tuple[str, ...]
    merge: bool


class Training(Section, frozen=True, kw_only=True):
    num_train_epochs: Annotated[float, msgspec.Meta(gt=0)]
    max_steps: Positive | None
    per_device_train_batch_size: Positive
    gradient_accumulation_steps: Positive
    learning_rate: Annotated[float, msgspec.Meta(gt=0)]
    lr_scheduler_type: str
    warmup_steps: Annotated[float, msgspec.Meta(ge=0)]
    weight_decay: float
    max_grad_norm: float
    optim: str
    gradient_checkpointing: bool
    group_by_length: bool
    logging_steps: Positive
    preflight: bool
    accelerate: Accelerate = "auto"  # the one default here: recipes that people copied earlier do not have it
    seed: int


class Evaluation(Section, frozen=True, kw_only=True):
    strategy: Literal["never", "steps", "epoch"]
    steps: Positive
    holdout_share: Share
    per_device_eval_batch_size: Positive
    early_stopping_patience: Positive | None


class Checkpoint(Section, frozen=True, kw_only=True):
    save_steps: Positive
    save_total_limit: Positive | None


class Wandb(Section, frozen=True, kw_only=True):
    """A run of Weights & Biases, in its own words; nothing is sent where ``project`` is null."""

    project: str | None = None
    name: str | None = None
    entity: str | None = None
    tags: tuple[str, ...] = ()


class Reporting(Section, frozen=True, kw_only=True):
    wandb: Wandb = Wandb()


class TrainConfig(Section, frozen=True, kw_only=True):
    """What ``sft`` and ``lora`` read; ``lora`` is None in the former."""

    job: Job
    model: Model
    data: Data
    training: Training
    evaluation: Evaluation
    checkpoint: Checkpoint
    lora: Lora | None = None
    reporting: Reporting = Reporting()  # recipes that people copied earlier do not have it

    @property
    def base(self) -> str:
        return _given(self.model.base, "model.base", "name a folder or a hub id")

    @property
    def train_file(self) -> Path:
        return Path(_given(self.data.train_file, "data.train_file", "name a JSON Lines file"))


class EvaluateData(Section, frozen=True, kw_only=True):
    train_file: str | None
    max_length: Positive
    chat_template: str | None


class Judge(Section, frozen=True, kw_only=True):
    """Who grades answers: a model reference that was resolved, or an OpenAI-shaped address; nobody where both are null."""

    model: str | None = None
    url: str | None = None
    url_model: str | None = None
    key_variable: str | None = None
    prompt: str | None = None
    concurrency: Annotated[int, msgspec.Meta(ge=1, le=64)] = 4
    timeout_seconds: Annotated[float, msgspec.Meta(ge=1, le=600)] = 60
    reply_tokens: Positive = 256


class Scoring(Section, frozen=True, kw_only=True):
    metrics: tuple[str, ...]
    batch_size: Positive
    max_new_tokens: Positive
    limit: Positive | None
    # Defaults, because recipes that people copied earlier do not have these.
    compare: tuple[str, ...] = ()
    judge: Judge = Judge()


class EvaluateConfig(Section, frozen=True, kw_only=True):
    """What ``evaluate`` reads. ``model.base`` is the model to score and ``data.train_file`` the rows to score it on."""

    job: Job
    model: Model
    data: EvaluateData
    evaluation: Scoring

    @property
    def base(self) -> str:
        return _given(self.model.base, "model.base", "name a folder or a hub id")

    @property
    def data_file(self) -> Path:
        return Path(_given(self.data.train_file, "data.train_file", "name a JSON Lines file"))


class ExportModel(Section, frozen=True, kw_only=True):
    base: str | None


class MergeModel(ExportModel, frozen=True, kw_only=True):
    dtype: DType


class Merging(Section, frozen=True, kw_only=True):
    tolerance: Tolerance


class MergeConfig(Section, frozen=True, kw_only=True):
    """What ``merge`` reads. ``model.base`` is the adapter."""

    job: Job
    model: MergeModel
    export: Merging

    @property
    def base(self) -> str:
        return _given(self.model.base, "model.base", "name the folder of an adapter")


class OnnxExport(Section, frozen=True, kw_only=True):
    opset: Annotated[int, msgspec.Meta(ge=11, le=25)] | None
    tolerance: Tolerance
    single_file: bool


class OnnxConfig(Section, frozen=True, kw_only=True):
    """What ``export-onnx`` reads. ``model.base`` is the model to export."""

    job: Job
    model: ExportModel
    export: OnnxExport

    @property
    def base(self) -> str:
        return _given(self.model.base, "model.base", "name a folder or a hub id")


class ServedModel(Section, frozen=True, kw_only=True):
    base: str | None = None
    url: str | None
    url_model: str | None


class RowsFile(Section, frozen=True, kw_only=True):
    train_file: str | None


class Asking(Section, frozen=True, kw_only=True):
    max_new_tokens: Positive
    limit: Positive | None
    batch_size: Annotated[int, msgspec.Meta(ge=1, le=64)]
    timeout_seconds: Annotated[float, msgspec.Meta(ge=1, le=86_400)]


class EvalscopeConfig(Section, frozen=True, kw_only=True):
    """What ``evaluate_evalscope`` reads: a model that is served somewhere, and the rows to score it on."""

    job: Job
    model: ServedModel
    data: RowsFile
    evaluation: Asking

    @property
    def address(self) -> tuple[str, str]:
        """The address, and what the model is called there."""
        url = _given(self.model.url, "model.url", "name an address such as http://127.0.0.1:20001/v1")
        return url, _given(self.model.url_model, "model.url_model", "name one that the address lists under /models")

    @property
    def data_file(self) -> Path:
        return Path(_given(self.data.train_file, "data.train_file", "name a JSON Lines file"))


class AnsweredBy(Section, frozen=True, kw_only=True):
    model: str
    label: str
    answers: str


class Answered(Section, frozen=True, kw_only=True):
    metrics: tuple[str, ...]
    limit: Positive | None = None
    models: tuple[AnsweredBy, ...] = ()


class AnswersConfig(Section, frozen=True, kw_only=True):
    """What ``answers`` reads: rows, and files with what models made of them. The first model is compared with the others."""

    data: RowsFile
    evaluation: Answered

    @property
    def base(self) -> str:
        models = self.evaluation.models
        return _given(models[0].model if models else None, "evaluation.models", "name a model with its answers")

    @property
    def data_file(self) -> Path:
        return Path(_given(self.data.train_file, "data.train_file", "name a JSON Lines file"))


class Folders(msgspec.Struct, frozen=True, kw_only=True):
    """Where a run writes. Started by hand, it writes beside its config."""

    run: Path
    output: Path
    resume_from: Path | None

    @property
    def checkpoints(self) -> Path:
        return self.run / "checkpoints"


AnyConfig = TypeVar("AnyConfig", TrainConfig, EvaluateConfig, EvalscopeConfig, AnswersConfig, MergeConfig, OnnxConfig)


def read_arguments(kind: type[AnyConfig]) -> tuple[AnyConfig, Folders]:
    """Read ``CONFIG [RECIPE]`` from the command line.

    Raises:
        BadConfig: naming the key.
    """
    if len(sys.argv) not in (2, 3):
        raise BadConfig("expects the path of a config.yaml", where="command line", mend="bash run.sh config.yaml")
    config = Path(sys.argv[1])
    return read_config(kind, config, Path(sys.argv[2]) if len(sys.argv) == 3 else None), folders_of(config)


def read_config(kind: type[AnyConfig], path: Path, recipe: Path | None = None) -> AnyConfig:
    """Read a config, with a recipe's defaults below it.

    Raises:
        BadConfig: naming the key.
    """
    defaults = _mapping(recipe).get("config", {}) if recipe else {}
    return as_config(kind, _merged(defaults, _mapping(path)), str(path))


def as_config(kind: type[AnyConfig], content: dict[str, Any], source: str) -> AnyConfig:
    """A config from plain values, with every option in it.

    Raises:
        BadConfig: naming the key.
    """
    try:
        # Not strict: a number in quotes is a number all the same.
        return msgspec.convert(content, kind, strict=False)
    except msgspec.ValidationError as error:
        text, _, key = str(error).partition(" - at `$.")
        raise BadConfig(text, where=f"{source}: {key.rstrip('`')}" if key else source, mend="see the recipe") from None


def folders_of(config: Path) -> Folders:
    run = Path(os.environ.get(RUN_DIR) or config.absolute().parent)
    resume_from = os.environ.get(RESUME_FROM)
    return Folders(
        run=run,
        output=Path(os.environ.get(OUTPUT_DIR) or run / "output"),
        resume_from=Path(resume_from) if resume_from else None,
    )


def _given(value: str | None, where: str, mend: str) -> str:
    if not value:
        raise BadConfig("must be given", where=where, mend=mend)
    return value


def _mapping(path: Path) -> dict[str, Any]:
    try:
        content = config_files.load(path.read_bytes(), max_bytes=_LARGEST)
    except OSError as error:
        raise BadConfig(f"cannot be read: {error.strerror}", where=str(path), mend="check the path") from error
    except ConfigFault as fault:
        where = f"{path}:{fault.line}" if fault.line is not None else str(path)
        raise BadConfig(fault.message, where=where, mend=fault.mend) from fault
    if not isinstance(content, dict):
        raise BadConfig("must be a mapping of sections", where=str(path), mend="see the recipe's config")
    return content


def _merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        held = merged.get(key)
        merged[key] = _merged(held, value) if isinstance(held, dict) and isinstance(value, dict) else value
    return merged
