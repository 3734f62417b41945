"""An account's jobs are brought here by the real SDK: once, whole, and with everything that made them what they were."""

from __future__ import annotations

import json
import signal
import subprocess

import pytest
import yaml
from ill_account import IllAccount, ill_account
from import_parts import KEY, UNKNOWN_MODEL, rows

from support.commands import Cli
from support.server import polled

pytestmark = [pytest.mark.sdk, pytest.mark.timeout(200)]


def told(done) -> dict[str, dict]:
    assert done.stdout, done.stderr
    return {one["job"]: one for one in json.loads(done.stdout)}


def datasets(home) -> dict[str, dict]:
    with home.client() as client:
        return {one["name"]: one for one in client.get("/api/v1/datasets").json()["datasets"]}


def test_jobs_become_datasets_once(importing, jobs, home):
    """Files, names, rows and a train config; a second time nothing is made, and everything is said to be here."""
    first = importing("--json")
    assert first.returncode == 1, first.stderr
    outcomes = told(first)
    ids = {name: job["id"] for name, job in jobs.items()}
    assert set(outcomes) == {ids["orders"], ids["plain"], ids["gone"]}, "only those that succeeded"
    assert "is gone at OpenAI" in outcomes[ids["gone"]]["missing"][0]
    assert outcomes[ids["gone"]]["dataset"] is None
    made = datasets(home)
    assert set(made) == {f"orders-{ids['orders']}", ids["plain"]}
    orders = made[f"orders-{ids['orders']}"]
    assert {one["name"] for one in orders["files"]} == {"train.jsonl", "validation.jsonl"}
    assert outcomes[ids["orders"]]["rows"] == {"train.jsonl": 40, "validation.jsonl": 8}
    with home.client() as client:
        files = {one["name"]: one["upload_id"] for one in orders["files"]}
        content = client.get(f"/api/v1/datasets/{orders['id']}/files/{files['train.jsonl']}/content")
        assert content.content == rows(40)
    config = home.state_dir.rglob("*.yaml")
    assert {**yaml.safe_load(next(iter(_of(config, "epochs: 2"))))["training"]} == {
        "num_train_epochs": 2,
        "per_device_train_batch_size": 6,
        "gradient_accumulation_steps": 2,
        "seed": 7,
    }
    again = importing("--job", ids["orders"], "--job", ids["plain"], "--json", url="http://127.0.0.1:9/v1")
    assert again.returncode == 0, again.stderr
    assert [one["is_new"] for one in told(again).values()] == [False, False]
    assert datasets(home) == made


def _of(paths, words: str) -> list[str]:
    return [text for path in paths if words in (text := path.read_text())]


def test_a_job_is_started_as_it_was(importing, jobs, home):
    """By the printed command, with OpenAI out of reach: method, suffix, seed, metadata and files. A second start finds it."""
    old = jobs["orders"]
    ready = told(importing("--job", old["id"], "--json"))[old["id"]]
    assert ready["missing"] == []
    words = ready["start_command"].split()
    assert words[:2] == ["tunesmith", "import-openai"]
    started = importing(*words[2:], "--json", url="http://127.0.0.1:9/v1")
    assert started.returncode == 0, started.stderr
    new_id = told(started)[old["id"]]["started"]
    with home.client() as client:
        new = client.get(f"/v1/fine_tuning/jobs/{new_id}").json()
        assert new["seed"] == 7
        assert new["metadata"] == {"team": "sales", "imported_from": old["id"]}
        assert new["method"] == old["method"]
        for job in polled(lambda: client.get(f"/v1/fine_tuning/jobs/{new_id}").json()):
            if job["status"] not in ("validating_files", "queued", "running"):
                break
        assert job["status"] == "succeeded", job
        assert ":orders:" in job["fine_tuned_model"]
        assert client.get(f"/v1/files/{new['validation_file']}/content").content == rows(8, "another")
        again = importing(*words[2:], "--json", url="http://127.0.0.1:9/v1")
        assert told(again)[old["id"]]["started"] == new_id
        assert len(client.get("/v1/fine_tuning/jobs").json()["data"]) == 1


