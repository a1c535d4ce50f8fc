"""What a network costs: values, multiplications, bytes, milliseconds."""

import statistics
import time
from collections.abc import Callable, Mapping

import torch
from safetensors.torch import save
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from gammabeta.compact.network import Network, encode


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
    contenders: Mapping[str, Callable[[], object]], rounds: int = 15
) -> dict[str, dict[str, float]]:
    """Milliseconds a call, in turns so that all meet the same machine. Others who work on it only
    ever add to a time, so the fastest says most about the network."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(rounds + 2):
        for name, call in contenders.items():
            start = time.perf_counter()
            call()
            if turn >= 2:  # the first two warm up
                times[name].append(1e3 * (time.perf_counter() - start))
    return {
        name: {"fastest_ms": min(found), "median_ms": statistics.median(found)}
        for name, found in times.items()
    }
