"""Every ReLU's output during a forward pass, exactly as the network computed it.

A TorchFunctionMode sees each call of ReLU, whether a module, a function or a method makes it; hooks
tell which module was running. Nothing is computed again and nothing is replaced.
"""

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

_RELUS = {F.relu, F.relu_, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_}


class _Watch(TorchFunctionMode):
    def __init__(self, see: Callable[[Tensor], None]) -> None:
        super().__init__()
        self.see = see

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        if func in _RELUS:
            self.see(out)
        return out


@contextlib.contextmanager
def watched(network: nn.Module, see: Callable[[str, Tensor], None]) -> Iterator[None]:
    """Within the block, `see(name, output)` for each ReLU of each pass, in order of execution.

    name: the innermost module whose forward applied it, and which of its ReLUs it is, from 1:
    "relu1" for the stem of a CIFAR ResNet, "blocks.0.relu2" for the one behind the first addition.
    output must not be changed or kept: the network may go on to write into it.
    """
    names = {child: name for name, child in network.named_modules()}
    running: list[nn.Module] = []
    seen: Counter[nn.Module] = Counter()

    def enter(module: nn.Module, _: object) -> None:
        if not running:
            seen.clear()
        running.append(module)

    def leave(module: nn.Module, *_: object) -> None:
        if running:
            running.pop()

    def saw(out: Tensor) -> None:
        inner = running[-1] if running else network
        seen[inner] += 1
        see(".".join(filter(None, [names[inner], f"relu{seen[inner]}"])), out)

    handles: list[Any] = []
    try:
        for child in names:
            handles.append(child.register_forward_pre_hook(enter))
            handles.append(child.register_forward_hook(leave, always_call=True))
        with _Watch(saw):
            yield
    finally:
        for handle in handles:
            handle.remove()
