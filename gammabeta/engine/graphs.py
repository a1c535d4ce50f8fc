"""A training step as one CUDA graph: hundreds of kernels launched by a single call."""

from collections.abc import Callable

import torch
from torch import Tensor

Learn = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


class GraphedSteps:
    """Calls `learn(images, labels, factor)`, by a CUDA graph for each shape of its inputs.

    The first step of a shape runs as it is (kernels are compiled then), the second is captured, and
    from there on steps are replays. What `learn` reads besides its inputs must keep its place in
    memory. What it returns is overwritten by the next step.
    """

    def __init__(self, learn: Learn) -> None:
        self.learn = learn
        self._shapes: dict[torch.Size, _Step] = {}

    def __call__(self, images: Tensor, labels: Tensor, factor: Tensor) -> tuple[Tensor, Tensor]:
        step = self._shapes.setdefault(images.shape, _Step())
        if step.inputs is None:
            step.inputs = (images.clone(), labels.clone(), factor.clone())
            return self.learn(*step.inputs)
        for mine, given in zip(step.inputs, (images, labels, factor), strict=True):
            mine.copy_(given)
        if step.graph is None:
            step.graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(step.graph):  # records, and does not execute
                step.outputs = self.learn(*step.inputs)
        step.graph.replay()
        assert step.outputs is not None
        return step.outputs


class _Step:
    """One shape's inputs, graph and outputs, each at a place of its own."""

    def __init__(self) -> None:
        self.inputs: tuple[Tensor, Tensor, Tensor] | None = None
        self.graph: torch.cuda.CUDAGraph | None = None
        self.outputs: tuple[Tensor, Tensor] | None = None
