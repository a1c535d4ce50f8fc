"""A training step as one CUDA graph: hundreds of kernels launched by a single call."""

import gc
from collections.abc import Callable

import torch
from torch import Tensor

Learn = Callable[..., None]
_FIRST = 2  # steps before a capture: the second one finds what the first has made


def are_usable(device: torch.device) -> bool:
    return device.type == "cuda"


class GraphedSteps:
    """Calls `learn(*inputs)`, by a CUDA graph for each shape of the inputs.

    The first steps of a shape run as they are (kernels are compiled then, and buffers made), the
    next is captured, and from there on steps are replays. What `learn` reads besides its inputs
    must keep its place in memory, and it must not wait for the device. pool_bytes: what the graphs
    hold beside torch's other memory, where no peak shows it.
    """

    def __init__(self, learn: Learn) -> None:
        self.learn, self.pool_bytes = learn, 0
        self._shapes: dict[tuple[torch.Size, ...], _Step] = {}

    def __call__(self, *inputs: Tensor) -> None:
        shapes = tuple(each.shape for each in inputs)
        if shapes not in self._shapes:
            self._shapes[shapes] = _Step(inputs)
        step = self._shapes[shapes]
        for mine, given in zip(step.inputs, inputs, strict=True):
            mine.copy_(given)
        if step.graph is not None:
            step.graph.replay()
        elif step.taken < _FIRST:
            _aside(self.learn, step.inputs)
            step.taken += 1
        else:
            step.graph, grown = _captured(self.learn, step.inputs)
            self.pool_bytes += grown
            step.graph.replay()  # capturing has executed nothing


class _Step:
    """One shape's inputs and graph, each at a place of its own."""

    def __init__(self, inputs: tuple[Tensor, ...]) -> None:
        self.inputs = tuple(torch.empty_like(each) for each in inputs)
        self.graph: torch.cuda.CUDAGraph | None = None
        self.taken = 0


def _captured(learn: Learn, inputs: tuple[Tensor, ...]) -> tuple[torch.cuda.CUDAGraph, int]:
    """A graph that an error leaves to the next try, and the bytes it holds. Meanwhile nothing old
    is freed: that a graph goes, with its memory, while another one is recorded is not allowed."""
    graph = torch.cuda.CUDAGraph()
    collecting = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        torch.cuda.empty_cache()  # as capturing itself does: it would hide as much of the growth
        before = torch.cuda.memory_reserved()
        with torch.cuda.graph(graph):
            learn(*inputs)
    finally:
        if collecting:
            gc.enable()
    return graph, torch.cuda.memory_reserved() - before


def _aside(learn: Learn, inputs: tuple[Tensor, ...]) -> None:
    """Call it on a stream of its own, as capturing does: autograd remembers streams."""
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        learn(*inputs)
    torch.cuda.current_stream().wait_stream(stream)
