"""What the OpenAI-shaped door keeps with a run: labels of its own, beside everything that every run has. Pure."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

from tunesmith.records import Run
from tunesmith.references import fine_tuned_name

MODEL = "openai.model"
"""The base model as the request called it."""
SUFFIX = "openai.suffix"
JOB = "openai.job"
"""That the run came through this door."""
METADATA = "openai.metadata"
PAIRS = "openai.pairs"
"""Digests of the pairs of the metadata, by which jobs are found: short, because they are kept in memory of every run."""
METHOD = "openai.method"
"""The method with its hyperparameters as they were asked for, as JSON."""
RESOLVED = "openai.resolved"
"""The hyperparameters that "auto" has become, as JSON; there once the files were validated."""
INTEGRATIONS = "openai.integrations"
SEED = "openai.seed"
"""As given; the run's own is what a generator can be seeded with."""
TRAINING_FILE = "openai.training_file"
"""The id of the upload, as VALIDATION_FILE is."""
VALIDATION_FILE = "openai.validation_file"

_DIGEST = 12

decode = msgspec.json.Decoder().decode
_encoder = msgspec.json.Encoder()


def encode(value: Any) -> str:
    """The value of a label that is JSON."""
    return _encoder.encode(value).decode()


def is_job(run: Run) -> bool:
    """Whether the run came through this door."""
    return JOB in run.labels


def digest_of(key: str, value: str) -> str:
    """Of a pair of metadata."""
    return hashlib.sha256(f"{key}\0{value}".encode(errors="surrogatepass")).hexdigest()[:_DIGEST]


def name_of_model(run: Run, *, step: int | None = None) -> str:
    """What the model that the run makes is called here, or its checkpoint at a step."""
    base = run.labels.get(MODEL) or run.model or run.recipe
    return fine_tuned_name(base, run.labels.get(SUFFIX, ""), run.id, step=step)


def json_label(run: Run, label: str) -> Any:
    """The value of a label that is JSON; None without it."""
    return decode(run.labels[label]) if label in run.labels else None
