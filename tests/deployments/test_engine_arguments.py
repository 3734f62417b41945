"""What a request may tell an engine: tuning only, and the started program sees exactly the expected arguments."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.deployed import once
from tunesmith.deployments import EngineArguments
from tunesmith.deployments.arguments import ALLOWED
from tunesmith.errors import InvalidInput
from tunesmith.records import EngineKind

VLLM = EngineKind.VLLM
REFUSED = [
    *(
        "--host",
        "--port",
        "--model",
        "--served-model-name",
        "--trust-remote-code",
        "--allowed-origins",
        "--ssl-keyfile",
    ),
    *(
        "--ssl-certfile",
        "--root-path",
        "--middleware",
        "--api-key",
        "--uvicorn-log-level",
        "--load-format",
        "--download-dir",
    ),
    *(
        "--chat-template",
        "--tokenizer",
        "--lora-modules",
        "--enable-lora",
        "--config",
        "--plugin",
        "--tool-parser-plugin",
    ),
    *("--reasoning-parser-plugin", "--logits-processors", "--worker-cls", "--worker-extension-cls", "--hf-overrides"),
    *("--hf-token", "--speculative-config", "--kv-transfer-config", "--model-impl", "--generation-config"),
    *("--code-revision", "--adapter", "--compilation-config", "--override-generation-config", "--log-config-file"),
]


@pytest.mark.parametrize("engine", EngineKind)
@pytest.mark.parametrize("option", REFUSED)
def test_what_opens_the_machine_is_refused(engine, option):
    """However it is written: with =, with underscores, cut short, negated, in capitals, behind a word that is allowed."""
    forms = [option, f"{option}=x", option.replace("-", "_").replace("__", "--", 1), option[:6], f"--no-{option[2:]}"]
    forms += [option.upper(), option[1:], f"{option}.x=1", f"--seed 1 {option} x", f"--seed=1 {option}=x"]
    for form in forms:
        with pytest.raises(InvalidInput) as refused:
            EngineArguments().split(form, engine)
        assert refused.value.where == "extra_args"
        assert refused.value.faults


@pytest.mark.parametrize(
    "words",
    [
        *("8", "--", "-", "-tp 2", "-O3", "--max-model-len", "--max-model-len --seed 1", "--enforce-eager x"),
        *("--enforce-eager=1", "--seed 1 2", "org/other-model", "@file", "--seed '1\n'", "--seed 1\0", "--=1"),
        "--max-model-len 5 -- --port 1",
    ],
)
def test_what_is_no_option_is_refused(words):
    """A loose word would be the model to an engine that takes it from there."""
    with pytest.raises(InvalidInput):
        EngineArguments().split(words, VLLM)


def test_the_nearest_option_is_named():
    """And what else there is."""
    with pytest.raises(InvalidInput) as refused:
        EngineArguments().split("--max-modle-len 5 --port=1", VLLM)
    first, second = refused.value.faults
    assert "did you mean --max-model-len?" in (first.mend or "")
    assert "--port" in second.message


def test_what_tunes_the_engine_is_passed_on():
    """As dashes; values as they are, however odd."""
    split = EngineArguments().split
    assert split("--max_model_len 100 --seed=-1 --seed -1", VLLM) == (
        "--max-model-len",
        "100",
        "--seed=-1",
        "--seed",
        "-1",
    )
    assert split("--dtype 'a $(reboot) b'", VLLM) == ("--dtype", "a $(reboot) b")
    assert split(["--dtype", "`x` && y"], VLLM) == ("--dtype", "`x` && y")
    assert split("--no-enable-prefix-caching", VLLM) == ("--no-enable-prefix-caching",)
    assert split("", VLLM) == split([], VLLM) == ()
    assert split("--max-queue 8", EngineKind.TRANSFORMERS) == ("--max-queue", "8")


def test_an_operator_allows_more():
    """With a value or without, by the setting."""
    arguments = EngineArguments(["--rope-scaling=", "trust-remote-code"])
    assert arguments.split("--trust_remote_code --rope-scaling x", VLLM) == (
        "--trust-remote-code",
        "--rope-scaling",
        "x",
    )
    with pytest.raises(InvalidInput):
        arguments.split("--trust-remote-code yes", VLLM)


WORDS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=20)
OPTIONS = st.sampled_from([f"--{name}" for names in ALLOWED.values() for name in names] + REFUSED)


@given(st.lists(WORDS | OPTIONS, max_size=8))
def test_whatever_is_given_only_options_on_the_list_come_out(words):
    """From any words: an option that is allowed, at most one value after it, and nothing else."""
    try:
        checked = EngineArguments().split(words, VLLM)
    except InvalidInput as error:
        str(error).encode()
        return
    takes, expected = ALLOWED[VLLM], None
    for word in checked:
        if expected:
            expected = False
            continue
        name, equals, _ = word.removeprefix("--").partition("=")
        assert word.startswith("--")
        expected = takes[name] and not equals
    assert not expected


@given(st.lists(st.tuples(st.sampled_from([n for n, takes in ALLOWED[VLLM].items() if takes]), WORDS), max_size=5))
def test_a_text_and_a_list_come_to_the_same(pairs):
    """Quoted as for a shell, each value arrives as one word."""
    words = [word for name, value in pairs if value.isprintable() for word in (f"--{name}={value}",)]
    assert EngineArguments().split(shlex.join(words), VLLM) == tuple(words)


def test_a_started_program_gets_exactly_these(shared, shared_engines):
    """Through the journal, the shim and the process: no shell looks at any of it."""
    odd = [
        "--dtype",
        "$HOME `id` ; rm -rf / | * ? ~ 'x' \"y\" \\ 中文 %s {}",
        "--seed=-1",
        "--quantization",
        "a=b --port 1",
    ]
    made = shared.post("/deployments", json={"model_path": "small", "engine": "vllm", "extra_args": odd})
    found = once(shared, made.json()["deployment_id"], "running")
    assert shared_engines.argv(found["port"])[-len(odd) :] == odd
    assert shlex.split(found["vllm_cmd"])[-len(odd) :] == odd
    shared.delete(f"/deployments/{found['deployment_id']}")


@given(st.lists(st.tuples(st.sampled_from(["dtype", "seed", "quantization"]), WORDS), min_size=1, max_size=5))
def test_argparse_reads_what_was_meant(pairs):
    """The program's own parser takes each value for the value of its option, whatever is in it."""
    words = [f"--{name}={value}" for name, value in pairs if value.isprintable()]
    checked = EngineArguments().split(words, VLLM)
    parse = (
        "import argparse, json, sys\np = argparse.ArgumentParser()\np.add_argument('--port')\n"
        "for name in ('dtype', 'seed', 'quantization'): p.add_argument('--' + name, action='append', default=[])\n"
    )
    scope: dict = {}
    exec(parse, scope)  # the parser of the program below
    read = scope["p"].parse_args(list(checked))
    given_values = [(name, value) for name, value in pairs if value.isprintable()]
    assert read.port is None
    for name in ("dtype", "seed", "quantization"):
        assert getattr(read, name) == [value for one, value in given_values if one == name]


def test_the_program_itself_says_so():
    """A real process that prints its arguments."""
    checked = EngineArguments().split("--dtype '$(id)' --seed -1", VLLM)
    done = subprocess.run(
        [sys.executable, "-c", "import json, sys; print(json.dumps(sys.argv[1:]))", *checked],
        capture_output=True,
        check=True,
        timeout=60,
    )
    assert json.loads(done.stdout) == ["--dtype", "$(id)", "--seed", "-1"]


def test_the_built_in_engine_takes_what_it_may_be_given():
    """Every option that a request may give it is one of its own: none ends it when it starts."""
    command = [sys.executable, "-m", "tunesmith_workers.programs.serve", "--help"]
    page = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    assert [name for name in ALLOWED[EngineKind.TRANSFORMERS] if f"--{name} " not in page] == []
