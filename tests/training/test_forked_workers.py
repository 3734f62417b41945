"""Parts of a batch in processes of their own: the numbers of one process, and nobody left behind whatever happens."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
import transformers
from training_parts import COLOURS, SIZES, TokenLoss, Told

from tunesmith_workers.cpu.batch_parts import BatchParts
from tunesmith_workers.cpu.forked_worker import WorkerFailed
from tunesmith_workers.cpu.forked_workers import ForkedWorkers, Patience, forked_workers_for
from tunesmith_workers.examples.batches import concatenate, take
from tunesmith_workers.examples.rendering import Renderer
from tunesmith_workers.examples.rows import read_rows
from tunesmith_workers.process.faults import BadRows
from tunesmith_workers.process.stopping import StepDropped


@contextmanager
def workers_of(count, work, parameters, **options) -> Iterator[ForkedWorkers]:
    opened = ForkedWorkers(count, work, parameters, **options)
    try:
        yield opened
    finally:
        opened.close()


def weights(*values: float) -> torch.nn.Parameter:
    return torch.nn.Parameter(torch.tensor(values))


@pytest.fixture
def batch(tokenizer, write_rows):
    return concatenate(Renderer(tokenizer).render(read_rows(write_rows(COLOURS)))[:7])


def test_forked_workers_compute_what_one_process_computes(batch):
    """A batch in parts has the loss and gradients of the whole batch, every time the same to the last digit."""
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**SIZES))
    parameters = list(model.parameters())
    ours = TokenLoss(model)

    def work(part):
        total = ours(model, part).total
        return total.item(), torch.autograd.grad(total, parameters)

    whole, expected = work(batch)
    seen = []
    with workers_of(2, work, parameters) as both:
        for _ in range(3):
            model.zero_grad()
            assert sum(
                both.add_gradients([take(batch, slice(number, None, 2)) for number in range(2)])
            ) == pytest.approx(whole, rel=1e-5)
            seen.append([parameter.grad for parameter in parameters])
    for found, gradient in zip(seen[0], expected, strict=True):
        torch.testing.assert_close(found, gradient, rtol=1e-3, atol=1e-5)
    for again in seen[1:]:
        assert all(map(torch.equal, again, seen[0]))


def test_what_is_done_to_parameters_is_seen_by_workers():
    """An optimizer's step here counts for the next gradients there; gradients add up until they are taken away."""
    weight = weights(1.0, 2.0)
    with workers_of(2, lambda factor: (weight.sum().item(), [weight.detach() * factor]), [weight]) as both:
        assert both.add_gradients([1.0, 10.0]) == [3.0, 3.0]
        assert weight.grad.tolist() == [11.0, 22.0]
        assert both.add_gradients([1.0]) == [3.0]
        assert weight.grad.tolist() == [12.0, 24.0]
        torch.optim.SGD([weight], lr=1.0).step()
        weight.grad = None
        assert both.add_gradients([1.0]) == [weight.sum().item()]
        assert weight.grad.tolist() == weight.tolist() == [-11.0, -22.0]


def raises(error: str):
    if error == "ours":
        raise BadRows("no", where="here", mend="so")
    if error == "torch's":
        return 0, [torch.zeros(1) @ torch.zeros(2)]
    raise type("Local", (Exception,), {})("cannot be sent")


def test_an_error_in_a_worker_is_raised_here():
    """With all it says, also one that cannot be sent as it is; the worker continues."""
    with workers_of(1, raises, [weights(1.0)]) as one:
        with pytest.raises(BadRows, match="no") as refused:
            one.add_gradients(["ours"])
        assert (refused.value.where, refused.value.mend) == ("here", "so")
        with pytest.raises(RuntimeError, match="inconsistent tensor size"):
            one.add_gradients(["torch's"])
        with pytest.raises(RuntimeError, match="Local: cannot be sent"):
            one.add_gradients(["another's"])


class Odd(Exception):
    """Its text is not what it is made of, so pickle cannot make it anew."""

    def __init__(self, shape, expected):
        super().__init__(f"{shape} where {expected} was expected")


def somewhere_in_the_model(request):
    if request == "odd":
        raise Odd("(3, 4)", "(4, 3)")
    raise BadRows("no", where="here", mend="so") if request == "ours" else IndexError("index 5 is out of range")


