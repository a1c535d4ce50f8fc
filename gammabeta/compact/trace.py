"""Any module to a graph: torch.export draws it in evaluation mode, for any number of images and,
where the module takes other sizes, for these."""

import contextlib
import functools
import io
import logging
import threading
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.fx.experimental import _config as config
from torch.overrides import TorchFunctionMode

from gammabeta.compact.graph import Graph
from gammabeta.compact.reader import Reader
from gammabeta.compact.sizes import of_any_number
from gammabeta.errors import InputError

_ALONE = threading.Lock()  # what is set for the length of a trace is set for all threads
_OBLIVIOUS = functools.partial(getattr(config, "patch"), backed_size_oblivious=True)  # noqa: B009


def read_graph(module: nn.Module, images: Tensor, *, any_size: bool = False) -> Graph:
    """The graph of a module in evaluation mode that takes `images` (N, C, H, W) and returns logits.

    images may as well be (N, F), (N, C, L) or (N, C, D, H, W). Any other N fits too. any_size:
    other H and W do, as far as its conditions say. Raises InputError where no graph can be drawn.
    """
    free = tuple(range(2, images.dim())) if any_size else ()
    program = _draw(module, images, free)
    graph = Reader(program).read()
    graph.conditions = of_any_number(graph.conditions, images)
    return graph


def _draw(module: nn.Module, images: Tensor, free: Sequence[int]) -> ExportedProgram:
    """free: the dimensions that may have any size, beside the first.

    Without size-oblivious reasoning and layouts torch.export asks of tensors on the way whether a
    side is one pixel, for its own sake, and small images would be refused for nothing.
    """
    modes = {child: child.training for child in module.modules()}
    if len(images) < 2:  # torch.export takes a size of one for a constant
        images = torch.cat([images, images])
    try:
        with _ALONE, _quiet(), _OBLIVIOUS(), _no_layouts(), _FreeSizes():
            shapes = (dict.fromkeys((0, *free), Dim.AUTO),)
            program = torch.export.export(module.eval(), (images,), dynamic_shapes=shapes)
            decomposed: ExportedProgram = program.run_decompositions({})
            return decomposed
    except Exception as error:  # whatever a stranger's forward does
        line = " ".join(str(error).split())[:200]
        raise InputError(
            f"the graph of this network cannot be traced ({type(error).__name__}: {line}): give a "
            "module that takes one tensor of images and that torch.export can trace"
        ) from None
    finally:
        for child, training in modes.items():
            child.training = training


class _FreeSizes(TorchFunctionMode):
    """Inside, functions that bind torch.export to the sizes it is shown are others that they stand
    for: max_pool1d takes the length for a number, and adaptive_avg_pool2d to one pixel asks of one
    channel how it lies in memory."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        named = dict(kwargs or {})
        if func in (torch.max_pool1d, F.max_pool1d) and not named.pop("return_indices", False):
            return _max_pool1d(*args, **named)
        if func is F.adaptive_avg_pool2d and _is_mean(*args, **named):
            return args[0].mean((-2, -1), keepdim=True)
        return func(*args, **(kwargs or {}))


def _is_mean(x: Tensor, output_size: Any) -> bool:
    """Of one channel only: others stay the pooling that they are in files for other programs."""
    return x.shape[-3] == 1 and output_size in (1, (1, 1), [1, 1])


def _max_pool1d(
    x: Tensor,
    kernel_size: Any,
    stride: Any = (),
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
) -> Tensor:
    """(N, C, L) or (C, L) -> the same."""
    kernel, steps, padded, apart = (
        list(each) if isinstance(each, list | tuple) else [each]
        for each in (kernel_size, () if stride is None else stride, padding, dilation)
    )
    wide = torch.max_pool2d(
        x.unsqueeze(-2), [1, *kernel], [1, *(steps or kernel)], [0, *padded], [1, *apart], ceil_mode
    )
    return wide.squeeze(-2)


@contextlib.contextmanager
def _no_layouts() -> Iterator[None]:
    """Inside, torch.export does not work out in which order a convolution leaves its result in
    memory, as it does not for sizes without an example: for one channel that depends on the size.
    What a graph computes does not follow from the order, unless a forward asks for it; whether the
    graph is right is seen afterwards (verify.py)."""
    name = "_conv_determine_backend_memory_format"
    before = getattr(torch._C, name, None)
    if before is None:  # another version of torch: it asks, and small images may be refused
        yield
        return
    setattr(torch._C, name, lambda *_: None)
    try:
        yield
    finally:
        setattr(torch._C, name, before)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what torch.export says on the way."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
