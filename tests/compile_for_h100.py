"""Compile the Triton kernels for an H100, in bf16, on a machine that need not have one: the passes,
and all of a training step and an evaluation of ResNet-14. Print a line for each: what it uses of
registers and memory.

The tests run it in a process of its own, where triton is not the interpreter.
"""

import re
import subprocess
import tempfile

import torch
import triton
from fused_networks import networks, program_of
from triton.backends.compiler import GPUTarget

from gammabeta.fused.triton_program import TritonProgram
from gammabeta.passes import on_gpu


class NoDriver:
    """As much of a driver as the compiler asks."""

    def get_current_target(self):
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self):
        return 0

    def get_current_stream(self, device):
        return 0


class Compiled(TritonProgram):
    """Compiles each kernel instead of running it."""

    def _launch(self, kernel, grid, warps, **arguments):
        compile_(kernel, grid, num_warps=warps, num_stages=1, **arguments)


def compile_(kernel, grid, num_warps=4, **arguments):
    made = kernel.run(grid=grid, warmup=True, num_warps=num_warps, **arguments)
    if made.hash not in KERNELS:
        with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
            file.write(made.asm["cubin"])
            file.flush()
            command = [triton.knobs.nvidia.cuobjdump.path, "-res-usage", file.name]
            usage = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        registers, stack = re.search(r"REG:(\d+) STACK:(\d+)", usage).groups()
        KERNELS[made.hash] = (
            f"{kernel.fn.__name__}: {registers} registers, {stack} bytes spilled, "
            f"{made.metadata.shared} bytes shared, {num_warps} warps, grid {grid}"
        )


def compile_passes(rows, channels):
    z = torch.zeros(rows, channels, dtype=torch.bfloat16)
    bits = torch.zeros(rows * channels // 8, dtype=torch.uint8)
    c = torch.zeros(channels)
    on_gpu.measure(z)
    for skip in ((), (z,), (z, c, c)):
        on_gpu.normalise(z, c, c, *skip, relu=True, keep=True)
    on_gpu.sums(z, z, c, c, opened=(c, c))
    on_gpu.sums(z, z, c, c, opened=bits, more=z, shortcut=(z, c, c), keep=True)
    on_gpu.input_gradient(z, z, c, c, c, c, c, c)


if __name__ == "__main__":
    KERNELS = {}
    triton.runtime.driver.set_active(NoDriver())
    on_gpu.DEVICE, on_gpu._launch = "cpu", compile_
    for rows, channels in ((64 * 56**2, 64), (64 * 28**2, 512), (1000, 24)):
        compile_passes(rows, channels)
    program = program_of(networks("cifar_resnet_14_16", [0]), Compiled, dtype=torch.bfloat16)
    images = torch.zeros(1, 128, 32, 32, 3, dtype=torch.bfloat16)
    program.step(images, torch.zeros(1, 128, dtype=torch.int64))
    program.logits(images)
    flat = torch.zeros_like(program.values)
    program.optimise(flat, flat, flat, torch.ones(1), 0.9, True)
    print("\n".join(KERNELS.values()))
