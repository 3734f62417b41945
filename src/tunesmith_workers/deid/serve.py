"""The long-lived worker behind de-identification: one JSON request a line on standard input, one JSON answer a line.

    {"id": 1, "ask": "policies", "policies_dir": "state/policies"}
    {"id": 2, "ask": "texts", "policies_dir": "...", "policy_id": "default", "text": ["..."], "locale": null, "seed": 7}

An answer has the request's ``id`` and either ``answer`` or ``refusal``. The dictionaries are loaded with the first texts.
Nothing of a text is ever printed, not even in an error. When standard input closes, the server is gone and so is this.
"""

from __future__ import annotations

import os
import queue
import sys
import threading
import traceback
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from tunesmith_workers.deid.detector import Detector
from tunesmith_workers.deid.engine import Engine
from tunesmith_workers.deid.policy import SHIPPED, BadPolicy, UnknownPolicy, policy_files, read_policy
from tunesmith_workers.process.faults import STOPPED, PackageMissing, WorkerFault

Edition = tuple[Path, int, int, int] | None
"""What tells one content of a policy file from another."""

_KINDS_OF_REFUSAL = {UnknownPolicy: "unknown_policy", BadPolicy: "bad_policy", PackageMissing: "missing_package"}


def main() -> None:
    answers = _own_output()
    requests: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    # Read beside the work, so that the end of the server is seen in the middle of a long text too.
    threading.Thread(target=_listen, args=(sys.stdin.buffer, requests), daemon=True).start()
    desk = Desk()
    while True:
        request = msgspec.json.decode(requests.get(), type=dict[str, Any])
        answers.write(msgspec.json.encode({"id": request["id"], **desk.answer(request)}) + b"\n")
        answers.flush()


class Desk:
    """Answers requests, with everything that was loaded for the ones before."""

    def __init__(self) -> None:
        self._detector: Detector | None = None
        self._engines: dict[tuple[str, str | None], tuple[Edition, Engine]] = {}

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """``answer`` with what was asked for, or ``refusal`` with what stands against it."""
        folder = Path(request["policies_dir"])
        try:
            return {"answer": _policies(folder) if request["ask"] == "policies" else self._texts(request, folder)}
        except WorkerFault as fault:
            kind = _KINDS_OF_REFUSAL.get(type(fault), "refused")
            faults = list(fault.faults) if isinstance(fault, BadPolicy) else []
            return {
                "refusal": {
                    "kind": kind,
                    "text": fault.text,
                    "where": fault.where,
                    "mend": fault.mend,
                    "faults": faults,
                }
            }
        except OSError as error:  # a policy's file that went away or cannot be read
            return {
                "refusal": {
                    "kind": "refused",
                    "text": f"policies cannot be read: {error.strerror}",
                    "where": "policy_id",
                }
            }
        except Exception as error:  # noqa: BLE001  # the edge of the process; an exception's own words may quote the text
            return {"refusal": {"kind": "failed", "text": f"{type(error).__name__} at {_place(error)}"}}

    def _texts(self, request: dict[str, Any], folder: Path) -> dict[str, Any]:
        engine = self._engine(request["policy_id"], folder, request["locale"])
        outcome = engine.session(request["seed"]).texts(request["text"])
        return {
            "texts": outcome.texts,
            "counts": outcome.counts,
            "mapping": outcome.mapping,
            "policy_id": engine.policy_id,
            "policy_version": engine.version,
        }

    def _engine(self, policy_id: str, folder: Path, locale: str | None) -> Engine:
        """The engine of a policy, built again when its file has changed."""
        edition = _edition(policy_id, folder)
        known = self._engines.get((policy_id, locale))
        if known is not None and known[0] == edition:
            return known[1]
        engine = Engine.load(policy_id, folder, locale, detector=self._detector)
        self._detector = engine.detector
        self._engines[policy_id, locale] = (edition, engine)
        return engine


def _edition(policy_id: str, folder: Path) -> Edition:
    path = policy_files(folder).get(policy_id)
    if path is None:
        return None
    status = path.stat()
    return path, status.st_mtime_ns, status.st_size, status.st_ino


def _policies(folder: Path) -> dict[str, Any]:
    found = []
    for name, path in policy_files(folder).items():
        policy, faults = read_policy(path)
        about: dict[str, Any] = {
            "id": name,
            "source": "shipped" if path.parent == SHIPPED else "state",
            "faults": faults,
        }
        if policy is not None:
            about |= {"version": policy.version, "summary": policy.summary, "locale": policy.locale}
            about["kinds"] = {kind: treatment.action for kind, treatment in policy.kinds.items()}
        found.append(about)
    return {"policies": found}


def _own_output() -> BinaryIO:
    """Standard output for answers alone: what a library prints goes to standard error."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return answers


def _listen(stream: BinaryIO, requests: queue.SimpleQueue[bytes]) -> None:
    for line in stream:
        requests.put(line)
    os._exit(STOPPED)


def _place(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    return f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "an unknown place"


if __name__ == "__main__":
    main()
