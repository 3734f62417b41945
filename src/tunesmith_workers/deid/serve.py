"""The worker behind de-identification, which is kept and asked again; see ``contract.calls`` for how.

    {"call": 1, "ask": "policies", "policies_dir": "state/policies"}
    {"call": 2, "ask": "texts", "policies_dir": "...", "policy_id": "default", "text": ["..."], "locale": null, "seed": 7}

The dictionaries are loaded with the first texts. Nothing of a text is ever printed, not even in an error.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tunesmith_workers.deid.detector import Detector
from tunesmith_workers.deid.engine import Engine
from tunesmith_workers.deid.policy import SHIPPED, policy_files, read_policy
from tunesmith_workers.process.calls import keep_answering
from tunesmith_workers.process.faults import WorkerFault

Edition = tuple[Path, int, int, int] | None
"""What tells one content of a policy file from another."""


class Desk:
    """Answers requests, with everything that was loaded for the ones before."""

    def __init__(self) -> None:
        self._detector: Detector | None = None
        self._engines: dict[tuple[str, str | None], tuple[Edition, Engine]] = {}

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """What was asked for.

        Raises:
            WorkerFault: what stands against it.
        """
        folder = Path(request["policies_dir"])
        try:
            return _policies(folder) if request["ask"] == "policies" else self._texts(request, folder)
        except OSError as error:  # a policy's file that went away or cannot be read
            raise WorkerFault(f"policies cannot be read: {error.strerror}", where="policy_id") from None

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


if __name__ == "__main__":
    keep_answering(Desk().answer)
