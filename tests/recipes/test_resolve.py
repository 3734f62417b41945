"""Defaults <- train config <- request <- filled: any spelling, the same config; any mistakes, all of them at once."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith.errors import Fault, InvalidInput
from tunesmith.recipes import Recipe, read_recipe, recipe_name_from, resolve


def refused(recipe: Recipe, **layers: Any) -> list[Fault]:
    with pytest.raises(InvalidInput) as error:
        resolve(recipe, **{"filled": {}, **layers})
    return list(error.value.faults)


def test_later_layers_win(recipe: Recipe) -> None:
    """What the server fills in beats the request, which beats the train config, which beats the defaults."""
    config = resolve(
        recipe,
        train_config={"training": {"learning_rate": 0.1, "seed": 1, "bf16": False}, "model": {"base": "theirs"}},
        request={"learning_rate": 0.2, "training": {"seed": 2}},
        filled={"training.seed": 3, "model.base": "/models/base", "data.train_file": "/data/x.jsonl"},
    )
    assert config["training"] == {
        "learning_rate": 0.2,
        "per_device_train_batch_size": 8,
        "max_steps": None,
        "bf16": False,
        "scheduler": {"name": "cosine", "warmup": 0.1},
        "scheduler_kwargs": {},
        "seed": 3,
    }
    assert config["model"] == {"base": "/models/base", "dtype": "auto"}
    assert config["data"] == {"max_length": 1024, "shuffle": True, "train_file": "/data/x.jsonl"}
    assert config["job"] == {"type": "tiny", "method": None, "project": None}
    assert list(config) == ["job", "model", "data", "lora", "training", "evaluation"]


def test_a_resolved_config_shares_nothing_with_the_recipe(recipe: Recipe) -> None:
    """Changing one run's config cannot reach the next run's."""
    before = copy.deepcopy(recipe.config)
    first = resolve(recipe, filled={})
    first["lora"]["target_modules"].append("x")
    first["training"]["scheduler_kwargs"]["y"] = 1
    assert resolve(recipe, filled={})["lora"]["target_modules"] == ["all-linear"]
    assert recipe.config == before


def test_all_faults_of_all_layers_come_at_once(recipe: Recipe) -> None:
    """Each with its place, as the sender wrote it, and the mend."""
    faults = refused(
        recipe,
        train_config={
            "training": {"larning_rate": 0.1, "max_steps": 0},
            "lora": {"r": 8.0},
            "learning_rate": 1e-4,
            "trainng": {},
        },
        request={"learning_rte": 0.1, "model": {"dtyp": "auto"}, "lr": "1e-4", "seed": 1, "strategy": "step"},
    )
    assert [(fault.where, fault.message, fault.mend) for fault in faults] == [
        ("train_config.training.larning_rate", "no such option in recipe tiny", "did you mean training.learning_rate?"),
        ("train_config.training.max_steps", "must be at least 1, not 0", None),
        (
            "train_config.lora.r",
            "must be a whole number, not the number 8.0",
            "write it without a decimal point: 8",
        ),
        (
            "train_config.learning_rate",
            "no such section in recipe tiny",
            "a train config is nested by sections: write `learning_rate` below `training:`",
        ),
        ("train_config.trainng", "no such section in recipe tiny", "did you mean training?"),
        ("hyperparams.learning_rte", "no such option in recipe tiny", "did you mean training.learning_rate?"),
        ("hyperparams.model.dtyp", "no such option in recipe tiny", "did you mean model.dtype?"),
        ("hyperparams.lr", 'must be a number, not the text "1e-4"', "send a number, without quotes: 1e-4"),
        (
            "hyperparams.seed",
            "could be any of training.seed, evaluation.seed",
            "write the full name, such as training.seed",
        ),
        ("hyperparams.strategy", 'must be one of no, steps, epoch; not the text "step"', "did you mean steps?"),
    ]


@pytest.mark.parametrize(
    "written",
    [
        {"training": {"lr": 0.2, "batch_size": 2}},
        {"lr": 0.2, "batch_size": 2},
        {"lr": 0.2, "training": {"per_device_train_batch_size": 2, "lr": 0.2}},
    ],
    ids=["in their section", "at the top", "twice, the same"],
)
def test_aliases_hold_in_train_configs_and_in_requests(recipe: Recipe, written: dict[str, Any]) -> None:
    """In the section of what they stand for, or above all sections; the config is that of the full names."""
    expected = {"training": {"learning_rate": 0.2, "per_device_train_batch_size": 2}}
    expected = resolve(recipe, train_config=expected, filled={})
    assert resolve(recipe, train_config=written, filled={}) == expected
    assert resolve(recipe, request=written, filled={}) == expected


def test_an_alias_does_not_reach_into_another_section(recipe: Recipe) -> None:
    """`batch_size` below `evaluation` must not change the training's; two values for one option are refused, too."""
    (fault,) = refused(recipe, train_config={"evaluation": {"batch_size": 2}})
    assert (fault.where, fault.mend) == (
        "train_config.evaluation.batch_size",
        "did you mean training.per_device_train_batch_size?",
    )
    (fault,) = refused(recipe, train_config={"training": {"lr": 0.1, "learning_rate": 0.2}})
    assert fault.where == "train_config.training.learning_rate"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("bf16", 1),
        ("bf16", "true"),
        ("bf16", "no"),
        ("r", True),
        ("r", 3.0),
        ("r", "3"),
        ("r", None),
        ("r", 2**63),
        pytest.param("r", 10**5000, id="r-enormous"),
        ("max_steps", -5),
        ("max_steps", 1.5),
        ("dropout", "0.1"),
        ("dropout", False),
        ("dropout", float("nan")),
        ("dropout", float("inf")),
        ("dropout", 10**400),
        ("learning_rate", 1.5),
        ("learning_rate", -1),
        ("dtype", 5),
        ("dtype", "a\0b"),
        ("dtype", "\ud800"),
        ("dtype", ["auto"]),
        ("target_modules", "q_proj"),
        ("target_modules", ["q_proj", 1]),
        ("target_modules", {"q": 1}),
        ("scheduler_kwargs", []),
        ("scheduler_kwargs", {"a": [float("nan")]}),
        ("scheduler_kwargs", {"a\0": 1}),
        ("scheduler_kwargs", {"a": object()}),
        ("scheduler", "cosine"),
        ("scheduler", {"nme": "cosine"}),
        ("training", None),
        ("training", []),
    ],
)
def test_a_wrong_value_is_one_fault(recipe: Recipe, name: str, value: object) -> None:
    """Nothing is guessed: no text for a number, no number for a boolean, no fraction for a whole number."""
    faults = refused(recipe, request={name: value})
    assert len(faults) == 1
    assert faults[0].where.startswith(f"hyperparams.{name}")
    assert len(str(faults[0])) < 300


