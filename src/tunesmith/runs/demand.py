"""What a run leases: by its request when it is created, by its record when it is queued, and why that cannot be had here."""

from __future__ import annotations

from tunesmith.errors import InvalidInput
from tunesmith.recipes import Recipe
from tunesmith.records import Resources, Run, RunState
from tunesmith.runner import Capacity, Demand
from tunesmith.runs.live import LiveRuns


def demand_of(run: Run) -> Demand:
    """What a run on record leases."""
    gpus = run.gpus_needed if run.gpus_needed is not None else run.resources.count
    return Demand(gpus=gpus or 0, gpu_type=run.resources.gpu_type)


def demand_for(recipe: Recipe, wanted: Resources, capacity: Capacity) -> tuple[Demand, tuple[str, ...]]:
    """What a run of this recipe leases, and what to tell whoever asked for something else. Raises InvalidInput."""
    if wanted.count is not None and wanted.count < 0:
        raise InvalidInput("cannot be negative", where="resources.count", mend="0 asks for none")
    count = wanted.count
    if count is None:
        count = max(recipe.resources.gpus, 1) if wanted.gpu_type else recipe.resources.gpus
    if capacity.gpus or not count:
        if count == 0 and not recipe.resources.cpu:
            raise InvalidInput(f"recipe {recipe.name} needs a GPU", where="resources.count", mend="ask for 1")
        return Demand(gpus=count, gpu_type=wanted.gpu_type), ()
    if not recipe.resources.cpu:
        raise InvalidInput(
            f"recipe {recipe.name} needs a GPU and this machine has none", where="resources", mend="use another"
        )
    if not wanted.count and not wanted.gpu_type:
        return Demand(gpus=0), ()
    asked = f"{count} x {wanted.gpu_type or 'GPU'}"
    return Demand(gpus=0), (f"{asked} was asked for; this machine has no GPU, so the run uses the CPU",)


class RunWarnings:
    """What there is to say of a run that went otherwise than it was asked for."""

    def __init__(self, live: LiveRuns, capacity: Capacity) -> None:
        self._live = live
        self._capacity = capacity

    def of(self, run: Run) -> tuple[str, ...]:
        """What was noticed when it was created and in what it printed, and why it will not start where it is queued now."""
        progress = self._live.progress(run)
        noticed = (*run.warnings, *progress.warnings, *(told.text for told in progress.told_warnings))
        if run.state is not RunState.QUEUED:
            return noticed
        try:
            self._capacity.check(demand_of(run))
        except InvalidInput as error:
            return (*noticed, f"it cannot start here: it {error.message}; cancel it, or put the GPUs back")
        return noticed
