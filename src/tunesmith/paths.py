"""Every name below the state folder, in one place. Nothing here touches the disk except ``create``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

_OF_USERS = frozenset({"uploads", "downloads", "models", "finetuned", "train_configs", "demo"})
"""Folders of the state folder that paths in requests may lead into."""
_OF_A_RUN = frozenset({"output", "checkpoints", "results", "datasets"})
"""The same of a run's folder."""


@dataclass(frozen=True)
class AttemptPaths:
    """The folder of one attempt: what was started, which process it was, how it ended."""

    folder: Path

    @property
    def command(self) -> Path:
        """What the shim starts: argument list, environment, working folder."""
        return self.folder / "command.json"

    @property
    def process(self) -> Path:
        """Identity of the shim and of the program; its creation claims the attempt."""
        return self.folder / "process.json"

    @property
    def exit(self) -> Path:
        """How the program ended: code, signal, time. Written once, by the shim."""
        return self.folder / "exit.json"


@dataclass(frozen=True)
class RunPaths:
    """The folder of one run."""

    folder: Path

    @property
    def config(self) -> Path:
        return self.folder / "config.yaml"

    @property
    def origins(self) -> Path:
        """Where the values of config.yaml come from that are not the recipe's own; runs of before have none."""
        return self.folder / "origins.json"

    @property
    def log(self) -> Path:
        return self.folder / "run.log"

    @property
    def metrics(self) -> Path:
        return self.folder / "metrics.jsonl"

    @property
    def progress(self) -> Path:
        """The latest progress with the log offset it was read up to; derived, may be deleted."""
        return self.folder / "progress.json"

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    @property
    def output(self) -> Path:
        return self.folder / "output"

    @property
    def published(self) -> Path:
        """What came of putting the output where a door has promised it; only runs with such a promise have one."""
        return self.folder / "published.json"

    def attempt(self, number: int) -> AttemptPaths:
        return AttemptPaths(self.folder / "attempts" / str(number))


@dataclass(frozen=True)
class DeploymentPaths:
    """The folder of one deployment."""

    folder: Path

    @property
    def log(self) -> Path:
        """All that its engines printed."""
        return self.folder / "engine.log"

    def attempt(self, number: int) -> AttemptPaths:
        return AttemptPaths(self.folder / "attempts" / str(number))


@dataclass(frozen=True)
class BatchPaths:
    """The folder of one batch, there until its lines are files: each request that has its answer has a line in one of them."""

    folder: Path

    @property
    def output(self) -> Path:
        """Requests that were answered."""
        return self.folder / "output.jsonl"

    @property
    def errors(self) -> Path:
        """Requests that were refused, or could not be asked."""
        return self.folder / "errors.jsonl"


