"""How much of what this machine can multiply a training uses.

Counted are the products with weights, at two operations for each number of a weight and each token that meets it: 2
forward, 2 for the gradient of what comes in, and 2 for the gradient of a weight that is trained. That is 6 for each
trained number and 4 for each frozen one. The output layer counts at the positions whose next token is trained only, even
where a trainer computes it everywhere. Attention between tokens, norms, the optimizer and padding do not count: they are
what the rest of the time goes into. A beginning that all rows share is read in full by the rivals; our recipes compute
it once for each part of a batch, and it is counted once for a batch, so that their share is rather too low than too high.
"""

import time
from itertools import takewhile

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from trainers.task import BATCH, RANK

FORWARD = FOR_INPUTS = FOR_WEIGHTS = 2
SHAPES = ((1024, 1024, 1024), (2048, 2048, 2048), (4096, 4096, 4096), (2048, 576, 1536), (4096, 1536, 576))
"""Rows, inputs and outputs: square ones, which libraries are tuned for, and those of a small model's layers."""
SECONDS_FOR_A_SHAPE = 1.5


def machine_rate():
    """The most bfloat16 operations a second that ``torch.matmul`` does here, with all threads."""
    fastest = 0.0
    for rows, inputs, outputs in SHAPES:
        left = torch.randn(rows, inputs).bfloat16()
        right = torch.randn(inputs, outputs).bfloat16()
        ends = time.perf_counter() + SECONDS_FOR_A_SHAPE
        while (began := time.perf_counter()) < ends:
            torch.matmul(left, right)
            fastest = max(fastest, 2 * rows * inputs * outputs / (time.perf_counter() - began))
    return fastest


class Reading:
    """Tokens of rows as the model's chat template renders them, on average."""

    def __init__(self, rows, tokenizer):
        whole = [_tokens(row["messages"], tokenizer) for row in rows]
        prompts = [_tokens(row["messages"][:-1], tokenizer, add_generation_prompt=True) for row in rows]
        self.lengths = sorted(map(len, whole))
        self.rows = len(rows)
        self.tokens = sum(self.lengths) / self.rows
        self.trained = self.tokens - sum(map(len, prompts)) / self.rows
        """Those of answers."""
        self.shared = sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, zip(*whole, strict=False)))
        """How many all rows begin with."""

    def __str__(self):
        return (
            f"{self.rows} rows of {self.lengths[0]} to {self.lengths[-1]} tokens, {self.tokens:.0f} on average, of which "
            f"{self.trained:.0f} are the answer's; all begin with the same {self.shared}"
        )


def _tokens(messages, tokenizer, **settings):
    rendered = tokenizer.apply_chat_template(messages, tokenize=False, **settings)
    return tokenizer(rendered, add_special_tokens=False).input_ids


def training_flops(model, reading, method, *, everywhere, shared_once):
    """Operations for a row, on average. ``everywhere``: all tokens are trained; ``shared_once``: see above."""
    with torch.device("meta"):
        built = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(model))
    head = built.get_output_embeddings()
    layers = [module for module in built.modules() if isinstance(module, torch.nn.Linear) and module is not head]
    weights = sum(layer.weight.numel() for layer in layers)
    trained = reading.tokens - 1 if everywhere else reading.trained
    read = reading.tokens - (reading.shared * (1 - 1 / BATCH) if shared_once else 0)
    on_a_trained = FORWARD + FOR_INPUTS + FOR_WEIGHTS
    if method == "sft":
        return on_a_trained * (weights * read + head.weight.numel() * trained)
    adapter = sum(RANK * (layer.in_features + layer.out_features) for layer in layers)
    on_a_frozen = FORWARD + FOR_INPUTS
    return on_a_frozen * (weights * read + head.weight.numel() * trained) + on_a_trained * adapter * read
