"""Compile the Triton kernels that gpu_pieces.py will launch, ahead of time and side by side: alone,
one core would be at it for minutes. Needs no GPU.

The engines run on the CPU, over the programs of a GPU, in which a launch compiles the kernel
instead. What they compute is rubbish and their launches are the real ones. The kernels end in
Triton's cache on disk, which all processes share.

    python benchmarks/gpu_compile.py JOB.json      one job; gpu_pieces.py starts these
"""

# ruff: noqa: E402  (the root comes first)

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

import torch

from gammabeta.engine.batches import _EVALUATION_PIXELS

THREADS = 3  # that compile in one process: Python's part of it is done one at a time


class NoDriver:
    """As much of a driver as the compiler asks."""

    def __init__(self, capability: int) -> None:
        self.capability = capability

    def get_current_target(self) -> Any:
        from triton.backends.compiler import GPUTarget

        return GPUTarget("cuda", self.capability, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


def capability() -> int:
    """Of the first GPU, such as 90, without a CUDA context; an H100's where none is."""
    command = ["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        return int(found.split()[0].replace(".", ""))
    except (OSError, subprocess.CalledProcessError, IndexError, ValueError):
        return 90


@contextlib.contextmanager
def compiling(target: int) -> Iterator[set[str]]:
    """In here the engines on the CPU compile a GPU's kernels. The kernels' keys, at the end."""
    import triton

    from gammabeta import passes
    from gammabeta.engine import fused
    from gammabeta.fused.triton_program import TritonProgram
    from gammabeta.passes import on_gpu

    made: list[Any] = []

    class Compiled(TritonProgram):
        """Compiles each kernel instead of running it."""

        def _launch(self, kernel: Any, grid: Any, warps: int, **arguments: Any) -> None:
            made.append(
                kernel.run(grid=grid, warmup=True, num_warps=warps, num_stages=1, **arguments)
            )

    def launch(kernel: Any, grid: Any, **arguments: Any) -> None:
        made.append(kernel.run(grid=grid, warmup=True, num_warps=4, **arguments))

    triton.runtime.driver.set_active(NoDriver(target))
    before = fused._program_class, passes._for, on_gpu._launch, on_gpu.DEVICE
    fused._program_class = lambda device: Compiled
    passes._for, on_gpu._launch, on_gpu.DEVICE = lambda z: on_gpu, launch, "cpu"
    found: set[str] = set()
    try:
        with ThreadPoolExecutor(THREADS) as pool, triton.AsyncCompileMode(pool):
            yield found
        for each in made:
            found.add((each.result() if hasattr(each, "result") else each).hash)
    finally:
        fused._program_class, passes._for, on_gpu._launch, on_gpu.DEVICE = before


def at_once(images: int) -> set[int]:
    """The sizes of the batches in which a GPU evaluates a test set of so many 32 x 32 images."""
    size = _EVALUATION_PIXELS["cuda"] // 32**2
    return {min(size, images - start) for start in range(0, images, size)}


def one(job: dict[str, Any]) -> int:
    """The kernels of one job, a check or members of gpu_pieces.py: how many there are."""
    import gpu_pieces

    torch.set_num_threads(1)
    cpu = torch.device("cpu")
    with compiling(job["capability"]) as kernels:
        if job["what"] == "check":
            case = gpu_pieces.Check(**job["case"])
            engines = gpu_pieces.engines_of(job["engine"], case, job["precision"], cpu)
            gpu_pieces.epochs(engines, case, range(1))
            if job["engine"] == "fused":
                program = engines[0].team.program
                for count in sorted(set().union(*map(at_once, job["tested"]))):
                    program.logits(torch.zeros(1, count, 32, 32, 3, dtype=program.dtype))
        else:
            from gammabeta.bench.case import Case
            from gammabeta.bench.members import KINDS, TOGETHER, teams

            case = Case(job["model"], job["trainable"], job["precision"], job["batch"], cpu)
            teams(case, KINDS[job["kind"]], only=[TOGETHER])[TOGETHER].step(1)
    return len(kernels)


def in_parallel(jobs: Sequence[dict[str, Any]], folder: Path, seconds: float) -> dict[str, Any]:
    """All jobs, each in a process of its own, most wanted first. What is not done in time stays
    undone: whoever needs those kernels compiles them."""
    started = time.monotonic()
    target = capability()

    def work(number: int) -> dict[str, Any]:
        job = {**jobs[number], "capability": target}
        row = {key: value for key, value in jobs[number].items() if key != "tested"}
        left, began = started + seconds - time.monotonic(), time.monotonic()
        if left <= 0:
            return row | {"error": "no time was left"}
        path = folder / f"job-{number}.json"
        path.write_text(json.dumps(job))
        command = [sys.executable, str(Path(__file__)), str(path)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=left)
        except subprocess.TimeoutExpired:
            return row | {"error": "no time was left"}
        row["seconds"] = round(time.monotonic() - began, 1)
        if done.returncode:
            return row | {"error": (done.stderr.strip().splitlines() or ["no message"])[-1][:300]}
        return row | {"kernels": int(done.stdout)}

    side_by_side = max(1, (os.cpu_count() or 1) // 2)
    with ThreadPoolExecutor(side_by_side) as pool:
        return {
            "capability": target,
            "at_once": side_by_side,
            "rows": list(pool.map(work, range(len(jobs)))),
        }


if __name__ == "__main__":
    print(one(json.loads(Path(sys.argv[1]).read_text())))
