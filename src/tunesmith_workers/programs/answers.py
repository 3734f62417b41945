"""``answers``: what models are to be asked, and what their answers are worth, for answers that came from elsewhere.

    python -m tunesmith_workers.programs.answers questions CONFIG    writes output/questions.jsonl
    python -m tunesmith_workers.programs.answers score CONFIG        writes the report of an evaluation

Started by ``tunesmith compare-openai``, which asks the questions in between.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tunesmith_workers.evaluation.given_answers import score, write_questions
from tunesmith_workers.process.config import AnswersConfig, folders_of, read_config
from tunesmith_workers.process.faults import BadConfig, run_and_exit
from tunesmith_workers.process.stopping import StopRequest


def main() -> None:
    StopRequest().listen()
    steps = {"questions": write_questions, "score": score}
    if len(sys.argv) != 3 or sys.argv[1] not in steps:
        raise BadConfig("expects a step and a config", where="command line", mend="answers questions|score CONFIG")
    path = Path(sys.argv[2])
    steps[sys.argv[1]](read_config(AnswersConfig, path), folders_of(path))


if __name__ == "__main__":
    run_and_exit(main)
