"""``serve``: answers chats with a model, over HTTP on loopback. Started by the service for a deployment, or by hand:

python -m tunesmith_workers.programs.serve --model FOLDER --port 8100
"""

from __future__ import annotations

import argparse
import os
import socket
from typing import TYPE_CHECKING

from tunesmith_workers.process.events import emit, emit_message
from tunesmith_workers.process.faults import BadConfig, run_and_exit

if TYPE_CHECKING:  # imports torch
    from tunesmith_workers.engine.engine import Engine

_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_BACKLOG = 2048
_GRACE_SECONDS = 5


def main() -> None:
    """Load the model and serve it until SIGTERM."""
    arguments = _arguments()
    listener = _bound(arguments.host, arguments.port)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    engine = _engine(arguments)
    _serve(engine, listener)


def _arguments() -> argparse.Namespace:
    # Whole names only: a prefix would be another way to say what the service refuses.
    parser = argparse.ArgumentParser(
        prog="python -m tunesmith_workers.programs.serve", description=__doc__, allow_abbrev=False
    )
    parser.add_argument("--model", required=True, help="folder or hub id of a model, or an adapter's folder")
    parser.add_argument("--served-model-name", help="what requests call it (default: --model)")
    parser.add_argument("--adapter", action="append", default=[], metavar="NAME=FOLDER", help="serve an adapter, too")
    parser.add_argument("--host", default="127.0.0.1", choices=_LOOPBACK)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--dtype", default="auto", choices=["auto", "bfloat16", "float32"])
    parser.add_argument(
        "--max-model-len", type=_count, help="tokens of prompt and answer (default: all the model can read)"
    )
    parser.add_argument("--max-num-seqs", type=_count, default=32, help="answers that are computed together")
    parser.add_argument(
        "--max-queue", type=_count, default=256, help="answers that may wait; more are refused with 429"
    )
    parser.add_argument("--max-num-batched-tokens", type=_count, default=512, help="tokens of prompts in one step")
    parser.add_argument("--num-speculative-tokens", type=int, default=4, help="tokens that are guessed in one step")
    parser.add_argument("--accelerate", default="auto", choices=["auto", "off"], help="off: as transformers computes")
    return parser.parse_args()


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return number


def _bound(host: str, port: int) -> socket.socket:
    """The port, taken before the model is loaded; nobody is let in yet."""
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        raise BadConfig(
            f"port {port} cannot be used: {error.strerror}", where="--port", mend="choose another"
        ) from error
    return listener


def _engine(arguments: argparse.Namespace) -> Engine:
    # Seconds of imports, inside what reports faults.
    from tunesmith_workers.cpu import decoder_for  # noqa: PLC0415
    from tunesmith_workers.engine.engine import Engine  # noqa: PLC0415
    from tunesmith_workers.engine.loading import load  # noqa: PLC0415
    from tunesmith_workers.engine.running import Running  # noqa: PLC0415
    from tunesmith_workers.process.quiet import quiet  # noqa: PLC0415

    quiet()
    emit("progress", phase="loading_model")
    running = Running(most_waiting=arguments.max_queue)
    loaded = running.between_steps(
        lambda: load(
            arguments.model,
            dtype=arguments.dtype,
            slots=arguments.max_num_seqs,
            longest=arguments.max_model_len,
            accelerated=decoder_for if arguments.accelerate == "auto" else lambda *_: None,
        )
    )
    engine = Engine(
        loaded,
        arguments.served_model_name or arguments.model,
        running,
        prompt_tokens_per_step=arguments.max_num_batched_tokens,
        most_guessed=arguments.num_speculative_tokens,
    )
    for given in arguments.adapter:
        name, _, folder = given.partition("=")
        engine.add_adapter(name, folder)
    backend = loaded.backend
    emit_message(
        f"serving {arguments.model} as {', '.join(engine.names)}: {type(backend).__name__.lower()}, {backend.slots} answers "
        f"at once, {backend.longest} tokens each, {str(loaded.model.dtype).removeprefix('torch.')}"
    )
    return engine


def _serve(engine: Engine, listener: socket.socket) -> None:
    import uvicorn  # noqa: PLC0415  # only when there is something to serve

    from tunesmith_workers.engine.server import create_app  # noqa: PLC0415  # likewise

    listener.listen(_BACKLOG)
    config = uvicorn.Config(
        create_app(engine),
        loop="uvloop",
        http="httptools",
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=_GRACE_SECONDS,
        backlog=_BACKLOG,
    )
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    run_and_exit(main)
