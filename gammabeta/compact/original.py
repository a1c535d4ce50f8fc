"""The network that somebody hands in: what of it is compacted, what images it takes, its logits."""

import copy
import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.utils._pytree import tree_leaves

from gammabeta import sparse
from gammabeta.compact.snap import batch_norms
from gammabeta.errors import InputError
from gammabeta.wrappers import plain


def prepared(module: nn.Module) -> nn.Module:
    """A copy in evaluation mode, in fp32 on the CPU, without wrappers and with trained entries in
    their weights. Raises InputError for what cannot be compacted."""
    module = plain(module)
    for name, layer in batch_norms(module).items():
        if "weight" not in layer._parameters and not parametrize.is_parametrized(layer):
            raise InputError(
                f"the gammas of {name} are computed at every call: make them plain parameters "
                "first, for example with torch.nn.utils.remove_weight_norm"
            )
    for name, layer in module.named_modules():
        enforcer = layer.__dict__.get("_gammabeta_statistics")
        if enforcer is not None and enforcer.policy == "batch":
            raise InputError(
                f"{name or 'this layer'} normalises by the batch in evaluation too (statistics "
                "batch), so an image has no logits of its own: choose a policy first, with "
                "gammabeta.statistics.set_statistics_policy(module, 'track')"
            )
    copied = _copy(module)
    for layer in batch_norms(copied).values():
        for kept in ("weight", "bias"):  # what is computed at every call is here what it is now
            if parametrize.is_parametrized(layer, kept):
                parametrize.remove_parametrizations(layer, kept)
    for entries in sparse.attached(copied).values():
        entries.detach()
    return copied.cpu().float().eval()


def _copy(module: nn.Module) -> nn.Module:
    """Raises InputError for a module that cannot be copied."""
    try:
        return copy.deepcopy(module)
    except Exception as error:  # of torch: a tensor with a history; of others: locks, files
        computed = [
            f"{name}.{key}" if name else key
            for name, layer in module.named_modules()
            for key, value in vars(layer).items()
            if isinstance(value, Tensor) and not value.is_leaf
        ]
        line = f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
        raise InputError(
            f"this network cannot be copied, as {computed[0]} keeps a tensor of its last call: set "
            "it to None, or call the network under torch.no_grad()"
            if computed
            else f"this network cannot be copied with copy.deepcopy ({line}): leave out what holds "
            "more than tensors"
        ) from None


def checked(images: Tensor) -> Tensor:
    """The images in fp32 on the CPU. Raises InputError for what are none."""
    if not isinstance(images, Tensor):
        raise InputError(
            f"images is a {type(images).__name__}: give a tensor of normalised images, N C H W"
        )
    if images.dim() < 2 or not images.numel():
        raise InputError(
            f"images has the shape {tuple(images.shape)}: give a few normalised images, N C H W"
        )
    if not images.is_floating_point():
        raise InputError(
            f"images is {str(images.dtype).removeprefix('torch.')}: give them as the network takes "
            "them, normalised and in fp32"
        )
    images = images.detach().cpu().float()
    if not bool(images.isfinite().all()):
        raise InputError("images holds nan or infinity: give real ones")
    return images


@torch.no_grad()
def logits(function: nn.Module, images: Tensor) -> Tensor:
    """What a network makes of images; of a dictionary or ModelOutput, the one tensor in it."""
    found = function(images)
    if isinstance(found, Tensor):
        return found
    tensors = [each for each in tree_leaves(found) if isinstance(each, Tensor)]
    if len(tensors) != 1:
        raise InputError(
            f"this network returns {len(tensors)} tensors: give a module whose forward returns the "
            "logits alone"
        )
    return tensors[0]


def other_sizes(module: nn.Module, images: Tensor) -> list[tuple[int, ...]]:
    """Other sizes (H, W), as far as the network takes them: a larger one, half, one pixel more, an
    odd one that is wider than high, and a quarter.

    The larger one is not square, or twice as large where the network asks for squares, or for
    sizes that can be halved often.
    """
    size = tuple(images.shape[2:])
    if not size:
        return []
    uneven = tuple(each + each // (2 if place == 0 else 4) for place, each in enumerate(size))
    wide = tuple(
        (each // 2 if place == 0 else each + each // 4) | 1 for place, each in enumerate(size)
    )
    found: list[tuple[int, ...]] = []
    for candidates in (
        (uneven, tuple(2 * each for each in size)),
        (tuple(max(1, each // 2) for each in size),),
        (tuple(each + 1 for each in size),),
        (wide,),
        (tuple(max(1, each // 4 + place) for place, each in enumerate(size)),),
    ):
        fitting = (each for each in candidates if each != size and takes(module, images, each))
        found += [each for each in itertools.islice(fitting, 1) if each not in found]
    return found


def takes(module: nn.Module, images: Tensor, size: Sequence[int]) -> bool:
    """Whether the network has logits for images like these of another size (H, W)."""
    some = images.new_zeros(*images.shape[:2], *size)
    try:
        found = logits(module, some)
    except Exception:  # made for one size
        return False
    return found.dim() > 0 and len(found) == len(some)
