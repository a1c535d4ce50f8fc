"""A training step as one CUDA graph: hundreds of kernels launched by a single call."""

from collections.abc import Callable

import torch
from torch import Tensor

Learn = Callable[..., None]


def are_usable(device: torch.device) -> bool:
    return device.type == "cuda"


class GraphedSteps:
    """Calls `learn(*inputs)`, by a CUDA graph for each shape of the inputs.

    The first step of a shape runs as it is (kernels are compiled then), the second is captured, and
    from there on steps are replays. What `learn` reads besides its inputs must keep its place in
    memory, and it must not wait for the device.
    """

    def __init__(self, learn: Learn) -> None:
        self.learn = learn
        self._shapes: dict[tuple[torch.Size, ...], _Step] = {}

    def __call__(self, *inputs: Tensor) -> None:
        step = self._shapes.setdefault(tuple(each.shape for each in inputs), _Step())
        if not step.inputs:
            step.inputs = tuple(each.clone() for each in inputs)
            _aside(self.learn, step.inputs)
            return
        for mine, given in zip(step.inputs, inputs, strict=True):
            mine.copy_(given)
        if step.graph is None:
            step.graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(step.graph):  # records, and does not execute
                self.learn(*step.inputs)
        step.graph.replay()


class _Step:
    """One shape's inputs and graph, each at a place of its own."""

    def __init__(self) -> None:
        self.inputs: tuple[Tensor, ...] = ()
        self.graph: torch.cuda.CUDAGraph | None = None


def _aside(learn: Learn, inputs: tuple[Tensor, ...]) -> None:
    """Call it on a stream of its own, as capturing does: autograd remembers streams."""
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        learn(*inputs)
    torch.cuda.current_stream().wait_stream(stream)
