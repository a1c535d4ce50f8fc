"""What a network costs: values, multiplications, bytes, milliseconds."""

import statistics
import time
from collections.abc import Callable, Hashable, Mapping
from typing import TypeVar

import torch
from safetensors.torch import save
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from gammabeta.compact.network import Network, encode

Name = TypeVar("Name", bound=Hashable)


def parameters(module: nn.Module) -> int:
    """Values that it computes with: parameters, and of a Network all of its tensors."""
    if isinstance(module, Network):
        return sum(value.numel() for value in module.tensors().values())
    return sum(value.numel() for value in module.parameters())


def operations(module: nn.Module, image: Tensor) -> int:
    """Multiplications with an addition of convolutions and linear layers, for one image
    (1, C, H, W)."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module(image)
    return int(counter.get_total_flops()) // 2


def file_size(module: nn.Module) -> int:
    """Bytes of its safetensors file, in fp32: of a Network with its description."""
    if isinstance(module, Network):
        return len(encode(module))
    return len(save({name: value.clone() for name, value in module.state_dict().items()}))


def latencies(
    contenders: Mapping[Name, Callable[[], object]], rounds: int = 15
) -> dict[Name, dict[str, float]]:
    """Milliseconds a call, in turns so that all meet the same machine: the fastest, the median and
    the two quartiles of the clock, and the median of the time this process had a processor for.

    Others who work on the machine only ever add to a time, so the fastest says most about the
    network; with one thread the processor's time leaves out when others had it.
    """
    clock: dict[Name, list[float]] = {name: [] for name in contenders}
    processor: dict[Name, list[float]] = {name: [] for name in contenders}
    for turn in range(rounds + 2):
        for name, call in contenders.items():
            worked, start = time.process_time(), time.perf_counter()
            call()
            took, busy = time.perf_counter() - start, time.process_time() - worked
            if turn >= 2:  # the first two warm up
                clock[name].append(1e3 * took)
                processor[name].append(1e3 * busy)
    found = {}
    for name, times in clock.items():
        low, middle, high = statistics.quantiles(times, n=4, method="inclusive")
        found[name] = {
            "fastest_ms": min(times), "low_ms": low, "median_ms": middle, "high_ms": high,
            "processor_ms": statistics.median(processor[name]),
        }  # fmt: skip
    return found