def test_the_rule_of_this_service_may_choose(importing, jobs, home):
    """With --auto nothing that OpenAI chose is asked for."""
    old = jobs["orders"]["id"]
    assert importing("--job", old).returncode == 0
    started = told(importing("--job", old, "--auto", "--start", "--json"))[old]["started"]
    with home.client() as client:
        for job in polled(lambda: client.get(f"/v1/fine_tuning/jobs/{started}").json()):
            if job["status"] == "succeeded":
                break
    used = job["method"]["supervised"]["hyperparameters"]
    assert (used["n_epochs"], used["batch_size"]) != (2, 12)


def test_a_failed_job_can_be_taken_too(importing, jobs):
    """By --all, and by its id; a job that nobody knows is told of, and the others go on."""
    everything = told(importing("--all", "--json"))
    assert set(everything) == {job["id"] for job in jobs.values()}
    assert everything[jobs["failed"]["id"]]["dataset"]
    named = importing("--job", "ftjob-nobody", "--job", jobs["failed"]["id"], "--json")
    assert named.returncode == 1
    assert "no such job" in told(named)["ftjob-nobody"]["missing"][0]
    assert told(named)[jobs["failed"]["id"]]["missing"] == []
    assert told(importing("--since", "2999-01-01", "--json")) == {}


def test_a_model_without_an_alias_is_told(importing, jobs, home, tiny):
    """The data is here all the same; --model OLD=LOCAL mends it."""
    home.stop()
    home._env.pop("TUNESMITH_ALIASES")
    home.up()
    old = jobs["plain"]["id"]
    without = importing("--job", old, "--json")
    assert without.returncode == 1
    assert f"--model {UNKNOWN_MODEL}=LOCAL" in told(without)[old]["missing"][0]
    assert told(without)[old]["dataset"] == old
    named = importing("--job", old, "--model", f"{UNKNOWN_MODEL}={tiny}", "--json")
    assert named.returncode == 0, named.stderr
    assert told(named)[old]["trains_on"] == str(tiny)