@pytest.mark.parametrize(
    ("request_", "kind", "text"),
    [
        ("index", IndexError, "index 5 is out of range"),
        ("odd", RuntimeError, "Odd: (3, 4) where (4, 3) was expected"),
        ("ours", BadRows, "no"),
    ],
)
def test_an_error_in_a_worker_says_where_it_was_raised(request_, kind, text):
    """The traceback of the worker comes along, and an error that cannot be rebuilt here is told by its name and text."""
    with workers_of(1, somewhere_in_the_model, [weights(1.0)]) as one, pytest.raises(kind) as raised:
        one.add_gradients([request_])
    assert str(raised.value) == text
    told = "".join(traceback.format_exception(raised.value))
    assert "in somewhere_in_the_model" in told
    assert "in a forked worker" in told


def test_an_error_leaves_no_answer_behind():
    """What another worker answered to the same batch is not taken for the answer to the next."""

    def work(request):
        if request == "fails":
            raise BadRows("no", where="here", mend="so")
        return request, [torch.ones(1)]

    weight = weights(0.0)
    with workers_of(2, work, [weight]) as both:
        with pytest.raises(BadRows):
            both.add_gradients(["fails", "old"])
        assert weight.grad is None
        assert both.add_gradients(["new", "newer"]) == ["new", "newer"]


def test_a_parameter_that_a_part_does_not_touch_has_no_gradient_from_it():
    """As in one process: none at all where no part touches it, and only that of the others where one does not."""
    first, second, third = weights(1.0), weights(1.0), weights(1.0)

    def work(both):
        loss = first.sum() * 2 + (second.sum() * 3 if both else 0)
        return None, torch.autograd.grad(loss, [first, second, third], allow_unused=True)

    with workers_of(2, work, [first, second, third]) as two:
        two.add_gradients([True, False])
        assert (first.grad.tolist(), second.grad.tolist(), third.grad) == ([4.0], [3.0], None)


def dies(_):
    os.kill(os.getpid(), signal.SIGKILL)


def hangs(_):
    while True:
        time.sleep(60)


@pytest.mark.parametrize(("work", "reason"), [(dies, "ended by signal 9"), (hangs, "did not answer within 1 s")])
def test_a_worker_that_fails_is_told(work, reason):
    """One that the kernel kills when memory runs out, and one that never answers. No gradient was added."""
    weight = weights(1.0)
    with workers_of(2, work, [weight], patience=Patience(least=1.0)) as both, pytest.raises(WorkerFailed, match=reason):
        both.add_gradients([1, 2])
    assert weight.grad is None


@pytest.mark.parametrize("failure", [dies, hangs])
def test_a_step_in_which_a_worker_fails_is_computed_again(failure, capfdbinary):
    """Here, from its beginning: the gradients of earlier batches stand, and those of this one are added once."""
    weight, here = weights(3.0), os.getpid()

    def work(request):
        if request == "bad" and os.getpid() != here:
            failure(request)
        return request, [weight.detach() * 2]

    parts = BatchParts(2, work, [weight], patience=Patience(least=1.0), stop_asked=lambda: False)
    try:
        assert parts.add_gradients(["fine", "fine"], [1, 1]) == ["fine", "fine"]
        assert weight.grad.tolist() == [12.0]
        assert parts.add_gradients(["fine", "bad"], [1, 1]) == ["fine", "bad"]
        assert weight.grad.tolist() == [24.0]
        assert parts.add_gradients(["bad"], [1]) == ["bad"]
        assert weight.grad.tolist() == [30.0]
    finally:
        parts.close()
    [warned] = [fields for fields in Told(capfdbinary.readouterr().out).of("message") if fields["level"] == "warning"]
    assert "its step is computed again" in warned["text"]
    assert warned["where"] == "training.accelerate"


def test_a_request_to_stop_does_not_wait_for_an_answer_that_does_not_come():
    """The deadline of an answer may be long; the step is given up, so that there is time for the checkpoint."""
    asked: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: asked.append(number))
    parts = BatchParts(1, hangs, [weights(1.0)], patience=Patience(least=3600.0), stop_asked=lambda: bool(asked))
    try:
        threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGTERM)).start()
        with pytest.raises(StepDropped):
            parts.add_gradients([1], [1])
        assert asked == [signal.SIGTERM]
    finally:
        parts.close()
        signal.signal(signal.SIGTERM, before)


def test_the_deadline_follows_what_was_measured():
    """Ten times the slowest of late for as many tokens, and never less than the least."""
    patience = Patience(0.5, least=60.0)
    assert patience.limit(4) == 60.0
    assert patience.limit(1000) == 5000.0
    for _ in range(16):
        patience.took(20.0, 1000)
    assert patience.limit(1000) == 200.0
    assert patience.limit(10) == 60.0


