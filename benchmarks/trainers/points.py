"""A training as its log lines tell it, and how fast it is between the first of them and the last."""

import subprocess
import sys
import time
from dataclasses import dataclass

from trainers.task import BATCH


@dataclass(frozen=True)
class Point:
    """One log line."""

    step: int
    second: float
    """Of a clock that all points of a training share: this process's when the line arrives, or the trainer's own."""
    loss: float
    """The mean of the steps since the point before."""
    tokens: float
    """Read so far, without padding."""


@dataclass(frozen=True)
class Speed:
    samples_per_second: float
    """Of rows of mean length. Trainers read rows in orders of their own, and who meets the long ones in the first steps
    is not faster for that: what counts is the share of all tokens that was read between the points."""
    tokens_per_second: float
    losses: list

    def __str__(self):
        return f"{self.samples_per_second:6.2f} samples/s {self.tokens_per_second:6.0f} tokens/s"

    def describe_losses(self):
        return "loss at step " + ", ".join(f"{step}: {loss:.3f}" for step, loss in self.losses)


def speed_of(points):
    first, last = points[0], points[-1]
    seconds, tokens = last.second - first.second, last.tokens - first.tokens
    return Speed(
        samples_per_second=last.step * BATCH * tokens / last.tokens / seconds,
        tokens_per_second=tokens / seconds,
        losses=[(point.step, point.loss) for point in points],
    )


def watch(command, env, read):
    """Run a trainer; ``read`` makes (step, loss, tokens so far) of a line of its, or None."""
    points, lines = [], []
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        for line in process.stdout:
            lines.append(line)
            if found := read(line):
                step, loss, tokens = found
                points.append(Point(step, time.monotonic(), loss, tokens))
    if process.returncode or len(points) < 2:
        sys.exit(b"".join(lines[-40:]).decode(errors="replace") + f"\n{command[:4]} ended with {process.returncode}")
    return points