@dataclass(frozen=True)
class StatePaths:
    """The state folder."""

    root: Path

    @property
    def lock(self) -> Path:
        """Held with flock by the one server that owns the folder; names its pid and address."""
        return self.root / "lock"

    @property
    def experiments(self) -> Path:
        return self.root / "experiments.jsonl"

    @property
    def runs(self) -> Path:
        return self.root / "runs.jsonl"

    @property
    def keys(self) -> Path:
        return self.root / "keys.jsonl"

    @property
    def checkpoints(self) -> Path:
        return self.root / "checkpoints.jsonl"

    @property
    def deliveries(self) -> Path:
        return self.root / "deliveries.jsonl"

    @property
    def artifacts(self) -> Path:
        return self.root / "artifacts.jsonl"

    @property
    def datasets(self) -> Path:
        return self.root / "datasets.jsonl"

    @property
    def uploads(self) -> Path:
        return self.root / "uploads.jsonl"

    @property
    def train_configs(self) -> Path:
        return self.root / "train_configs.jsonl"

    @property
    def deployments(self) -> Path:
        return self.root / "deployments.jsonl"

    @property
    def uploads_in_parts(self) -> Path:
        return self.root / "uploads_in_parts.jsonl"

    @property
    def batches(self) -> Path:
        return self.root / "batches.jsonl"

    @property
    def webhook_secret(self) -> Path:
        """What deliveries are signed with; readable by the owner only."""
        return self.root / "webhook_secret"

    @property
    def journals(self) -> tuple[Path, ...]:
        """Every journal the server opens, in the order it opens them."""
        return (
            self.keys,
            self.experiments,
            self.runs,
            self.checkpoints,
            self.deliveries,
            self.artifacts,
            self.datasets,
            self.uploads,
            self.train_configs,
            self.deployments,
            self.uploads_in_parts,
            self.batches,
        )

    @property
    def watermarks(self) -> Path:
        """How far each journal had come."""
        return self.root / "journals.json"

    @property
    def server_log(self) -> Path:
        """What the server said on a terminal."""
        return self.root / "server.log"

    @property
    def runs_folder(self) -> Path:
        return self.root / "runs"

    def run(self, run_id: str) -> RunPaths:
        return RunPaths(self.runs_folder / run_id)

    @property
    def deployments_folder(self) -> Path:
        return self.root / "deployments"

    def deployment(self, deployment_id: str) -> DeploymentPaths:
        return DeploymentPaths(self.deployments_folder / deployment_id)

    @property
    def batches_folder(self) -> Path:
        return self.root / "batches"

    def batch(self, batch_id: str) -> BatchPaths:
        return BatchPaths(self.batches_folder / batch_id)

    @property
    def models(self) -> Path:
        return self.root / "models"

    @property
    def finetuned(self) -> Path:
        """Where the finetune door writes, unless a setting says otherwise."""
        return self.root / "finetuned"

    @property
    def downloads(self) -> Path:
        """Datasets fetched for built-in recipes, a folder for each request."""
        return self.root / "downloads"

    @property
    def uploads_folder(self) -> Path:
        """A folder for each upload, named by its id, with the bytes under a name made by the server."""
        return self.root / "uploads"

    @property
    def parts_folder(self) -> Path:
        """A folder for each upload in parts, named by its id, with the parts that are here; gone when it is over."""
        return self.root / "parts"

    @property
    def trash(self) -> Path:
        """Models that are being deleted, under names made by the server; emptied at a start."""
        return self.root / "trash"

    @property
    def train_configs_folder(self) -> Path:
        """The train configs of datasets and of the service, each under a name made by the server."""
        return self.root / "train_configs"

    @property
    def policies(self) -> Path:
        """De-identification policies of the operator, a YAML file each."""
        return self.root / "policies"

    @property
    def previews(self) -> Path:
        """Answers of the preview that are kept; may be deleted."""
        return self.root / "previews"

    def may_be_named(self, place: Path) -> bool:
        """Whether a request may name this path for reading; links in it have been followed. True for all outside of here.

        What users brought or made is theirs to name: uploads, downloads, models, the output of runs. Journals, keys, secrets,
        policies, and what the server writes down about runs are not.
        """
        root = self.root.resolve()
        if not place.is_relative_to(root):
            return True
        parts = place.relative_to(root).parts
        if parts[:1] == (self.runs_folder.name,):
            return parts[2:3] != () and parts[2] in _OF_A_RUN
        return parts[:1] != () and parts[0] in _OF_USERS

    def may_be_written(self, place: Path) -> bool:
        """Whether a request may have something written there; as ``may_be_named``."""
        root = self.root.resolve()
        return not place.is_relative_to(root) or place.relative_to(root).parts[:1] == (self.demo.name,)

    @property
    def demo(self) -> Path:
        """The data of ``tunesmith demo``."""
        return self.root / "demo"

    def create(self) -> None:
        """Make the folders that must exist before the server starts."""
        below = (self.runs_folder, self.models, self.uploads_folder, self.parts_folder, self.train_configs_folder)
        for folder in (self.root, *below, self.deployments_folder, self.batches_folder, self.trash):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
