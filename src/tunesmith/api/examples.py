"""One example for every request body, as the page of /docs sends it. A test sends each of them.

They name what `tunesmith demo` leaves: its data below state/demo, and the model that it trains.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tunesmith.api.artifacts import NewTags
from tunesmith.api.data import ProcessRequest
from tunesmith.api.deid import DeidentifyRequest
from tunesmith.api.experiments import NewRun
from tunesmith.api.finetune import FinetuneBody
from tunesmith.api.keys import KeyRequest
from tunesmith.api.openai.batches import NewBatch
from tunesmith.api.openai.chat import CompletionRequest
from tunesmith.api.openai.graders import GraderCheck, GraderRun
from tunesmith.api.openai.uploads import CompleteRequest, UploadRequest
from tunesmith.api.previews import PreviewRequest
from tunesmith.api.projects import ProjectRunRequest
from tunesmith.checkpoints import MarkRequest
from tunesmith.datasets import DatasetRequest
from tunesmith.deployments import DeploymentRequest
from tunesmith.experiments import ExperimentRequest, ProjectChange, ProjectRequest
from tunesmith.inference import BatchRequest, ChatRequest
from tunesmith.openai.job_request import JobRequest
from tunesmith.runs import ResumeRequest
from tunesmith.tasks import EvaluateRequest, ExportRequest, TrainRequest

_MODEL = "SmolLM2-135M-Instruct"
_DATA = "state/demo/train.jsonl"

BODIES: Mapping[Any, dict[str, Any]] = {
    ExperimentRequest: {
        "name": "orders to JSON",
        "task_type": "lora",
        "goal": "every order becomes an object with six keys",
        "base_model": _MODEL,
        "owner": "ada",
        "tags": ["orders"],
    },
    NewRun: {
        "recipe": "lora",
        "model": _MODEL,
        "dataset": {"name": _DATA},
        "hyperparams": {"learning_rate": 0.001, "max_steps": 20},
        "notes": "a first try",
        "seed": 7,
    },
    ResumeRequest: {"override_hyperparams": {"max_steps": 40}, "notes": "twenty steps more"},
    MarkRequest: {
        "run_id": "run_01k9zkq8c5e2v7m4w3x6y8z0ab",
        "ckpt_path": "state/runs/run_01k9zkq8c5e2v7m4w3x6y8z0ab/checkpoints/checkpoint-20",
        "tag_type": "candidate_base",
        "release_tag": "orders-v1",
        "metrics": {"exact_match": 0.98},
    },
    ProjectRequest: {
        "name": "orders",
        "dataset_name": "train.jsonl",
        "training_yaml_name": "train.yaml",
        "description": "orders to JSON",
        "owner": "ada",
        "tags": ["orders"],
    },
    ProjectChange: {"description": "orders to JSON, second data set", "tags": ["orders", "second"]},
    ProjectRunRequest: {"hyperparams": {"learning_rate": 0.0005}, "notes": "half the learning rate"},
    NewTags: {"tags": ["keep"]},
    DatasetRequest: {
        "name": "orders",
        "task_type": "sft",
        "description": "one-line orders with their JSON",
        "metadata": {"license": "CC0-1.0", "language": "en"},
    },
    PreviewRequest: {"model": _MODEL, "recipe": "lora", "limit": 3},
    ProcessRequest: {
        "input_file": _DATA,
        "output_dir": "state/demo/split",
        "split_config": {"train_ratio": 0.8, "val_ratio": 0.1, "test_ratio": 0.1, "shuffle": True, "seed": 42},
        "overwrite": True,
    },
    DeidentifyRequest: {
        "text": ["Call Ada Lovelace at +1 212 555 0187.", "张伟的手机号是13800138000。"],
        "options": {"return_mapping": True, "seed": 7},
    },
    FinetuneBody: {
        "task_id": "task-1",
        "call_back_api": "http://127.0.0.1:9000/results",
        "input_content": {
            "customized_input": {
                "train_dataset_path": _DATA,
                "valid_dataset_path": "state/demo/validation.jsonl",
                "test_dataset_path": "state/demo/test.jsonl",
            }
        },
        "param_dict": {
            "finetune_mode": "lora",
            "config_param": {"model": _MODEL},
            "show_frequecy": 1,
            "measurement": "epoch",
            "total_epoch_number": 1,
            "batch_size": 4,
            "lr": 0.001,
        },
    },
    DeploymentRequest: {
        "model_path": _MODEL,
        "model_version": "2",
        "tags": ["orders"],
        "extra_args": "--max-num-seqs 8",
        "engine": "auto",
        "name": "orders",
    },
    ChatRequest: {
        "messages": [{"role": "user", "content": "What is the capital of France?"}],
        "max_tokens": 40,
        "temperature": 0.7,
        "top_p": 0.9,
        "model": _MODEL,
    },
    NewBatch: {
        "input_file_id": "file-01k9zkq8c5e2v7m4w3x6y8z0ab",
        "endpoint": "/v1/chat/completions",
        "completion_window": "24h",
        "metadata": {"kind": "nightly"},
    },
    BatchRequest: {"prompts": ["Name a colour.", "Name a fruit."], "max_tokens": 16, "model": _MODEL},
    UploadRequest: {
        "bytes": 2_147_483_648,
        "filename": "orders.jsonl",
        "mime_type": "text/jsonl",
        "purpose": "fine-tune",
    },
    CompleteRequest: {"part_ids": ["part_01k9zkq8c5e2v7m4w3x6y8z0ab", "part_01k9zkq8c5e2v7m4w3x6y8z0ac"]},
    CompletionRequest: {
        "model": _MODEL,
        "messages": [{"role": "user", "content": "What is the capital of France?"}],
        "max_tokens": 40,
        "temperature": 0,
    },
    TrainRequest: {
        "strategy": "lora",
        "dataset_path": _DATA,
        "output_dir": "models/orders",
        "config": {
            "model_path": _MODEL,
            "per_device_train_batch_size": 4,
            "learning_rate": 2e-4,
            "max_steps": 10,
            "lora_config": {"r": 8, "lora_alpha": 16, "target_modules": ["q_proj", "v_proj"], "lora_dropout": 0.05},
        },
    },
    EvaluateRequest: {
        "model_path": _MODEL,
        "dataset_path": "state/demo/test.jsonl",
        "metrics": ["loss", "perplexity", "accuracy"],
        "batch_size": 8,
    },
    ExportRequest: {
        "model_path": _MODEL,
        "output_path": "models/orders-onnx",
        "export_format": "onnx",
        "opset_version": 18,
    },
    JobRequest: {
        "model": _MODEL,
        "training_file": "file-01k9zkq8c5e2v7m4w3x6y8z0ab",
        "suffix": "orders",
        "seed": 7,
        "metadata": {"team": "orders"},
        "method": {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 2}}},
    },
    GraderRun: {
        "grader": {
            "type": "string_check",
            "name": "the same colour",
            "input": "{{ sample.output_json.colour }}",
            "reference": "{{ item.colour }}",
            "operation": "eq",
        },
        "model_sample": '{"colour": "green"}',
        "item": {"colour": "green"},
    },
    GraderCheck: {
        "grader": {
            "type": "text_similarity",
            "name": "nearly the same words",
            "input": "{{ sample.output_text }}",
            "reference": "{{ item.answer }}",
            "evaluation_metric": "rouge_l",
        }
    },
    KeyRequest: {"name": "laptop", "scope": "write"},
}
"""By the struct that a body becomes."""

PARAMETERS: Mapping[str, Any] = {"file_path": _DATA, "ref": _MODEL}
"""By the name of a query parameter that has to be given."""
