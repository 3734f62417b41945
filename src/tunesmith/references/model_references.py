"""What a model reference stands for: an alias, a run, a checkpoint, a deployment, a pulled model, a path, a hub id.

Nothing is loaded or downloaded here. Folders are looked at, so call it from a thread where the disk may be slow.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec

from tunesmith.errors import Forbidden, MissingReference
from tunesmith.paths import StatePaths
from tunesmith.records import Checkpoint, Deployment, RunState
from tunesmith.references.fine_tuned import FineTuned, read_fine_tuned
from tunesmith.references.model_folders import ADAPTER_CONFIG, AdapterConfig, adapter_config_in, shape_of
from tunesmith.references.models import (
    HUB_ID,
    MODELSCOPE,
    ModelNames,
    Runs,
    is_plain,
    is_pull_of,
    looks_like_path,
)
from tunesmith.references.openai_names import DEFAULT_ALIASES
from tunesmith.references.paths import NamedPaths, is_file, is_folder, shown
from tunesmith.references.resolved import Located, ModelKind, ResolvedAdapter, ResolvedModel


class ModelReferences(NamedPaths):
    """Resolves model references."""

    def __init__(
        self,
        *,
        roots: Sequence[Path],
        aliases: Mapping[str, str],
        paths: StatePaths,
        book: Runs,
        checkpoint: Callable[[str], Checkpoint | None],
        checkpoint_at: Callable[[str, int], Checkpoint | None] = lambda *_: None,
        deployment: Callable[[str], Deployment | None] = lambda _: None,
        has_modelscope: Callable[[], bool] = lambda: importlib.util.find_spec("modelscope") is not None,
    ) -> None:
        super().__init__(roots, paths)
        self.names = ModelNames(aliases, paths, book)
        self._aliases = aliases
        self._book = book
        self._checkpoint = checkpoint
        self._checkpoint_at = checkpoint_at
        self._deployment = deployment
        self._has_modelscope = has_modelscope

    def model(self, reference: str) -> str:
        """A folder's path, or a hub id that the worker will try to fetch. Whether that holds a model is not looked at.

        Raises:
            MissingReference: nothing goes by that name; the message lists what there is.
            Forbidden: a path outside the allowed roots.
        """
        return self._locate(reference, "model").path

    def resolve(self, reference: str, where: str = "model") -> ResolvedModel:
        """What it stands for, with the base of an adapter. ``where`` is the field that has it.

        Raises:
            MissingReference: as ``model``; or what is there is no model, or an adapter without its base.
            Forbidden: as ``model``; or an adapter names a base outside the allowed roots.
        """
        found = self._locate(reference, where)
        config = None if _is_of_hub(found) else self._adapter_config(found, where)
        base = self._base(config, where) if config is not None else None
        told = f"an adapter for {base}, {found.explanation}" if base is not None else found.explanation
        return ResolvedModel(
            reference=reference,
            kind=found.kind,
            alias_of=found.alias_of,
            path=found.path,
            base=base,
            rank=config.rank if config is not None else None,
            run_id=found.run_id,
            adapter=base is not None,
            explanation=f"It is {told}.",
        )

    def holding(self, reference: str, where: str = "model") -> Located:
        """Where the model or the adapter is that it stands for, whether or not the base of an adapter is there.

        Raises:
            MissingReference: nothing goes by that name, or what is there is no model.
            Forbidden: a path outside the allowed roots.
        """
        found = self._locate(reference, where)
        if not _is_of_hub(found):
            self._adapter_config(found, where)
        return found

    def adapter(self, reference: str, where: str = "model") -> ResolvedAdapter | None:
        """The adapter that it stands for. None where there is no sign of one; what is there instead is not looked at.

        Raises:
            MissingReference: as ``resolve``.
            Forbidden: as ``resolve``.
        """
        found = self._locate(reference, where)
        if _is_of_hub(found) or not is_file(Path(found.path) / ADAPTER_CONFIG):
            return None
        config = self._adapter_config(found, where)
        if config is None:
            return None
        base = self._base(config, where)
        return ResolvedAdapter(path=found.path, base=base, shape=shape_of(config, Path(found.path)))

    def _adapter_config(self, found: Located, where: str) -> AdapterConfig | None:
        folder = Path(found.path)
        if found.kind in (ModelKind.RUN, ModelKind.CHECKPOINT):
            folder = self._readable(found.path, where)  # a run may have reported any path, or put a link in its place
        return adapter_config_in(folder, where, self._readable)

    def _locate(self, reference: str, where: str) -> Located:
        alias_of = self._aliases.get(reference) or self._of_openai(reference)
        return msgspec.structs.replace(self._found(alias_of or reference, where), alias_of=alias_of)

    def _of_openai(self, name: str) -> str | None:
        """What one of OpenAI's names stands for, unless something here is called that."""
        model = DEFAULT_ALIASES.get(name)
        if model is None or self.names.other_meaning(name) is not None:
            return None
        return None if self._checkpoint(name) is not None or self._deployment(name) is not None else model

    def _found(self, reference: str, where: str) -> Located:
        fine_tuned = read_fine_tuned(reference)
        if fine_tuned is not None and fine_tuned.run_id in self._book:
            return self._fine_tuned(fine_tuned, where)
        if reference in self._book:
            return self._of_run(reference, where)
        checkpoint = self._checkpoint(reference)
        if checkpoint is not None:
            return self._of_checkpoint(checkpoint, where)
        deployment = self._deployment(reference)
        if deployment is not None:
            told = f"what deployment {deployment.id} serves"
            return Located(kind=ModelKind.DEPLOYMENT, path=deployment.model, explanation=told)
        kind, path, told = self._unrecorded(reference, where)
        return Located(kind=kind, path=path, explanation=told)

    def _fine_tuned(self, found: FineTuned, where: str) -> Located:
        if found.step is None:
            return self._of_run(found.run_id, where)
        checkpoint = self._checkpoint_at(found.run_id, found.step)
        if checkpoint is None:
            raise MissingReference(
                f"run {found.run_id} has no checkpoint at step {found.step}",
                where=where,
                mend="name one of those that are listed",
            )
        return self._of_checkpoint(checkpoint, where)

    def _of_run(self, run_id: str, where: str) -> Located:
        path, told = self._output_of(run_id, where), f"the model that run {run_id} made"
        return Located(kind=ModelKind.RUN, path=path, explanation=told, run_id=run_id)

    def _of_checkpoint(self, found: Checkpoint, where: str) -> Located:
        path = self._still_there(found, where)
        told = f"checkpoint {found.id} of run {found.run_id}, at step {found.step}"
        return Located(kind=ModelKind.CHECKPOINT, path=path, explanation=told, run_id=found.run_id)

    def _unrecorded(self, reference: str, where: str) -> tuple[ModelKind, str, str]:
        pulled = self._paths.models / reference
        if is_plain(reference) and is_folder(pulled):
            return ModelKind.PULLED, str(pulled.resolve()), "a model below state/models"
        if looks_like_path(reference) or (not _is_of_modelscope(reference) and is_folder(Path(reference))):
            return ModelKind.PATH, str(self.existing(reference, where)), "a folder below the allowed roots"
        if _is_of_modelscope(reference):
            return ModelKind.HUB, self._of_modelscope(reference, where), "a model of the ModelScope hub"
        by_name = self._paths.models / reference.rpartition("/")[2]
        if HUB_ID.fullmatch(reference) and is_pull_of(by_name, reference):
            return ModelKind.PULLED, str(by_name.resolve()), f"{reference} as it was pulled to state/models"
        if HUB_ID.fullmatch(reference):
            return ModelKind.HUB, reference, "a model of the Hugging Face hub, which is fetched when it is needed"
        raise MissingReference(f"there is no model {shown(reference)!r}", where=where, mend=self.names.mend(reference))

    def _of_modelscope(self, reference: str, where: str) -> str:
        if not HUB_ID.fullmatch(reference.removeprefix(MODELSCOPE)):
            raise MissingReference(
                f"{shown(reference)!r} names no model of ModelScope", where=where, mend=f"write {MODELSCOPE}owner/model"
            )
        if not self._has_modelscope():
            raise MissingReference(
                f"{shown(reference)!r} needs the package modelscope, which is not installed",
                where=where,
                mend="install the `modelscope` extra: pip install 'tunesmith[modelscope]'",
            )
        return reference

    def _base(self, config: AdapterConfig, where: str) -> str:
        """The base that an adapter names: not by the names of records, which could mean anything by now."""
        named = config.base_model_name_or_path
        if looks_like_path(named):
            base = str(self._there(self._base_folder(named, where), named, where))
        else:
            base = self._unrecorded_base(named, where)
        if _is_hub_id(base):
            return base
        if adapter_config_in(Path(base), where, self._readable) is not None:
            raise MissingReference(
                f"the base of the adapter, {shown(named)!r}, is an adapter itself",
                where=where,
                mend="merge that one into its base first",
            )
        return base

    def _base_folder(self, named: str, where: str) -> Path:
        try:
            return self._readable(named, where)
        except Forbidden:
            # The operator may keep models elsewhere, with links to them below state/models.
            for name in self.names.pulled_models():
                target = (self._paths.models / name).resolve()
                if str(target) == named:
                    return target
            raise

    def _unrecorded_base(self, named: str, where: str) -> str:
        try:
            return self._unrecorded(named, where)[1]
        except MissingReference as error:
            raise MissingReference(
                f"the base of the adapter is not there: {error.message}", where=where, mend=error.mend
            ) from error

    def _there(self, path: Path, named: str, where: str) -> Path:
        if not path.exists():
            raise MissingReference(
                f"the base of the adapter is not there: {shown(named)!r} does not exist",
                where=where,
                mend="put it back, or set base_model_name_or_path in adapter_config.json to where it is",
            )
        return path

    def _readable(self, name: str, where: str) -> Path:
        """A path inside a model: below the allowed roots, or what a request may name of the state folder in any case."""
        return self.allowed(name, where, also=self._paths.root.resolve())

    def _output_of(self, run_id: str, where: str) -> str:
        run = self._book.get(run_id)
        path = run.progress.output_path
        if run.state is not RunState.SUCCEEDED or path is None:
            raise MissingReference(
                f"run {run_id} is {run.state} and has no model", where=where, mend="name a run that succeeded"
            )
        if not is_folder(Path(path)):
            raise MissingReference(
                f"the model of run {run_id} is not at {path} any more", where=where, mend="train it again"
            )
        return path

    def _still_there(self, checkpoint: Checkpoint, where: str) -> str:
        if checkpoint.removed_at is not None or not is_folder(Path(checkpoint.path)):
            raise MissingReference(
                f"checkpoint {checkpoint.id} is not at {checkpoint.path} any more",
                where=where,
                mend="mark checkpoints that must be kept",
            )
        return checkpoint.path


def _is_of_modelscope(reference: str) -> bool:
    return reference.startswith(MODELSCOPE)


def _is_of_hub(found: Located) -> bool:
    return found.kind is ModelKind.HUB or (found.kind is ModelKind.DEPLOYMENT and _is_hub_id(found.path))


def _is_hub_id(path: str) -> bool:
    """Whether what was resolved is no folder: folders are absolute by then."""
    return not path.startswith("/")