def test_a_value_nested_without_end_is_refused(recipe: Recipe) -> None:
    """Deep nesting is a fault, not a crash."""
    value: Any = 1
    for _ in range(500):
        value = {"x": value}
    (fault,) = refused(recipe, request={"scheduler_kwargs": value})
    assert "nested more than" in fault.message


@pytest.mark.parametrize(
    ("name", "value", "kept"),
    [
        ("learning_rate", 1, 1.0),
        ("max_steps", None, None),
        ("max_steps", 5, 5),
        ("scheduler_kwargs", {"任意": [1, None, {"x": 1.5}]}, {"任意": [1, None, {"x": 1.5}]}),
        ("target_modules", [], []),
        ("strategy", "no", "no"),
    ],
)
def test_a_right_value_is_kept_as_it_is(recipe: Recipe, name: str, value: object, kept: object) -> None:
    """Only a whole number for an option with decimals changes its type."""
    config = resolve(recipe, request={name: value}, filled={})
    found = next(section[name] for section in config.values() if name in section)
    assert found == kept
    assert type(found) is type(kept)


def test_two_spellings_of_a_option_must_agree(recipe: Recipe) -> None:
    """The same value twice is harmless; two values are a question that only the sender can answer."""
    same = {"lr": 0.5, "training.learning_rate": 0.5, "learning_rate": 0.5}
    assert resolve(recipe, request=same, filled={})["training"]["learning_rate"] == 0.5
    (fault,) = refused(recipe, request={"lr": 0.5, "training": {"learning_rate": 0.25}})
    assert fault.where == "hyperparams.training.learning_rate"
    assert "hyperparams.lr" in fault.message


def test_a_group_of_options_is_merged_and_a_free_mapping_is_replaced(recipe: Recipe) -> None:
    """A mapping with defaults has known keys, each an option; an empty one takes anything."""
    config = resolve(recipe, request={"scheduler": {"warmup": 0.2}, "training.scheduler.name": "linear"}, filled={})
    assert config["training"]["scheduler"] == {"name": "linear", "warmup": 0.2}


def test_an_emptied_section_of_a_train_config_is_fine(recipe: Recipe) -> None:
    """A section whose lines are all commented out reads as null."""
    assert resolve(recipe, train_config={"training": None}, filled={}) == resolve(recipe, filled={})


def test_a_section_that_is_no_mapping_is_refused(recipe: Recipe) -> None:
    """`lora: 8` says which option it is not."""
    (fault,) = refused(recipe, train_config={"lora": 8})
    assert str(fault) == "train_config.lora: must be a mapping, not the number 8 (its options go below lora)"


