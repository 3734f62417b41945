"""Training goes on from an adapter: it begins at the loss where that one was, and what is written belongs to the same base."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import msgspec
import pytest
import safetensors.torch
import torch
import transformers
from adapter_parts import make_adapter
from peft import LoraConfig, PeftModel, get_peft_model
from training_parts import COLOURS, Told, chat, config_and_folders, manifest_of, run_recipe

from tunesmith_workers.export.merging import merge_adapter
from tunesmith_workers.objectives.token_cross_entropy import TokenCrossEntropy
from tunesmith_workers.process.faults import BadConfig, ModelUnavailable
from tunesmith_workers.process.stopping import StopRequest
from tunesmith_workers.programs.training import Started, run
from tunesmith_workers.weights.full import FullWeights
from tunesmith_workers.weights.inference import load_for_inference
from tunesmith_workers.weights.lora import LoraWeights

pytestmark = [
    pytest.mark.training,
    # What the libraries say to each other in a training is quieted in a worker, and no promise of ours.
    pytest.mark.filterwarnings("default"),
]
METHODS = {"lora": LoraWeights, "sft": FullWeights}
EXACT = {"dtype": "float32"}
HARDLY = {"learning_rate": 1e-12, "max_steps": 1}
"""A training that changes nothing: what it measures is the model that it started from."""


@pytest.fixture
def train_here(write_rows, write_config, capfdbinary):
    """Train in this process; what was told and the run's folder are returned."""

    def train_here(base=None, recipe="lora", rows=COLOURS, resume_from=None, **sections):
        model = {**EXACT, **({"base": str(base)} if base else {})}
        path = write_config(write_rows(rows), model=model, **sections)
        config, folders = config_and_folders(path, recipe)
        folders = msgspec.structs.replace(folders, resume_from=resume_from)
        run(METHODS[recipe](), TokenCrossEntropy(), Started(config, folders, StopRequest()))
        return Told(capfdbinary.readouterr().out), path.parent

    return train_here


@pytest.fixture
def tested(write_rows):
    """Sections that have the finished model scored on the rows it was trained on."""
    return {"data": {"test_file": str(write_rows(COLOURS[:8], "test.jsonl"))}}


@pytest.fixture
def tuned(train_here, tested, tmp_path):
    """An adapter of a shape of its own, and its loss on the test rows."""
    shape = {"r": 4, "lora_alpha": 12, "target_modules": ["q_proj", "down_proj"]}
    told, folder = train_here(lora=shape, training={"learning_rate": 0.05, "max_steps": 20}, **tested)
    return (folder / "output").rename(tmp_path / "tuned"), loss_on_test_rows(told)


def loss_on_test_rows(told: Told) -> float:
    return next(fields["test_loss"] for fields in told.of("metrics") if "test_loss" in fields)


def adapter_config(folder: Path) -> dict[str, object]:
    return json.loads((folder / "adapter_config.json").read_text())


@pytest.mark.parametrize("recipe", ["lora", "sft"])
@pytest.mark.parametrize("accelerate", ["auto", "off"])
def test_it_begins_where_the_adapter_was(train_here, tuned, tested, recipe, accelerate):
    """Before anything is learned, the loss is that of the tuned model, not that of its base."""
    adapter, loss = tuned
    untuned, _ = train_here(recipe=recipe, training=HARDLY, **tested)
    told, _ = train_here(adapter, recipe, training={**HARDLY, "accelerate": accelerate}, **tested)
    assert loss_on_test_rows(told) == pytest.approx(loss, abs=1e-4)
    assert loss_on_test_rows(untuned) > loss + 0.3
    assert told.said(f"training goes on from the adapter {adapter}")


@pytest.mark.parametrize("recipe", ["lora", "sft"])
def test_the_fast_way_trains_the_same_numbers(train_here, tuned, recipe, two_threads):
    """Packed batches, in parts where the recipe has them, against the plain path."""
    adapter, _ = tuned
    options = {"max_steps": 8, "learning_rate": 0.0005}
    plain, _ = train_here(adapter, recipe, training={**options, "accelerate": "off"})
    fast, _ = train_here(adapter, recipe, training={**options, "accelerate": "auto"})
    assert fast.said("packed batches")
    assert fast.losses == pytest.approx(plain.losses, abs=1e-4)


