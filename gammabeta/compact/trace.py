"""Any module to a graph: torch.export draws it in evaluation mode, for any number of images and,
where the module takes any size, for any size."""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from gammabeta.compact.graph import Graph
from gammabeta.compact.original import takes
from gammabeta.compact.reader import Reader
from gammabeta.errors import InputError

_LARGE = 4096  # images, or pixels a side: a bound beyond is none that anybody meets
_LARGER = 4


def read_graph(module: nn.Module, images: Tensor, *, any_size: bool = False) -> Graph:
    """The graph of a module in evaluation mode that takes `images` (N, C, H, W) and returns logits.

    images may as well be (N, F), (N, C, L) or (N, C, D, H, W). Any other N fits too. any_size:
    other H and W should; some operations take sizes for numbers without need, so whether they do
    is to be seen (verify.py). Raises InputError where no graph can be drawn.
    """
    free = tuple(range(2, images.dim())) if any_size else ()
    program = _draw(module, images, free)
    if not _fits(program, module, images, free):
        # A side that is a single pixel somewhere inside is taken for a number: not in larger ones.
        large = images.new_zeros(2, images.shape[1], *(_LARGER * side for side in images.shape[2:]))
        with contextlib.suppress(InputError):
            other = _draw(module, large, free)
            program = other if _fits(other, module, large, free) else program
    return Reader(program).read()


def _draw(module: nn.Module, images: Tensor, free: Sequence[int]) -> ExportedProgram:
    """free: the dimensions that may have any size, beside the first."""
    modes = {child: child.training for child in module.modules()}
    if len(images) < 2:  # torch.export takes a size of one for a constant
        images = torch.cat([images, images])
    try:
        with _quiet():
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


def _fits(program: ExportedProgram, module: nn.Module, images: Tensor, free: Sequence[int]) -> bool:
    """Whether all sizes that should be free are: torch.export makes one a number, or gives it a
    largest value, and says neither. Raises InputError for the number of images."""
    shape = _input_shape(program)
    for dimension in (0, *free):
        size, most = shape[dimension], images.shape[dimension]
        number = isinstance(size, int) or size.node.expr.is_number
        if not number:
            bounds = program.range_constraints.get(size.node.expr)  # type: ignore[union-attr]
            if bounds is None or bounds.upper > _LARGE:
                continue
            most = int(bounds.upper)
        if dimension == 0:
            raise InputError(
                f"the graph of this network fits {most} images only: let its forward take any "
                "number of them, with x.shape[0] in place of len(x)"
            )
        larger = list(images.shape)
        larger[dimension] = most + 1
        if number or takes(module, images, larger[2:]):
            return False
    return True


def refused_size(size: Sequence[int]) -> InputError:
    shown = "x".join(map(str, size))
    return InputError(
        "this network takes images of many sizes, but no graph that torch.export draws is right "
        f"for all of them: let its forward treat sizes alike, or refuse all but {shown}"
    )


def _input_shape(program: ExportedProgram) -> Sequence[int | torch.SymInt]:
    (name,) = program.graph_signature.user_inputs
    (node,) = (node for node in program.graph.nodes if node.name == name)
    shape: Sequence[int | torch.SymInt] = node.meta["val"].shape
    return shape


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
