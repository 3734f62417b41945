"""Models side by side: intervals that hold what they promise, verdicts in plain words, and a whole comparison over HTTP."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from evaluation_parts import evaluate_here, write_evaluation
from training_parts import COLOURS, chat, config_and_folders, environment

from support.server import ServerProcess, start_run, wait_for_run
from tunesmith_workers.evaluation.comparison import RESAMPLES, Interval, _draws, differences, intervals, verdict_of
from tunesmith_workers.evaluation.measured import mean_of, ratio_of
from tunesmith_workers.evaluation.scoring import labels_of
from tunesmith_workers.evaluation.text_scores import text_metrics
from tunesmith_workers.objectives.token_cross_entropy import TokenCrossEntropy
from tunesmith_workers.process.faults import ModelUnavailable
from tunesmith_workers.process.stopping import StopRequest
from tunesmith_workers.programs.training import Started, run
from tunesmith_workers.weights.full import FullWeights

pytestmark = [pytest.mark.training, pytest.mark.filterwarnings("default")]
RECIPES = Path(__file__).parents[2] / "recipes"


def test_an_interval_is_about_as_wide_as_theory_says():
    """For a mean: 1.96 standard errors to each side."""
    scores = np.random.default_rng(1).normal(5, 2, 400).tolist()
    [interval] = intervals([mean_of("judge_score", scores)])
    error = np.std(scores) / 20
    assert interval.low == pytest.approx(np.mean(scores) - 1.96 * error, abs=0.03)
    assert interval.high == pytest.approx(np.mean(scores) + 1.96 * error, abs=0.03)


def test_the_draws_are_the_same_every_time():
    """Each takes as many rows as there are, and none is left out for long."""
    draws = np.concatenate(list(_draws(7)))
    assert draws.shape == (RESAMPLES, 7)
    assert (draws.sum(axis=1) == 7).all()
    assert draws.mean(axis=0) == pytest.approx(np.ones(7), abs=0.05)
    assert (draws == np.concatenate(list(_draws(7)))).all()


def test_draws_of_many_rows_are_made_in_parts():
    """So that they fit in memory."""
    parts = list(_draws(9000))
    assert len(parts) > 10
    assert sum(len(part) for part in parts) == RESAMPLES


def test_pairing_sees_what_unpaired_scores_hide():
    """A small gain on every row, among rows of very different difficulty."""
    hard = np.random.default_rng(0).uniform(1, 9, 50)
    first, other = mean_of("judge_score", hard.tolist()), mean_of("judge_score", (hard + 0.5).tolist())
    [difference] = differences("base", "tuned", [first], [other])
    assert difference.verdict.startswith("better by 0.50 (0.50 to 0.50)")
    one, two = intervals([first, other])
    assert one.high > two.low, "apart, they overlap"


def test_a_loss_is_weighted_by_tokens_in_every_draw():
    """A long row counts for more than a short one, and lower is better."""
    first = ratio_of("loss", [10.0, 2.0] * 20, [10, 1] * 20)
    other = ratio_of("loss", [5.0, 1.0] * 20, [10, 1] * 20)
    [difference] = differences("base", "tuned", [first], [other])
    assert difference.difference == pytest.approx(6 / 11 - 12 / 11)
    assert difference.verdict.startswith("better by 0.55 (")


def test_models_with_other_tokens_are_not_compared_by_loss():
    """A mean over tokens says nothing across vocabularies; what rows are worth as text does."""
    first, other = ratio_of("loss", [1.0] * 40, [10] * 40), ratio_of("loss", [1.0] * 40, [12] * 40)
    [difference] = differences("base", "tuned", [first], [other])
    assert difference.verdict.startswith("cannot be compared")
    assert difference.difference is None


def test_only_rows_that_both_have_are_compared():
    """What one judge reply lacked does not count for the other model, either."""
    first, other = mean_of("judge_score", [1.0, 2.0, None]), mean_of("judge_score", [2.0, 3.0, 10.0])
    [difference] = differences("base", "tuned", [first], [other])
    assert (difference.rows, difference.difference) == (2, 1.0)


def test_bleu_has_an_interval_too():
    """Though it is no mean over rows."""
    expected = [f"the {colour} box number {n} is here" for n in range(15) for colour in ("red", "blue")]
    good = [text.replace("here", "there") for text in expected]
    bad = [text.replace("box", "car") for text in expected]
    [first], [other] = text_metrics(["bleu"], expected, bad), text_metrics(["bleu"], expected, good)
    [difference] = differences("bad", "good", [first], [other])
    assert difference.verdict.startswith("better by")
    assert difference.difference == pytest.approx(other.overall - first.overall)


@pytest.mark.parametrize(
    ("difference", "interval", "sign", "words"),
    [
        (0.12, Interval(0.05, 0.19), 1, "better by 0.12 (0.05 to 0.19)"),
        (-0.12, Interval(-0.19, -0.05), 1, "worse by 0.12 (0.05 to 0.19)"),
        (-0.12, Interval(-0.19, -0.05), -1, "better by 0.12 (0.05 to 0.19)"),
        (0.01, Interval(-0.02, 0.04), 1, "no clear difference (-0.02 to 0.04)"),
        (0.0, Interval(0.0, 0.0), 1, "no clear difference (0 to 0)"),
        (0.00123, Interval(0.0011, 0.0014), 1, "better by 0.0012 (0.0011 to 0.0014)"),
        (1.0, None, 1, "too few rows to tell"),
    ],
)
def test_verdicts_are_plain_words(difference, interval, sign, words):
    """Magnitudes only: better and worse say which way."""
    assert verdict_of(difference, interval, sign) == words


def test_models_have_short_names_that_differ():
    """A run by its id, a checkpoint by run and step, a folder by its name."""
    assert labels_of(
        ["/s/runs/run_1/output", "/s/runs/run_1/checkpoints/checkpoint-5", "/m/Small", "org/Small", "/n/Small"]
    ) == ["run_1", "run_1/checkpoint-5", "Small", "org/Small", "Small (2)"]


@pytest.fixture
def tuned(tiny_model, write_rows, write_config, tmp_path) -> Path:
    """The tiny model, taught the colours."""
    path = write_config(write_rows(COLOURS, "train.jsonl"), training={"max_steps": 80, "learning_rate": 0.005})
    config, folders = config_and_folders(path, "sft")
    run(FullWeights(), TokenCrossEntropy(), Started(config, folders, StopRequest()))
    return folders.output


def test_a_tuned_model_is_better_over_http(tiny_model, tuned, write_rows, tmp_path):
    """Two models and one request: the second is named as any model is, and the verdict is in the report and the events."""
    rows = write_rows([chat(*[message["content"] for message in row["messages"]]) for row in COLOURS], "score.jsonl")
    env = {**environment(tmp_path), "TUNESMITH_ALIASES": f"untuned={tiny_model}:tuned={tuned}", "HF_HUB_OFFLINE": "1"}
    env["TUNESMITH_ALLOWED_ROOTS"] = f"{tmp_path}:{tiny_model.parent}"
    with ServerProcess.start(tmp_path / "state", RECIPES, env) as server, server.client() as client:
        wishes = {
            "metrics": ["exact_match", "perplexity", "rougeL"],
            "max_new_tokens": 8,
            "compare": ["tuned"],
        }
        run_id = start_run(client, "evaluate", model="untuned", dataset={"name": str(rows)}, hyperparams=wishes)
        done = wait_for_run(client, run_id, seconds=120)
        assert done["status"] == "succeeded", done
        assert done["metrics"]["exact_match"] == 0.0, "the metrics of the run are those of the first model"
        artifacts = client.get(f"/v1/runs/{run_id}/artifacts").json()["artifacts"]
        by_path = {one["path"]: one for one in artifacts}
        assert by_path["output/report.html"]["kind"] == "report_page"
        found = by_path["output/report.json"]["artifact_id"]
        report = client.get(f"/v1/runs/{run_id}/artifacts/{found}/content").json()
        verdicts = {one["metric"]: one["verdict"] for one in report["comparisons"]}
        assert verdicts["exact_match"] == "better by 1.00 (1.00 to 1.00)"
        assert verdicts["perplexity"].startswith("better by")
        assert [one["label"] for one in report["models"]] == ["model", "output"]
        page = next(one for one in artifacts if one["path"].endswith(".html"))
        shown = client.get(f"/v1/runs/{run_id}/artifacts/{page['artifact_id']}/content").text
        assert "Where output gains most on rougeL" in shown
        refused = client.post(
            f"/v1/experiments/{done['experiment_id']}/runs",
            json={
                "recipe": "evaluate",
                "model": "untuned",
                "dataset": {"name": str(rows)},
                "hyperparams": {"metrics": ["exact", "rogueL"], "compare": []},
            },
        )
        assert refused.status_code == 422
        assert [fault["mend"] for fault in refused.json()["errors"]] == [
            "did you mean exact_match?",
            "did you mean rougeL?",
        ]
        gone = client.post(
            f"/v1/experiments/{done['experiment_id']}/runs",
            json={
                "recipe": "evaluate",
                "model": "untuned",
                "dataset": {"name": str(rows)},
                "hyperparams": {"compare": ["tund"]},
            },
        )
        assert gone.status_code == 400, "as an unknown model is"
        assert "evaluation.compare[0]" in gone.text
        assert "did you mean tuned?" in gone.text


def test_each_row_has_what_every_model_made_of_it(tiny_model, tuned, write_rows, tmp_path, capfdbinary):
    """In one line of predictions.jsonl: the first model as ever, the others after it."""
    rows = write_rows(COLOURS[:8], "score.jsonl")
    path = write_evaluation(tmp_path / "both", tuned, rows, metrics=["exact_match", "loss"], compare=[str(tiny_model)])
    found = evaluate_here(path, capfdbinary)
    for line in found.predictions:
        assert line["correct"]
        assert line["scores"]["exact_match"] == 1.0
        [other] = line["others"]
        assert other["model"] == "model"
        assert not other["correct"]
        assert other["scores"]["loss"] > line["scores"]["loss"]
    assert found.metrics["exact_match"] == 1.0
    [by_loss] = [one for one in found.result["comparisons"] if one["metric"] == "loss"]
    assert by_loss["verdict"].startswith("worse by")
    assert found.told.said("model beside output, exact_match: worse by 1.00 (1.00 to 1.00)")


def test_the_second_model_scores_as_it_does_alone(tiny_model, tuned, write_rows, tmp_path, capfdbinary):
    """Nothing of the one before it is left."""
    rows = write_rows(COLOURS[:8], "score.jsonl")
    alone = evaluate_here(write_evaluation(tmp_path / "one", tuned, rows, metrics=["loss"]), capfdbinary).metrics
    both = write_evaluation(tmp_path / "two", tiny_model, rows, metrics=["loss"], compare=[str(tuned)])
    [_, second] = evaluate_here(both, capfdbinary).report["models"]
    assert second["metrics"]["loss"]["value"] == pytest.approx(alone["loss"], rel=1e-6)


def test_a_second_model_that_is_not_there_is_told_first(tiny_model, write_rows, tmp_path, capfdbinary):
    """Not after the first one has answered for hours."""
    path = write_evaluation(tmp_path / "run", tiny_model, write_rows(COLOURS[:8]), compare=[str(tmp_path / "gone")])
    with pytest.raises(ModelUnavailable):
        evaluate_here(path, capfdbinary)
    assert b'"phase":"evaluating"' not in capfdbinary.readouterr().out