def test_killed_in_the_middle_nothing_is_there_twice(importing, command, environment, jobs, home, old, tmp_path):
    """SIGKILL while files come in; the next import goes on, and leaves one dataset for each job with one file of each name."""
    for stop_after in ("train.jsonl", "validation.jsonl"):
        child = subprocess.Popen(
            command("import-openai", "--openai-base-url", f"{old.url}/v1"),
            cwd=tmp_path,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        with child:
            for line in child.stderr:
                if stop_after in line:
                    break
            child.send_signal(signal.SIGKILL)
    done = importing("--json")
    assert done.returncode == 1, done.stderr
    made = datasets(home)
    assert set(made) == {f"orders-{jobs['orders']['id']}", jobs["plain"]["id"]}
    for one in made.values():
        names = [file["name"] for file in one["files"]]
        assert len(names) == len(set(names)) == one["metadata"]["total_files"]
        assert one["train_config"] is not None


def test_the_table_says_what_is_here_and_what_to_do(importing, jobs):
    """For people: one line for each job, then what is missing, then how to start what is ready."""
    done = importing()
    line = next(line for line in done.stdout.splitlines() if line.startswith(jobs["orders"]["id"]))
    assert "40, 8" in line
    assert "ready" in line
    assert f"{jobs['gone']['id']}: the training file" in done.stderr
    assert f"tunesmith import-openai --start --job {jobs['plain']['id']}" in done.stderr


def test_what_cannot_be_asked_is_refused(importing, home, tmp_path):
    """The service itself in OpenAI's place, an address that is none, one where nobody answers, a model without a name."""
    assert "itself" in importing(url=f"{home.url}/v1").stderr
    assert "is not an address" in importing(url="api.openai.com").stderr
    unreachable = importing(url="http://127.0.0.1:9/v1")
    assert unreachable.returncode == 1
    assert "cannot be reached" in unreachable.stderr
    assert importing("--model", "gpt").returncode == 2
    empty = tmp_path / "key"
    empty.write_text("\n")
    assert "there is no key" in importing("--openai-key-file", empty).stderr


def test_without_the_package_the_error_says_how_to_get_it(home, tmp_path):
    """Also with --help it needs nothing."""
    blocked = tmp_path / "blocked"
    blocked.mkdir()
    (blocked / "sitecustomize.py").write_text(
        "import importlib.util as u\n"
        "found = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name == 'openai' else found(name, *a)\n"
    )
    cli = Cli(tmp_path, {"TUNESMITH_URL": home.url, "OPENAI_API_KEY": "x", "PYTHONPATH": str(blocked)})
    done = cli("import-openai")
    assert done.returncode == 1
    assert "pip install 'tunesmith[openai]'" in done.stderr
    assert cli("import-openai", "--help").returncode == 0


def test_ctrl_c_leaves_nothing_half_written(command, environment, home, tmp_path):
    """In the middle of a download: the exit code says so, what to do is said, and there is no dataset."""
    with ill_account(IllAccount(["ftjob-1"])) as account:
        child = subprocess.Popen(
            command("import-openai", "--openai-base-url", account.url),
            cwd=tmp_path,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # Whoever runs the tests may ignore Ctrl-C, as a shell's background does; a terminal does not.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509  # nothing else runs in the child
        )
        with child:
            assert account.begun.wait(60)
            child.send_signal(signal.SIGINT)
            _, said = child.communicate(timeout=60)
    assert child.returncode == 130, said
    assert "the same command goes on" in said
    assert datasets(home) == {}


def test_a_download_that_breaks_off_is_told(importing, home):
    """Half a file is not kept; the other jobs are tried all the same. The key goes where it belongs."""
    with ill_account(IllAccount(["ftjob-2", "ftjob-1"], breaks=True)) as account:
        done = importing("--json", url=account.url)
        assert account.keys == {f"Bearer {KEY}"}
    assert done.returncode == 1
    assert [one["job"] for one in json.loads(done.stdout)] == ["ftjob-1", "ftjob-2"]
    assert all("could not be downloaded" in one["missing"][0] for one in json.loads(done.stdout))
    assert datasets(home) == {}


def test_a_list_without_an_end_ends(importing):
    """One that has the same page for ever."""
    with ill_account(IllAccount(["ftjob-1"], endless=True)) as account:
        done = importing(url=account.url)
    assert done.returncode == 1
    assert "does not end" in done.stderr


def test_a_method_without_a_recipe_brings_its_data(importing, home):
    """What is missing is said, and so is what is not taken along; nothing is started."""
    more = {
        "method": {"type": "dpo", "dpo": {"hyperparameters": {"beta": 0.2}}},
        "integrations": [{"type": "wandb", "wandb": {"project": "p"}}],
        "user_provided_suffix": "Chosen Ones",
    }
    with ill_account(IllAccount(["ftjob-1"], content=rows(3), more=more)) as account:
        done = importing("--start", "--json", url=account.url)
    assert done.returncode == 1
    outcome = told(done)["ftjob-1"]
    assert outcome["dataset"] == "chosen-ones-ftjob-1"
    assert "the method dpo needs the recipe dpo" in outcome["missing"][0]
    assert outcome["notes"] == ["the integration wandb is not taken along"]
    assert outcome["started"] is None


def test_a_file_that_is_deleted_here_comes_again(importing, home):
    """So does a dataset; what was uploaded before is no reason to find nothing."""
    with ill_account(IllAccount(["ftjob-1"], content=rows(3))) as account:
        assert importing(url=account.url).returncode == 0
        with home.client() as client:
            client.delete(f"/api/v1/uploads/{datasets(home)['ftjob-1']['files'][0]['upload_id']}").raise_for_status()
            assert importing(url=account.url).returncode == 0
            assert [one["bytes"] for one in datasets(home)["ftjob-1"]["files"]] == [len(rows(3))]
            client.delete("/api/v1/datasets/ftjob-1").raise_for_status()
            assert importing(url=account.url).returncode == 0
    assert datasets(home)["ftjob-1"]["metadata"]["total_files"] == 1