def test_a_option_that_must_be_given_is_asked_for(write_recipe) -> None:
    """A null default that is not optional is a question to whoever starts the run; a wrong answer is one fault, not two."""
    recipe = read_recipe(write_recipe("tiny", ("{type: int, min: 1}", "{type: int, optional: false}")))
    (fault,) = refused(recipe)
    assert (fault.where, fault.message) == ("training.max_steps", "must be given")
    assert len(refused(recipe, request={"max_steps": "x"})) == 1
    assert resolve(recipe, filled={"training.max_steps": 3})["training"]["max_steps"] == 3


def test_what_the_server_fills_in_need_not_be_a_option(recipe: Recipe) -> None:
    """It is added in its place, whatever the option's choices; but it must be something a file can hold."""
    config = resolve(
        recipe, filled={"data.eval_file": Path("/d"), "new.deep.option": 1, "evaluation.strategy": "other"}
    )
    assert config["data"]["eval_file"] == "/d"
    assert config["new"] == {"deep": {"option": 1}}
    assert config["evaluation"]["strategy"] == "other"
    (fault,) = refused(recipe, filled={"model.base": "\udcff"})
    assert fault.where == "model.base"


def test_the_faults_name_the_fields_of_the_door_that_asked(recipe: Recipe) -> None:
    """Resuming calls its overrides by another name."""
    (fault,) = refused(recipe, request={"x": 1}, places=("config.yaml", "override_hyperparams"))
    assert fault.where == "override_hyperparams.x"


def test_a_flood_of_faults_is_cut(recipe: Recipe) -> None:
    """A body full of nonsense gets the first hundred and their number."""
    faults = refused(recipe, request={f"learning_rate_{number}": 1 for number in range(5000)})
    assert len(faults) == 101
    assert str(faults[-1]) == "and 4900 more"


def test_the_job_of_a_train_config_must_agree_with_the_recipe(recipe: Recipe) -> None:
    """The train config chose the recipe; the resolved config keeps the recipe's own job type."""
    for job in ({"type": "tiny"}, {"type": "rl", "method": "tiny"}, {"project": "p"}):
        assert resolve(recipe, train_config={"job": job}, filled={})["job"]["type"] == "tiny"
    (fault,) = refused(recipe, train_config={"job": {"type": "sft"}})
    assert fault.where == "train_config.job.type"
    assert fault.message == "names the recipe sft, but the run uses tiny"


@pytest.mark.parametrize(
    ("train_config", "name"),
    [
        (None, None),
        ({}, None),
        ({"job": None}, None),
        ({"job": {"project": "p"}}, None),
        ({"job": {"type": "lora"}}, "lora"),
        ({"job": {"type": "my-own"}}, "my-own"),
        ({"job": {"type": "rl", "method": "dpo"}}, "dpo"),
        ({"job": {"type": "lora", "method": "dpo"}}, "lora"),
    ],
)
def test_a_train_config_names_its_recipe(train_config: dict[str, Any] | None, name: str | None) -> None:
    """`sft`, `lora`, `rl` with its method, or any recipe's name."""
    assert recipe_name_from(train_config) == name


@pytest.mark.parametrize(
    "job", ["lora", [], {"type": 5}, {"type": ""}, {"type": ["lora"]}, {"type": "rl"}, {"type": "rl", "method": 1}]
)
def test_a_job_that_makes_no_sense_is_refused(job: object) -> None:
    """Naming the place, instead of falling back to some recipe."""
    with pytest.raises(InvalidInput) as error:
        recipe_name_from({"job": job})
    assert error.value.where.startswith("train_config.job")


UNTIMED = settings(deadline=None)  # a busy machine is no failure

# A good value for each option, by dotted path.
GOOD: dict[str, Any] = {
    "model.dtype": "float32",
    "data.max_length": 7,
    "data.shuffle": False,
    "lora.r": 16,
    "lora.dropout": 0.5,
    "lora.target_modules": ["q_proj"],
    "training.learning_rate": 0.25,
    "training.per_device_train_batch_size": 2,
    "training.max_steps": 9,
    "training.scheduler.name": "linear",
    "training.scheduler_kwargs": {"a": 1},
    "training.seed": 5,
    "evaluation.seed": 6,
    "evaluation.strategy": "epoch",
}
SHORT = {"training.learning_rate": ["lr"], "training.per_device_train_batch_size": ["batch_size"]}


