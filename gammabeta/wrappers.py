"""The network inside its wrappers, and the names it would have without any.

torch.compile, DataParallel, DistributedDataParallel and AveragedModel put a network, or a part of
it, into a module of their own, and every name below gets longer: `layer._orig_mod.weight`. What is
selected, saved and loaded goes by the names of the network itself.
"""

from collections.abc import Iterator

from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

from gammabeta.errors import InputError

_COMPILED = "_orig_mod"  # where torch.compile keeps a module


def plain(module: nn.Module) -> nn.Module:
    """The module inside DistributedDataParallel, DataParallel, AveragedModel and torch.compile's
    wrapper, however many. Raises InputError for what is no module at all."""
    if not isinstance(module, nn.Module):
        raise InputError(
            f"a network is a torch.nn.Module, not {_shown(module)}: "
            "make one with gammabeta.create_model('cifar_resnet_14')"
        )
    while True:
        if isinstance(module, DistributedDataParallel | DataParallel | AveragedModel):
            module = module.module
        elif isinstance(inner := module.__dict__["_modules"].get(_COMPILED), nn.Module):
            module = inner
        else:
            return module


def named_modules(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """As torch's: every module once, in order, under its first name; wrappers are left out."""
    seen: set[nn.Module] = set()
    waiting = [("", module)]
    while waiting:
        name, wrapped = waiting.pop()
        found = plain(wrapped)
        if found in seen:
            continue
        seen.add(found)
        yield name, found
        children = [
            (f"{name}.{last}" if name else last, child)
            for last, child in found._modules.items()
            if child is not None
        ]
        waiting += reversed(children)


def named_parameters(module: nn.Module) -> dict[str, nn.Parameter]:
    """Every parameter once, under its first name."""
    found: dict[int, tuple[str, nn.Parameter]] = {}
    for name, child in named_modules(module):
        for last, parameter in child._parameters.items():
            if parameter is not None:
                found.setdefault(id(parameter), (f"{name}.{last}" if name else last, parameter))
    return dict(found.values())


def named_buffers(module: nn.Module) -> dict[str, Tensor]:
    """Every buffer under every name: one that layers share is here for each of them."""
    return {
        f"{name}.{last}" if name else last: buffer
        for name, child in named_modules(module)
        for last, buffer in child._buffers.items()
        if buffer is not None
    }


def submodule(module: nn.Module, name: str) -> nn.Module:
    """The module of this name. Raises InputError where there is none."""
    found = plain(module)
    for last in name.split(".") if name else ():
        child = found._modules.get(last)
        if child is None:
            raise InputError(f"the network has no module '{name}'")
        found = plain(child)
    return found


def torch_names(module: nn.Module) -> dict[str, str]:
    """Name of a tensor here -> the name that torch calls it by in this module."""
    theirs = {child: name for name, child in module.named_modules()}
    found = {}
    for name, child in named_modules(module):
        for last in (*child._parameters, *child._buffers):
            prefixes = (name, theirs[child])
            ours, other = (f"{prefix}.{last}" if prefix else last for prefix in prefixes)
            found[ours] = other
    return found


def plain_name(name: str) -> str:
    """A name as torch.compile makes it, without what torch.compile added."""
    return ".".join(part for part in name.split(".") if part != _COMPILED)


def _shown(value: object) -> str:
    return repr(value) if isinstance(value, str | int | float | None) else type(value).__name__
