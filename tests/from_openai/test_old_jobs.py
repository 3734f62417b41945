"""What an old job becomes, from what OpenAI tells of it. No SDK, no server."""

from __future__ import annotations

import pytest

from tunesmith.errors import InvalidInput, TunesmithError
from tunesmith.from_openai.old_jobs import method_of, read_job, recipe_of, request_for, train_config_for
from tunesmith.from_openai.sdk import checked_host, openai_key

FILES = {"train.jsonl": "file-1", "validation.jsonl": "file-2"}
LORA = {
    "name": "lora",
    "config": {"training": {"num_train_epochs": 3.0, "per_device_train_batch_size": 8, "seed": 42}},
}


def job(**more):
    told = {"id": "ftjob-1", "object": "fine_tuning.job", "model": "gpt-4o-mini", "training_file": "file-old"}
    return read_job(told | more)


def test_a_job_that_only_has_the_old_form_is_supervised():
    """Jobs of before there were methods."""
    old = job(hyperparameters={"n_epochs": 4, "batch_size": None, "learning_rate_multiplier": "auto"})
    assert method_of(old, auto=False) == {
        "type": "supervised",
        "supervised": {"hyperparameters": {"n_epochs": 4, "learning_rate_multiplier": "auto"}},
    }
    assert recipe_of(old) == "lora"


def test_everything_of_a_method_is_kept():
    """With --auto the numbers are left to the rule here, and the rest stays."""
    dpo = job(method={"type": "dpo", "dpo": {"hyperparameters": {"beta": 0.2, "n_epochs": 2}}, "supervised": None})
    assert method_of(dpo, auto=False)["dpo"] == {"hyperparameters": {"beta": 0.2, "n_epochs": 2}}
    assert method_of(dpo, auto=True)["dpo"]["hyperparameters"] == {
        "beta": 0.2,
        **dict.fromkeys(("n_epochs", "batch_size", "learning_rate_multiplier"), "auto"),
    }
    grader = {"type": "string_check", "name": "exact"}
    graded = job(method={"type": "reinforcement", "reinforcement": {"grader": grader, "hyperparameters": None}})
    assert method_of(graded, auto=False)["reinforcement"] == {"grader": grader, "hyperparameters": {}}
    assert recipe_of(job(method={"type": "telepathy"})) is None


@pytest.mark.parametrize(
    ("told", "suffix"),
    [
        ({"user_provided_suffix": "My Orders"}, "My Orders"),
        ({"fine_tuned_model": "ft:gpt-4o-mini-2024-07-18:acme:orders:9abc"}, "orders"),
        ({"fine_tuned_model": "ft:gpt-4o-mini-2024-07-18:acme::9abc"}, ""),
        ({"fine_tuned_model": "davinci:ft-acme-2023"}, ""),
        ({"fine_tuned_model": None}, ""),
    ],
)
def test_a_suffix_is_found(told, suffix):
    """Where OpenAI says it, else in the model's name; the dataset is called after it, and never like another job's."""
    old = job(**told)
    assert old.suffix == suffix
    assert old.dataset_name.endswith("ftjob-1")
    assert " " not in old.dataset_name


def test_a_request_has_all_that_the_job_had():
    """And says where it came from, unless its metadata is full."""
    request = request_for(
        job(seed=7, user_provided_suffix="x", metadata={"a": "b"}), model="m", files=FILES, auto=False
    )
    assert request | {"seed": 7, "suffix": "x", "model": "m"} == request
    assert request["metadata"] == {"a": "b", "imported_from": "ftjob-1"}
    assert (request["training_file"], request["validation_file"]) == ("file-1", "file-2")
    full = {str(number): "" for number in range(16)}
    request = request_for(job(metadata=full), model="m", files={"train.jsonl": "file-1"}, auto=False)
    assert request["metadata"] == full
    assert "ftjob-1" in request["notes"]
    assert {"suffix", "seed", "validation_file"}.isdisjoint(request)


def test_a_train_config_has_the_numbers_of_the_job():
    """Those that have a rule are left out where the job has "auto", and so is what the recipe has no option for."""
    numbers = {"n_epochs": 2, "batch_size": 12, "learning_rate_multiplier": 1.5}
    old = job(seed=2**32 + 1, hyperparameters=numbers)
    config = train_config_for(old, LORA, auto=False)
    assert config == {
        "job": {"type": "lora"},
        "training": {"num_train_epochs": 2, "per_device_train_batch_size": 6, "seed": 1},
    }
    assert train_config_for(old, LORA, auto=True)["training"] == {"seed": 1}
    assert train_config_for(job(hyperparameters={"n_epochs": "many"}), LORA, auto=False)["training"] == {}


def test_what_is_no_job_is_refused():
    """An answer of another shape is an error that says so, not a crash."""
    with pytest.raises(TunesmithError, match="is none"):
        read_job({"id": 7})
    with pytest.raises(TunesmithError, match="is none"):
        read_job(None)


def test_a_key_is_read_and_never_shown(tmp_path):
    """A line end around it is no part of it; anything else that no key has is refused without its text."""
    file = tmp_path / "key"
    file.write_text("sk-secret\n")
    assert openai_key(file) == "sk-secret"
    file.write_text("sk-secret and more")
    with pytest.raises(InvalidInput) as refused:
        openai_key(file)
    assert "secret" not in str(refused.value)
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(InvalidInput, match="cannot be read"):
        openai_key(file)
    with pytest.raises(InvalidInput, match="cannot be read"):
        openai_key(tmp_path)


@pytest.mark.parametrize("address", ["api.openai.com", "ftp://x", "http://", "http://[", "http://x:99999"])
def test_an_address_that_is_none_is_refused(address):
    """Before anything is sent."""
    with pytest.raises(InvalidInput, match="is not an address"):
        checked_host(address)
