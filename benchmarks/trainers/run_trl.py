"""SFTTrainer with its defaults, in a process of its own: ``python run_trl.py SETTINGS``, which are JSON from ``rivals``.

Imports nothing of ours, because its interpreter may be one that has only TRL. The last line printed is a list of points.
"""

import json
import sys
import time

import peft
import torch
import transformers
import trl
from datasets import load_dataset

settings = json.loads(sys.argv[1])
points = []


class Clock(transformers.TrainerCallback):
    def on_log(self, args, state, control, logs=None, **_):  # noqa: ARG002  # the signature of a callback
        if "loss" in logs:
            points.append((state.global_step, time.monotonic(), float(logs["loss"]), float(logs["num_tokens"])))


adapter = settings["lora"] and peft.LoraConfig(task_type="CAUSAL_LM", target_modules="all-linear", **settings["lora"])
config = trl.SFTConfig(
    output_dir=settings["folder"] + "/trl",
    per_device_train_batch_size=settings["batch"],
    max_steps=settings["steps"],
    learning_rate=settings["learning_rate"],
    lr_scheduler_type="linear",
    warmup_steps=0,
    logging_steps=settings["every"],
    seed=settings["seed"],
    report_to=[],
    use_cpu=not torch.cuda.is_available(),  # its default precision is refused on a CPU that is not chosen
)
trl.SFTTrainer(
    model=settings["model"],
    args=config,
    train_dataset=load_dataset("json", data_files=settings["rows"], split="train"),
    peft_config=adapter,
    callbacks=[Clock()],
).train()
print(json.dumps(points))
