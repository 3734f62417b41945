"""Train configs: checked when they are put, every fault at once, and one for each dataset and the service."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from dataset_parts import CONFIG_LIMIT, new_dataset

from support.server import ServerProcess

GOOD = b"job:\n  type: trains\ntraining:\n  learning_rate: 1e-4\n  max_steps: 010\n"


@pytest.fixture(params=["dataset", "service"])
def address(request: pytest.FixtureRequest, client: httpx.Client) -> str:
    return "/v1/train-config" if request.param == "service" else f"/api/v1/datasets/{new_dataset(client)}/train-config"


def put(client: httpx.Client, address: str, content: bytes, name: str = "orders.yaml") -> httpx.Response:
    return client.put(address, files={"file": (name, content)})


def test_a_config_is_kept_shown_replaced_and_removed(client, server: ServerProcess, address) -> None:
    """Each answer as the API has it; what was replaced or removed leaves no file."""
    of_dataset = {"dataset_id": address.split("/")[4]} if "datasets" in address else {}
    before = set((server.state_dir / "train_configs").iterdir())
    assert client.get(address).status_code == 404
    answer = put(client, address, GOOD, "订单.yaml").json()
    config = answer["train_config"]
    assert answer == {**of_dataset, "train_config": config}
    assert (config["filename"], config["size"], config["recipe"]) == ("订单.yaml", len(GOOD), "trains")
    shown = client.get(address).json()
    assert shown == (answer if of_dataset else config)
    again = put(client, address, GOOD + b"# more\n", "other.yml").json()["train_config"]
    assert (again["filename"], again["size"]) == ("other.yml", len(GOOD) + 7)
    assert len(set((server.state_dir / "train_configs").iterdir()) - before) == 1
    assert client.delete(address).json() == {**of_dataset, "status": "train_config_deleted"}
    assert set((server.state_dir / "train_configs").iterdir()) == before
    assert client.get(address).status_code == 404
    assert client.delete(address).status_code == 404


def test_of_many_that_come_at_once_one_is_kept_whole(client, server: ServerProcess, address) -> None:
    """All are accepted; what is shown afterwards is one of them, with the bytes of that one, and no file of another."""
    before = set((server.state_dir / "train_configs").iterdir())
    given = {f"config-{number}.yaml": GOOD + b"# more\n" * number for number in range(12)}

    def ask(named: tuple[str, bytes]) -> int:
        with server.client() as own:
            return put(own, address, named[1], named[0]).status_code

    with ThreadPoolExecutor(len(given)) as clients:
        assert set(clients.map(ask, given.items())) <= {200, 201}
    shown = client.get(address).json()
    shown = shown.get("train_config", shown)
    [kept] = set((server.state_dir / "train_configs").iterdir()) - before
    assert kept.read_bytes() == given[shown["filename"]]
    client.delete(address).raise_for_status()


def test_every_fault_is_listed_with_its_key(client, address) -> None:
    """Unknown sections and options with the nearest right name, wrong types, values out of bounds: all in one answer."""
    content = (
        b"job: {type: trains}\ntraning: {max_steps: 3}\ntraining:\n  learning_rte: 1e-4\n  max_steps: 5000\n"
        b"  seed: no\nmodel: [1]\n"
    )
    answer = put(client, address, content)
    assert answer.status_code == 422
    faults = {fault["where"]: fault for fault in answer.json()["errors"]}
    assert set(faults) == {
        "train_config.traning",
        "train_config.training.learning_rte",
        "train_config.training.max_steps",
        "train_config.training.seed",
        "train_config.model",
    }
    assert "training" in faults["train_config.traning"]["mend"]
    assert "training.learning_rate" in faults["train_config.training.learning_rte"]["mend"]
    assert client.get(address).status_code == 404


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"job: {type: trains}\njob: {type: trains}\n", "twice"),
        (b"job: {type: trains}\ntraining:\n  seed: 1\n  seed: 2\n", "twice"),
        (b"a: &a [x, x]\nb: &b [*a, *a]\n" + b"".join(b"c%d: &c%d [*b, *b]\n" % (i, i) for i in range(5)), "recipe"),
        (b"a: &a {b: *a}\n", "contains itself"),
        (b"job: !!python/object/apply:os.system ['true']\n", "tag"),
        (b"job: {type: trains}\n<<: {a: 1}\n", "merge key"),
        (b"job: {type: trains\n", "not valid YAML"),
        (b"\xff\xfejob", "not UTF-8"),
        (b"job: {type: trains}\n---\nb: 1\n", "more than one document"),
        (b"[" * 100 + b"]" * 100, "deep"),
        (b"- a\n- b\n", "mapping"),
        (b"just text\n", "mapping"),
        (b"training: {max_steps: 3}\n", "which recipe"),
        (b"job: {}\n", "which recipe"),
        (b"job: trains\n", "must be a mapping"),
        (b"job: {type: 5}\n", "must be the name of a recipe"),
        (b"job: {type: rl}\n", "needs a method"),
        (b"job: {type: broken}\n", "broken"),
    ],
    ids=str,
)
def test_a_config_that_is_none_is_refused(client, address, content, words) -> None:
    """The traps of YAML, and configs that name no recipe."""
    answer = put(client, address, content)
    assert answer.status_code == 422, answer.text
    assert words in answer.text
    assert client.get(address).status_code == 404


def test_a_bomb_goes_off_nowhere(client, address) -> None:
    """Aliases that expand to billions of values are refused at once."""
    lines = [b"a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [b"a%d: &a%d [%b]" % (n, n, b", ".join([b"*a%d" % (n - 1)] * 10)) for n in range(1, 10)]
    began = time.monotonic()
    answer = put(client, address, b"\n".join(lines))
    assert answer.status_code == 422
    assert "100000 values" in answer.json()["detail"]
    assert time.monotonic() - began < 30


def test_an_unknown_recipe_is_answered_with_the_nearest(client, address) -> None:
    """400, as for anything that a request names and that is not there."""
    answer = put(client, address, b"job: {type: train}\n")
    assert answer.status_code == 400
    assert answer.json()["where"] == "train_config.job.type"
    assert "did you mean trains?" in answer.json()["mend"]


def test_a_method_names_the_recipe_of_rl(client, address) -> None:
    """`job: {type: rl, method: ...}` is checked against the recipe of that name."""
    answer = put(client, address, b"job: {type: rl, method: aligns}\n")
    assert answer.status_code == 200, answer.text
    assert answer.json()["train_config"]["recipe"] == "aligns"
    client.delete(address)


@pytest.mark.parametrize("name", ["config.json", "config", "config.yaml.exe", "yaml"])
def test_the_name_says_what_it_is(client, address, name) -> None:
    """Only .yaml and .yml are taken."""
    answer = put(client, address, GOOD, name)
    assert answer.status_code == 422
    assert ".yaml or .yml" in answer.json()["mend"]


def test_a_config_may_be_as_large_as_the_limit(client, address) -> None:
    """One byte more is 413, announced or chunked."""
    fits = GOOD + b"#" * (CONFIG_LIMIT - len(GOOD))
    assert put(client, address, fits).status_code == 200
    assert put(client, address, fits + b"#").status_code == 413
    request = client.build_request("PUT", address, files={"file": ("c.yaml", fits + b"#")})
    body, kind = request.read(), request.headers["content-type"]
    chunks = (body[at : at + 999] for at in range(0, len(body), 999))
    answer = client.put(address, content=chunks, headers={"Content-Type": kind})
    assert answer.status_code == 413
    assert "max_train_config_bytes" in answer.json()["mend"]
    client.delete(address)


def test_a_config_survives_a_kill(tmp_path, recipes) -> None:
    """Acknowledged means on disk; a replacement that was cut short leaves the old one or the new one."""
    with ServerProcess.start(tmp_path / "state", recipes) as server:
        with server.client() as client:
            put(client, "/v1/train-config", GOOD, "first.yaml").raise_for_status()
        server.stop()
        shown = "first.yaml"
        for step, after in (("file.before_rename", "first.yaml"), ("journal.after_fsync", "second.yaml")):
            fragile = ServerProcess(tmp_path / "state", recipes, {"TUNESMITH_FAILPOINT": step})
            fragile.up()
            with fragile.client() as client:
                assert client.get("/v1/train-config").json()["filename"] == shown
                with pytest.raises(httpx.HTTPError):
                    put(client, "/v1/train-config", GOOD, "second.yaml")
            fragile.kill9()
            shown = after
        server.up()
        with server.client() as client:
            assert client.get("/v1/train-config").json()["filename"] == "second.yaml"
        assert len(list((server.state_dir / "train_configs").iterdir())) == 1