MANY_THREADS = """
import torch
from tunesmith_workers.cpu.forked_workers import ForkedWorkers
torch.set_num_threads(8)
weight, x = torch.nn.Parameter(torch.ones(512, 512)), torch.ones(1024, 512)
def work(factor):
    loss = (x @ weight).tanh().sum() * factor
    return (loss.item(), torch.get_num_threads()), torch.autograd.grad(loss, [weight])
work(1.0)
pool = ForkedWorkers(4, work, [weight])
print(pool.add_gradients([1.0, 2.0, 3.0, 4.0]))
pool.close()
"""


def test_workers_compute_whatever_the_number_of_threads():
    """OpenMP's pool of threads does not survive a fork: each worker has one thread, and none waits for another."""
    command = [sys.executable, "-c", MANY_THREADS]
    found = subprocess.run(command, capture_output=True, text=True, check=False, timeout=200)
    whole = 1024.0 * 512
    assert found.stdout == f"{[(whole * factor, 1) for factor in (1.0, 2.0, 3.0, 4.0)]}\n", found.stderr


def test_workers_leave_signals_to_who_started_them():
    """A request to stop that goes to all processes of a run lets them finish the step."""

    def work(_):
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        return "finished", [torch.ones(1)]

    with workers_of(1, work, [weights(1.0)]) as one:
        assert one.add_gradients([1]) == ["finished"]


PROGRAM = """
import os, sys, time, torch
from tunesmith_workers.cpu.forked_workers import ForkedWorkers
weight = torch.nn.Parameter(torch.ones(1))
def work(request):
    sys.stdout.write(f"{os.getpid()}\\n")
    sys.stdout.flush()
    time.sleep(600)
pool = ForkedWorkers(2, work, [weight])
if sys.argv[1] == "leaves":
    for worker in pool._workers:
        worker.send(None)
    for worker in pool._workers:
        sys.stdin.readline()
    sys.exit(3)
pool.add_gradients([None, None])
"""


@pytest.mark.parametrize("how", ["leaves", "is killed"])
def test_no_worker_outlives_who_started_it(how):
    """Not in the middle of a long step, whether the process leaves by itself or is killed with -9."""
    command = [sys.executable, "-c", PROGRAM, how]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        working = [int(process.stdout.readline()) for _ in range(2)]
        assert all(Path(f"/proc/{pid}").exists() for pid in working)
        if how == "leaves":
            process.communicate("go\ngo\n", timeout=60)
            assert process.returncode == 3
        else:
            process.kill()
            process.wait()
    deadline = time.monotonic() + 60
    while any(alive(pid) for pid in working):
        assert time.monotonic() < deadline


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


NO_MEMORY = """
import multiprocessing, resource, torch
from pathlib import Path
from tunesmith_workers.cpu.forked_workers import ForkedWorkers
weight = torch.nn.Parameter(torch.ones(20_000_000))
size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
# Room for the weight and for the gradients of one worker, and not of two.
resource.setrlimit(resource.RLIMIT_AS, (size + 120_000_000, resource.RLIM_INFINITY))
try:
    ForkedWorkers(2, lambda request: (request, [weight]), [weight])
except OSError as error:
    print(error, multiprocessing.active_children(), weight.sum().item())
"""


def test_where_there_is_no_room_for_workers_none_is_left():
    """It is an error that can be lived with, and the parameters are what they were."""
    finished = subprocess.run(
        [sys.executable, "-c", NO_MEMORY], capture_output=True, text=True, check=True, timeout=200
    )
    assert finished.stdout == "[Errno 12] Cannot allocate memory [] 20000000.0\n", finished.stderr


@pytest.fixture
def threads():
    """Sets the number of computing threads, and puts it back."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def test_a_model_with_dropout_gets_no_workers(threads):
    """ForkedWorkers would draw the same random numbers, or others than one process."""
    threads(2)
    config = transformers.LlamaConfig(**SIZES)
    assert forked_workers_for(transformers.LlamaForCausalLM(config), rows=8) == 2
    config = transformers.LlamaConfig(**SIZES, attention_dropout=0.5)
    assert forked_workers_for(transformers.LlamaForCausalLM(config), rows=8) is None


@pytest.mark.parametrize(
    ("cores", "rows", "workers"),
    [(1, 8, None), (2, 8, 2), (4, 8, 4), (7, 8, 7), (8, 8, 8), (16, 8, 8), (32, 8, None), (8, 1, None), (8, 2, None)],
)
def test_there_are_as_many_workers_as_threads_and_rows_allow(threads, cores, rows, workers):
    """Each has a thread and a row; where most threads would be idle, they compute together in one process."""
    threads(cores)
    assert forked_workers_for(transformers.LlamaForCausalLM(transformers.LlamaConfig(**SIZES)), rows) == workers
