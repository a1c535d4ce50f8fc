"""What a step cannot do without, measured in the same run: the network's convolutions alone, and
how fast this machine moves bytes. And both counted, where the network has a plan."""

import time
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gammabeta.bench.case import Case
from gammabeta.fused.plan import make_plan
from gammabeta.models import architecture
from gammabeta.models.cifar_resnet import CifarResNet
from gammabeta.names import parse_name

CONVOLUTIONS = "convolutions"  # the name of this row among the contenders
_BEFORE_A_GRAPH = 2  # steps: what libraries do at first cannot be captured


@dataclass
class _Call:
    """One convolution of the network with data to work on, (N, C, H, W), channels_last."""

    conv: nn.Conv2d
    weight: Tensor
    x: Tensor
    dz: Tensor
    mask: list[bool]  # is there a gradient of its input, its weight, its bias


class Convolutions:
    """Every convolution forward, and the gradients that training needs of it, by stock torch: the
    input's for all but the first, the weight's where it trains. Tensors of one shape are shared,
    so the caches serve it better than a network."""

    def __init__(self, case: Case) -> None:
        dtype = torch.bfloat16 if case.precision == "bf16" else torch.float32
        model, subset = case.make(torch.channels_last)
        names = {module: name for name, module in model.named_modules()}
        below = any(row.role not in ("output", "bias") for row in subset.trained.values())
        ready: dict[tuple[int, ...], Tensor] = {}

        def data(shape: tuple[int, ...]) -> Tensor:
            shape = (case.batch, *shape[1:])
            if shape not in ready:
                noise = torch.randn(shape, device=case.device, dtype=dtype)
                ready[shape] = noise.contiguous(memory_format=torch.channels_last)
            return ready[shape]

        self._device, self._taken = case.device, 0
        self._graph: torch.cuda.CUDAGraph | None = None
        self.calls: list[_Call] = []
        self.operations = 0  # multiplications and additions of a step

        def see(conv: nn.Conv2d, inputs: tuple[Tensor], output: Tensor) -> None:
            mask = [
                below and len(self.calls) > 0, f"{names[conv]}.weight" in subset.trained, False
            ]  # fmt: skip
            weight = conv.weight.detach().to(dtype)
            x, dz = data(tuple(inputs[0].shape)), data(tuple(output.shape))
            self.calls.append(_Call(conv, weight, x, dz, mask))
            self.operations += 2 * weight[0].numel() * dz.numel() * (1 + sum(mask))

        convolutions = [each for each in model.modules() if isinstance(each, nn.Conv2d)]
        hooks = [each.register_forward_hook(see) for each in convolutions]
        with torch.no_grad():
            model.eval()(torch.zeros(1, 3, case.image, case.image, device=case.device))
        for hook in hooks:
            hook.remove()

    def step(self) -> None:
        """On a GPU a CUDA graph from the third step on: launched one by one, hundreds of small
        convolutions would take the host's time instead of the device's."""
        if self._graph is not None:
            self._graph.replay()
            return
        if self._device.type == "cuda" and self._taken >= _BEFORE_A_GRAPH:
            self._graph = torch.cuda.CUDAGraph()
            torch.cuda.synchronize(self._device)
            with torch.cuda.graph(self._graph):
                self._all()
            self._graph.replay()
            return
        self._all()
        self._taken += 1

    @torch.no_grad()
    def _all(self) -> None:
        for call in self.calls:
            self._forward(call)
        for call in reversed(self.calls):
            if any(call.mask):
                self._backward(call)

    def _forward(self, call: _Call) -> Tensor:
        conv: Any = call.conv
        return F.conv2d(
            call.x, call.weight, None, conv.stride, conv.padding, conv.dilation, conv.groups
        )

    def _backward(self, call: _Call) -> None:
        conv = call.conv
        torch.ops.aten.convolution_backward(
            call.dz, call.x, call.weight, None, conv.stride, conv.padding, conv.dilation,
            False, [0, 0], conv.groups, call.mask,
        )  # fmt: skip


class Copy:
    """Bytes a second that the machine copies, read and written both counted."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        size = 2**30 if device.type == "cuda" else 2**27  # far more than any cache holds
        self.source = torch.zeros(size, dtype=torch.uint8, device=device)
        self.target = torch.zeros_like(self.source)

    def rate(self) -> float:
        best = float("inf")
        for _ in range(3):
            wait(self.device)
            started = time.perf_counter()
            self.target.copy_(self.source)
            wait(self.device)
            best = min(best, time.perf_counter() - started)
        return 2 * self.source.numel() / best


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def moved_bytes(case: Case) -> int | None:
    """What the fused program moves in a step without any cache, if the network has a plan."""
    if parse_name(case.model).family != "cifar_resnet":
        return None
    model = architecture(case.model)
    assert isinstance(model, CifarResNet)
    return make_plan(model).moved_bytes(case.batch, 2 if case.precision == "bf16" else 4)
