"""Several processes for a test, as torchrun would start them, without importing torch in each: a
server that has imported it is forked. Whatever happens, they end."""

import contextlib
import io
import json
import multiprocessing
import os
import socket
import sys
import time
from pathlib import Path

PATIENCE = 150.0  # seconds until a test gives up: importing torch takes long on a busy machine

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["gammabeta", "gammabeta.cli"])


def started(work, count, folder, *arguments, patience=PATIENCE):
    """Call work(*arguments) in `count` processes. Returns, by rank: exit code, stderr, and the
    seconds from the first end to this one's."""
    folder.mkdir(parents=True, exist_ok=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [
        _CONTEXT.Process(target=_enter, args=(rank, count, port, str(folder), work, arguments))
        for rank in range(count)
    ]
    ended = {}
    try:
        for each in processes:
            each.start()
        until = time.monotonic() + patience
        while len(ended) < count and time.monotonic() < until:
            for rank, each in enumerate(processes):
                if rank not in ended and each.exitcode is not None:
                    ended[rank] = time.monotonic()
            time.sleep(0.02)
        assert len(ended) == count, f"only {sorted(ended)} of {count} processes ended in time"
    finally:
        for each in processes:
            if each.is_alive():
                each.kill()
            each.join()
    return [
        (each.exitcode, (folder / f"{rank}.err").read_text(), ended[rank] - min(ended.values()))
        for rank, each in enumerate(processes)
    ]


def _enter(rank, count, port, folder, work, arguments):
    import torch

    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(count), "LOCAL_RANK": str(rank)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GAMMABETA_OFFLINE": "1"}
    os.dup2(os.open(Path(folder, f"{rank}.err"), os.O_CREAT | os.O_WRONLY | os.O_TRUNC), 2)
    sys.exit(work(*arguments))


def command(*arguments):
    """The command line in this process; the exit code."""
    from gammabeta.cli import main

    with contextlib.redirect_stdout(io.StringIO()):
        return main([str(each) for each in arguments])


def flags(spec):
    """The flags of a spec that differs from the defaults."""
    given = []
    for name, value in spec.chosen().items():
        given += [f"--{name.replace('_', '-')}", str(value)]
    return given


def doubled(patch):
    """Let runs be in double precision, in which what is equal stays equal: in fp32 a rounding may
    open a ReLU. patch: as monkeypatch.setattr."""
    from gammabeta import build
    from gammabeta.engine.eager import EagerEngine

    made = build.make_network

    def make_network(*arguments):
        model, subset = made(*arguments)
        return model.double(), subset

    patch(build, "make_network", make_network)
    patch(EagerEngine, "_logits", lambda engine, images: engine.model(images.double()))


def trains(specs, runs, engine):
    """Train each of `specs`, in double precision."""
    from gammabeta import RunSpec, train

    doubled(setattr)
    for number, spec in enumerate(specs):
        os.environ["MASTER_PORT"] = str(int(os.environ["MASTER_PORT"]) + number)
        train(RunSpec.from_dict(json.loads(spec)), runs, engine=engine, device="cpu")


def dies(victim, step, how, arguments):
    """The command line; process `victim` is killed, or raises, at one of its steps."""
    from gammabeta.engine.eager import EagerEngine

    steps, taken = [], EagerEngine.step

    def counted(engine, *where):
        steps.append(where)
        if os.environ["RANK"] == str(victim) and len(steps) == step:
            if how == "raises":
                raise OSError("the disk with the images is gone")
            os.kill(os.getpid(), 9)
        taken(engine, *where)

    EagerEngine.step = counted
    return command(*arguments)
