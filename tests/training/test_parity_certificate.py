"""Every servable folder that a training writes says what its model says itself, so that an engine can be held to it."""

from __future__ import annotations

import hashlib

import msgspec
import pytest
import torch
from training_parts import COLOURS, Told, config_and_folders, manifest_of, run_recipe

from support.tiny_model import CHATML, save_tiny_model
from tunesmith.contract.manifest import Origin
from tunesmith.contract.parity import PARITY, decode_certificate
from tunesmith_workers.models.loading import load_tokenizer
from tunesmith_workers.models.structure import attention_of, set_attention
from tunesmith_workers.objectives.token_cross_entropy import TokenCrossEntropy
from tunesmith_workers.process.stopping import StopRequest
from tunesmith_workers.programs.training import Started, run
from tunesmith_workers.rollout.parity import certify
from tunesmith_workers.weights.full import FullWeights
from tunesmith_workers.weights.inference import load_for_inference
from tunesmith_workers.weights.lora import LoraWeights

pytestmark = [pytest.mark.training, pytest.mark.filterwarnings("default")]  # of libraries, in this process
ORIGIN = Origin(template_sha256="t", tokenizer_sha256="k")


@pytest.fixture
def trained(write_config, write_rows):
    """Train in this process: the folder that was written."""

    def train(weights, recipe="lora", **sections):
        training = {"max_steps": 30, "accelerate": "off"} | sections.pop("training", {})
        path = write_config(write_rows(COLOURS), training=training, **sections)
        config, folders = config_and_folders(path, recipe)
        run(weights, TokenCrossEntropy(), Started(config, folders, StopRequest()))
        return folders.output

    return train


def certificate_in(folder):
    return decode_certificate((folder / PARITY).read_bytes())


def generated(folder, prompt):
    """What the folder's model says, loaded anew in float32."""
    model = load_for_inference(str(folder), "float32", "auto")
    ids = torch.tensor([prompt])
    found = model.generate(
        input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=16, do_sample=False, pad_token_id=0
    )
    return found[0, len(prompt) :].tolist()


@pytest.mark.parametrize(
    ("weights", "recipe", "sections"),
    [
        (LoraWeights, "lora", {}),
        (LoraWeights, "lora", {"lora": {"merge": True}}),
        (FullWeights, "sft", {}),
    ],
)
def test_the_certificate_is_what_the_saved_folder_says(trained, weights, recipe, sections):
    """Adapter, merged adapter and whole model: prompts by its own tokenizer, answers of its own weights."""
    folder = trained(weights(), recipe, model={"dtype": "float32"}, **sections)
    found, manifest = certificate_in(folder), manifest_of(folder)
    assert PARITY in {file["path"] for file in manifest["files"]}
    assert found.template_sha256 == hashlib.sha256(CHATML.encode()).hexdigest() == manifest["origin"]["template_sha256"]
    assert found.tokenizer_sha256 == manifest["origin"]["tokenizer_sha256"]
    assert (found.dtype, len(found.conversations)) == ("float32", 3)
    tokenizer = load_tokenizer(str(folder))
    for one in found.conversations:
        messages = [{"role": message.role, "content": message.content} for message in one.messages]
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        assert list(one.prompt) == tokenizer(text, add_special_tokens=False)["input_ids"]
        said = [said.token for said in one.answer]
        assert said == generated(folder, one.prompt)[: len(said)]
        assert all(said.lead >= 0 and (bool(said.rivals) == (said.lead < 0.75)) for said in one.answer)
    assert any(one.answer for one in found.conversations)


def test_a_training_with_all_that_makes_it_fast_writes_one(write_config, write_rows):
    """Packed batches, prepacked weights and forked workers are no part of what the model says."""
    config = write_config(write_rows(COLOURS), training={"max_steps": 20, "accelerate": "auto"})
    code, told = run_recipe("lora", config)
    assert code == 0, told.text
    assert "parity certificate: 3 conversations" in told.text
    found = certificate_in(config.parent / "output")
    assert [one.name for one in found.conversations] == ["English", "Chinese", "with a system message"]


@pytest.fixture
def folder(tmp_path, tokenizer):
    return save_tiny_model(tmp_path / "model", tokenizer)


@pytest.fixture
def model(folder):
    return load_for_inference(str(folder), "float32", "auto")


@pytest.mark.parametrize(
    ("template", "words"),
    [
        (None, "no chat template"),
        ("{{ strftime_now('%d %b %Y') }}" + CHATML, "writes the date"),
        ("{{ raise_exception('never') }}", "refuses every conversation"),
    ],
)
def test_where_there_can_be_none_it_is_told(folder, model, capfdbinary, template, words):
    """A warning, no file, and the training is not harmed."""
    tokenizer = load_tokenizer(str(folder))
    tokenizer.chat_template = template
    certify(folder, model, tokenizer, ORIGIN)
    assert not (folder / PARITY).exists()
    [message] = Told(capfdbinary.readouterr().out).of("message")
    assert message["level"] == "warning"
    assert words in message["text"]


def test_a_conversation_that_the_template_refuses_is_left_out(folder, model):
    tokenizer = load_tokenizer(str(folder))
    tokenizer.chat_template = (
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system messages') }}{% endif %}" + CHATML
    )
    certify(folder, model, tokenizer, ORIGIN)
    assert [one.name for one in certificate_in(folder).conversations] == ["English", "Chinese"]


def test_a_model_that_breaks_is_saved_without_one(folder, model, tokenizer, capfdbinary):
    """What an earlier attempt wrote goes as well."""
    certify(folder, model, tokenizer, ORIGIN)
    assert (folder / PARITY).exists()
    model.lm_head.weight.data[:] = float("nan")
    certify(folder, model, tokenizer, ORIGIN)
    assert all(one.answer == () for one in certificate_in(folder).conversations), "nothing is decided by NaN"
    model.model.layers[0].self_attn.q_proj = torch.nn.Linear(3, 5)
    certify(folder, model, tokenizer, ORIGIN)
    assert not (folder / PARITY).exists()
    assert "no parity certificate" in capfdbinary.readouterr().out.decode()


def test_the_model_is_left_as_it_was(folder, model, tokenizer):
    set_attention(model, "eager")
    model.train()
    random = torch.get_rng_state()
    certify(folder, model, tokenizer, ORIGIN)
    assert (attention_of(model), model.training) == ("eager", True)
    assert torch.equal(torch.get_rng_state(), random)


def test_it_is_json_that_a_person_can_read(folder, model, tokenizer):
    certify(folder, model, tokenizer, ORIGIN)
    content = msgspec.json.decode((folder / PARITY).read_bytes())
    assert content["conversations"][0]["messages"] == [{"role": "user", "content": "What is the capital of France?"}]


def test_of_two_tokens_that_are_equally_likely_the_other_is_a_rival(folder, model, tokenizer):
    """In bfloat16 that happens: the answer goes on with the one that was taken."""
    half = len(tokenizer) // 2
    with torch.no_grad():
        embeddings = model.get_input_embeddings().weight
        embeddings[half : 2 * half] = embeddings[:half].clone()  # each token has a twin
    certify(folder, model, tokenizer, ORIGIN)
    [first, *_] = certificate_in(folder).conversations
    assert len(first.answer) > 1
    for said in first.answer:
        assert said.lead < 1e-3
        assert half in {abs(rival.token - said.token) for rival in said.rivals if rival.behind < 1e-3}