def spellings(path: str) -> list[Callable[[Any], dict[str, Any]]]:
    section, _, rest = path.partition(".")
    nested = [lambda value: {path: value}, lambda value: {section: {rest: value}}]
    nested += [lambda value, name=name: {f"{section}.{name}": value} for name in SHORT.get(path, [])]
    nested += [lambda value, name=name: {section: {name: value}} for name in SHORT.get(path, [])]
    leaf = path.rpartition(".")[2]
    bare = SHORT.get(path, []) + ([leaf] if leaf != "seed" else [])
    return nested + [lambda value, name=name: {name: value} for name in bare]


def merged(parts: list[dict[str, Any]]) -> dict[str, Any]:
    request: dict[str, Any] = {}
    for part in parts:
        for key, value in part.items():
            if isinstance(value, dict) and key in ("model", "data", "lora", "training", "evaluation"):
                request.setdefault(key, {}).update(value)
            else:
                request[key] = value
    return request


@st.composite
def requests(draw: st.DrawFn) -> tuple[dict[str, Any], dict[str, Any]]:
    """Some overrides by dotted path, and the same in random spellings, some of them twice."""
    chosen = draw(st.lists(st.sampled_from(sorted(GOOD)), unique=True))
    parts = [
        spell(GOOD[path])
        for path in chosen
        for spell in draw(st.lists(st.sampled_from(spellings(path)), min_size=1, max_size=2))
    ]
    return {path: GOOD[path] for path in chosen}, merged(draw(st.permutations(parts)))


@UNTIMED
@given(requests())
def test_every_spelling_gives_the_same_config(
    shared_recipe: Recipe, drawn: tuple[dict[str, Any], dict[str, Any]]
) -> None:
    """Dotted, nested, bare or alias, once or twice, in any order; and as a train config, too."""
    dotted, spelled = drawn
    expected = resolve(shared_recipe, request=dotted, filled={})
    assert resolve(shared_recipe, request=spelled, filled={}) == expected
    nested = merged([{path.partition(".")[0]: {path.partition(".")[2]: value}} for path, value in dotted.items()])
    assert resolve(shared_recipe, train_config=nested, filled={}) == expected
    assert resolve(shared_recipe, filled=dotted) == expected


MISTAKES: list[dict[str, Any]] = [
    {"learning_rte": 0.1},
    {"lora": {"rank": 4}},
    {"data.max_lenght": 4},
    {"lora.r": "16"},
    {"bf16": "yes"},
    {"training": {"max_steps": 0}},
    {"evaluation": {"strategy": "never"}},
    {"dropout": float("nan")},
    {"seed": 1},
    {"no_such_thing_at_all": {"x": 1}},
    {"scheduler.nme": "x"},
    {"target_modules": 1},
]


@UNTIMED
@given(drawn=requests(), mistakes=st.lists(st.sampled_from(MISTAKES), min_size=1, unique_by=str))
def test_each_mistake_is_one_fault(
    shared_recipe: Recipe, drawn: tuple[dict[str, Any], dict[str, Any]], mistakes: list[dict[str, Any]]
) -> None:
    """Right overrides beside them hide none and add none."""
    right, wrong = copy.deepcopy(drawn[1]), merged(copy.deepcopy(mistakes))
    assert len(refused(shared_recipe, train_config=None, request=wrong)) == len(mistakes)
    layered = {"train_config": None, "request": merged([right, wrong])}
    touched = {"r", "max_steps", "strategy", "dropout", "target_modules"}
    if not touched & {path.rpartition(".")[2] for path in drawn[0]}:
        assert len(refused(shared_recipe, **layered)) == len(mistakes)


KEYS = st.sampled_from(
    ["training", "lora", "lr", "seed", "job", "training.seed", "r", "scheduler", "type", ""]
) | st.text(max_size=5)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(KEYS, children, max_size=3),
    max_leaves=8,
)
OVERRIDES = st.dictionaries(KEYS, JSON, max_size=4)


@UNTIMED
@given(train_config=OVERRIDES, request=OVERRIDES)
def test_no_request_adds_a_key_to_the_config(shared_recipe: Recipe, train_config: Any, request: Any) -> None:
    """Whatever is sent: a config with exactly the recipe's options, or an InvalidInput that can be sent back as JSON."""
    reported: list[Any] = []
    try:
        config = resolve(shared_recipe, train_config=train_config, request=request, filled={})
    except InvalidInput as error:
        reported.append(msgspec.json.decode(msgspec.json.encode(error.faults)))
    else:
        assert paths_of(config, shared_recipe) == set(shared_recipe.schema)
    assert all(reported)


def paths_of(config: dict[str, Any], recipe: Recipe, group: str = "") -> set[str]:
    found: set[str] = set()
    for key, value in config.items():
        path = f"{group}{key}"
        deeper = isinstance(value, dict) and path not in recipe.schema
        found |= paths_of(value, recipe, f"{path}.") if deeper else {path}
    return found
