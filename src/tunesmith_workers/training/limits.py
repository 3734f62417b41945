"""What does not fit into memory or onto the disk is refused, with the nearest setting that does fit."""

from __future__ import annotations

from tunesmith_workers.process.faults import BadConfig
from tunesmith_workers.training.plan import Plan, gib

SAFE_SHARE = 0.92
"""Of the free memory: what a step takes varies a little."""


def refuse_memory(plan: Plan, free: int, per_row: int, fixed: int) -> None:
    """Make sure that a batch fits, from what each row takes and what is taken once. Raises BadConfig."""
    room = int(free * SAFE_SHARE) - fixed
    if per_row * plan.rows <= room:
        return
    need = f"a batch of {plan.rows} of the longest rows needs {gib(per_row * plan.rows + fixed)}, {gib(free)} are free"
    raise too_much(plan, max(0, room) // max(1, per_row), need)


def too_much(plan: Plan, fitting: int, text: str) -> BadConfig:
    """The refusal of a batch of which only ``fitting`` rows fit into memory."""
    if fitting < 1:
        mend = "set training.gradient_checkpointing to true or lower data.max_length; not even one row fits"
    else:
        accumulation = plan.accumulation * -(-plan.rows // fitting)
        mend = (
            f"set training.per_device_train_batch_size to {fitting}, and gradient_accumulation_steps to {accumulation} "
            "for the same effective batch"
        )
    return BadConfig(text, where="training.per_device_train_batch_size", mend=mend)


def refuse_disk(plan: Plan, checkpoint: int, free: int) -> None:
    """Make sure that all checkpoints of so many bytes fit. Raises BadConfig."""
    needed = checkpoint * plan.checkpoints
    if needed <= free:
        return
    fitting = free // max(1, checkpoint) - 1
    mend = f"set checkpoint.save_total_limit to {fitting}" if fitting >= 1 else "free some space; not even two fit"
    raise BadConfig(
        f"{plan.checkpoints} checkpoints of {gib(checkpoint)} need {gib(needed)}, {gib(free)} are free",
        where="checkpoint.save_total_limit",
        mend=mend,
    )