@pytest.fixture
def two_threads():
    """Forked workers have a thread each."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_what_is_written_is_one_adapter_for_the_same_base(train_here, tuned, tiny_model, tokenizer, tested):
    """With the shape of the one it went on from; peft loads it, it is served and merged, and it has its certificate."""
    adapter, loss = tuned
    told, folder = train_here(adapter, training={"max_steps": 12, "learning_rate": 0.003}, **tested)
    output, checkpoint = folder / "output", folder / "checkpoints" / "checkpoint-12"
    assert loss_on_test_rows(told) < loss
    for written in (output, checkpoint):
        config = adapter_config(written)
        assert config["base_model_name_or_path"] == str(tiny_model)
        assert (config["r"], config["lora_alpha"]) == (4, 12)
        assert sorted(config["target_modules"]) == ["down_proj", "q_proj"]
    warned = next(fields for fields in told.of("message") if fields.get("where") == "lora")
    assert warned["level"] == "warning"
    assert "r 4, not 16; lora_alpha 12, not 32" in warned["text"]

    ids = torch.tensor([tokenizer("the colour of grass?")["input_ids"]])
    served = load_for_inference(str(output), "float32", "auto")(input_ids=ids).logits
    plain = PeftModel.from_pretrained(transformers.AutoModelForCausalLM.from_pretrained(tiny_model), output)
    torch.testing.assert_close(plain.eval()(input_ids=ids).logits, served, atol=1e-4, rtol=1e-4)
    assert merge_adapter(str(output), str(tiny_model), ids.tolist(), 1e-3).max_abs_diff < 1e-3
    assert (output / "parity.json").is_file()
    manifest = manifest_of(output)
    assert manifest["kind"] == "adapter"
    assert manifest["origin"]["base_model"] == str(adapter)
    assert len(manifest["origin"]["adapter_sha256"]) == 64


def test_a_checkpoint_is_gone_on_from_as_an_output_is(train_here, tested, tiny_model, tmp_path):
    """It has no generation config of its own: where to stop is its base's."""
    told, folder = train_here(checkpoint={"save_steps": 12}, **tested)
    checkpoint = (folder / "checkpoints" / "checkpoint-12").rename(tmp_path / "checkpoint")
    again, folder = train_here(checkpoint, training=HARDLY, **tested)
    assert loss_on_test_rows(again) == pytest.approx(loss_on_test_rows(told), abs=1e-4)
    assert adapter_config(folder / "output")["base_model_name_or_path"] == str(tiny_model)
    assert (folder / "output" / "generation_config.json").is_file()


def test_sft_writes_a_whole_model(train_here, tuned, tested):
    """The adapter is added into the weights, and all of them are trained."""
    adapter, loss = tuned
    told, folder = train_here(adapter, "sft", training={"max_steps": 12, "learning_rate": 0.001}, **tested)
    assert loss_on_test_rows(told) < loss
    assert told.said("(100.00%)")
    assert not (folder / "output" / "adapter_config.json").exists()
    assert manifest_of(folder / "output")["kind"] == "model"
    transformers.AutoModelForCausalLM.from_pretrained(folder / "output")


def test_merged_at_the_end_it_is_a_whole_model(train_here, tuned, tested, tmp_path):
    """`lora.merge`, with both trainings in it."""
    adapter, loss = tuned
    _, folder = train_here(adapter, lora={"merge": True}, training=HARDLY)
    merged = (folder / "output").rename(tmp_path / "merged")
    told, _ = train_here(merged, training=HARDLY, **tested)
    assert loss_on_test_rows(told) == pytest.approx(loss, abs=1e-4)


@pytest.mark.parametrize("recipe", ["lora", "sft"])
def test_resuming_is_exact_and_only_from_the_same_adapter(train_here, tuned, recipe, tmp_path):
    """Losses after the checkpoint are those of the straight run; another adapter in the same place is refused."""
    adapter, _ = tuned
    rows = [chat(f"say {'very ' * (number % 5)}{number}", str(number * 7)) for number in range(26)]
    options = {
        "training": {"max_steps": 10, "learning_rate": 0.002},
        "checkpoint": {"save_steps": 4, "save_total_limit": None},
    }
    straight, folder = train_here(adapter, recipe, rows, **options)
    kept = (folder / "checkpoints" / "checkpoint-4").rename(tmp_path / "checkpoint-4")
    resumed, _ = train_here(adapter, recipe, rows, resume_from=kept, **options)
    assert resumed.losses == pytest.approx(straight.losses[4:], abs=1e-6)

    weights = adapter / "adapter_model.safetensors"
    other = {name: value + 1e-3 for name, value in safetensors.torch.load_file(weights).items()}
    safetensors.torch.save_file(other, weights, metadata={"format": "pt"})
    with pytest.raises(BadConfig, match="the adapter's sha256 was"):
        train_here(adapter, recipe, rows, resume_from=kept, **options)


def test_its_own_template_and_tokenizer_are_used(train_here, tuned):
    """Not those of the base."""
    adapter, _ = tuned
    template = adapter / "chat_template.jinja"
    template.write_text(template.read_text().replace("<|im_start|>", "<|im_start|>~"))
    told, folder = train_here(adapter, training=HARDLY)
    assert (folder / "output" / "chat_template.jinja").read_text() == template.read_text()
    assert told.losses


def test_ranks_of_layers_and_whole_modules_are_kept(train_here, tiny_model, tokenizer, tested, tmp_path):
    """An adapter of another program: a rank pattern, and an output layer of its own, which is trained as well."""
    torch.manual_seed(1)
    model = transformers.AutoModelForCausalLM.from_pretrained(tiny_model)
    shape = LoraConfig(
        task_type="CAUSAL_LM",
        r=4,
        rank_pattern={"q_proj": 2},
        target_modules=["q_proj", "v_proj"],
        modules_to_save=["lm_head"],
        init_lora_weights=False,
    )
    adapter = tmp_path / "foreign"
    get_peft_model(model, shape).save_pretrained(adapter)
    tokenizer.save_pretrained(adapter)
    start, _ = train_here(adapter, training=HARDLY, **tested)
    told, folder = train_here(adapter, **tested)
    assert loss_on_test_rows(told) < loss_on_test_rows(start)
    config = adapter_config(folder / "output")
    assert (config["rank_pattern"], config["modules_to_save"]) == ({"q_proj": 2}, ["lm_head"])
    before, after = (
        safetensors.torch.load_file(place / "adapter_model.safetensors") for place in (adapter, folder / "output")
    )
    assert {name: value.shape for name, value in before.items()} == {name: value.shape for name, value in after.items()}
    assert not any(torch.equal(value, after[name]) for name, value in before.items())


def test_through_run_sh_a_base_named_by_the_service_is_loaded(write_rows, write_config, tuned, tiny_model):
    """Whoever resolved the adapter may have found its base elsewhere than it says."""
    adapter, _ = tuned
    named = adapter_config(adapter)
    (adapter / "adapter_config.json").write_text(json.dumps({**named, "base_model_name_or_path": "org/somewhere"}))
    model = {"base": str(adapter), "adapter_base": str(tiny_model)}
    config = write_config(write_rows(COLOURS), model=model, training=HARDLY)
    code, told = run_recipe("lora", config)
    assert code == 0, told.text
    assert adapter_config(config.parent / "output")["base_model_name_or_path"] == str(tiny_model)


class TestRefused:
    """What cannot be gone on from is refused before rows are read, with its reason."""

    def test_another_kind_of_adapter(self, train_here, tuned):
        adapter, _ = tuned
        content = {**adapter_config(adapter), "peft_type": "IA3"}
        (adapter / "adapter_config.json").write_text(json.dumps(content))
        for recipe in METHODS:
            with pytest.raises(BadConfig, match="of the kind IA3"):
                train_here(adapter, recipe)

    def test_an_adapter_of_an_adapter(self, train_here, tuned, tokenizer, tmp_path, tiny_model):
        adapter, _ = tuned
        upper = make_adapter(tiny_model, tokenizer, tmp_path / "upper")
        content = {**adapter_config(upper), "base_model_name_or_path": str(adapter)}
        (upper / "adapter_config.json").write_text(json.dumps(content))
        with pytest.raises(BadConfig, match="is an adapter itself"):
            train_here(upper)

    def test_one_without_weights_or_with_those_of_a_whole_model(self, train_here, tuned, tiny_model):
        adapter, _ = tuned
        shutil.copy(tiny_model / "model.safetensors", adapter)
        with pytest.raises(BadConfig, match="an adapter and a whole model"):
            train_here(adapter)
        (adapter / "model.safetensors").unlink()
        (adapter / "adapter_model.safetensors").unlink()
        with pytest.raises(ModelUnavailable, match="no weights in safetensors"):
            train_here(adapter)

    @pytest.mark.parametrize("recipe", list(METHODS))
    def test_one_that_does_not_fit_its_base(self, train_here, tuned, recipe):
        adapter, _ = tuned
        weights = adapter / "adapter_model.safetensors"
        whole = safetensors.torch.load_file(weights)
        first = min(whole)
        for other in (
            {name: value for name, value in whole.items() if name != first},
            {**whole, first.replace("layers.0", "layers.7"): whole[first].clone()},
            {**whole, first: torch.zeros(3, 3)},
        ):
            safetensors.torch.save_file(other, weights, metadata={"format": "pt"})
            with pytest.raises(BadConfig, match="does not fit its base"):
                train_here(adapter, recipe)

    def test_a_base_for_what_is_no_adapter(self, train_here, tiny_model, write_rows, write_config):
        config, folders = config_and_folders(
            write_config(write_rows(COLOURS), model={"base": str(tiny_model), "adapter_base": str(tiny_model)})
        )
        with pytest.raises(BadConfig) as refused:
            run(LoraWeights(), TokenCrossEntropy(), Started(config, folders, StopRequest()))
        assert refused.value.where == "model.adapter_base"
