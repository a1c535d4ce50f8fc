"""Whether a network is the one that a delta belongs to: its architecture, and what did not train.

Names, shapes and settings of all layers are compared one by one (settings.py). Short marks of
single tensors tell which is the first to differ; that none does is told by a whole sha256 over
every value that did not train.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from gammabeta import settings, sparse
from gammabeta.delta_file import Delta
from gammabeta.errors import InputError
from gammabeta.fingerprint import digest, together
from gammabeta.statistics import check_policy
from gammabeta.subset import statistics
from gammabeta.wrappers import named_modules, named_parameters, submodule

_WIDTHS = (torch.float32, torch.bfloat16)


def check_delta(
    module: nn.Module, delta: Delta, *, base: Mapping[str, Tensor] | None = None
) -> None:
    """Raise InputError with the first tensor in which a network is not the delta's.

    base: values to look at in place of the module's own.
    """
    check_policy(delta.statistics)
    tensors = current_tensors(module) | dict(base or {})
    _check_shapes(tensors, delta)
    if what := settings.difference(settings.layers(module), delta.layers, module):
        raise _other(what)
    own: dict[str, str] = {}
    for name in delta.frozen:
        own[name] = _check_values(module, name, tensors[name], delta)
    if together(own) == delta.frozen_sha256:
        return
    rounded = {name: rounded_digest(_frozen(module, name, tensors[name], delta)) or own[name]
               for name in delta.frozen}  # fmt: skip
    if together(rounded) != delta.frozen_rounded:
        raise InputError(
            "what did not train has other values here than where this delta was trained (its "
            f"sha256 differs): load the weights that it was trained on first{_origin(delta)}"
        )


def _check_shapes(tensors: Mapping[str, Tensor], delta: Delta) -> None:
    names = delta.values.keys() | delta.buffers.keys() | delta.frozen.keys()
    for name, tensor in tensors.items():
        if name not in names:
            raise _other(f"the delta has no '{name}'")
        if tensor.is_meta:
            raise InputError(
                f"'{name}' has no values (meta device): make the network on a device, with the "
                "weights that the delta was trained on"
            )
        value = delta.values.get(name, delta.buffers.get(name))
        if value is None or name in delta.sparse:
            continue
        if value.shape != tensor.shape:
            shapes = f"{tuple(value.shape)} in the delta and {tuple(tensor.shape)} here"
            raise _other(f"'{name}' has shape {shapes}")
        if value.dtype != tensor.dtype and not {value.dtype, tensor.dtype} <= set(_WIDTHS):
            raise InputError(
                f"'{name}' is {value.dtype} in the delta and {tensor.dtype} here: load the delta "
                "first, then convert the network"
            )
    for name in names:
        if name not in tensors:
            raise _other(f"'{name}' is in the delta only")


def _check_values(module: nn.Module, name: str, tensor: Tensor, delta: Delta) -> str:
    """Its digest here, if a frozen tensor is what it was, up to rounding to bfloat16."""
    expected, rounded = delta.frozen[name]
    tensor = _frozen(module, name, tensor, delta)
    found = digest(tensor)
    is_same = found[:16] == expected
    is_same |= tensor.dtype == torch.bfloat16 and found[:16] == rounded
    if not is_same and rounded_digest(tensor)[:16] != expected:
        raise InputError(
            f"'{name}' has other values here than where this delta was trained: load the "
            f"weights that it was trained on first{_origin(delta)}"
        )
    return found


def _frozen(module: nn.Module, name: str, tensor: Tensor, delta: Delta) -> Tensor:
    """A tensor without what trained of it."""
    if name not in delta.sparse:
        return tensor
    index = entry_index(module, name, delta.per_channel, delta.seed)
    if index.shape != delta.values[name].shape:
        shape = tuple(delta.values[name].shape)
        raise _other(f"'{name}' has trained entries of shape {shape}, not {tuple(index.shape)}")
    return without_entries(tensor, index)


def rounded_digest(tensor: Tensor) -> str:
    """The digest of an fp32 tensor after rounding to bfloat16; empty for other types."""
    return digest(tensor.bfloat16()) if tensor.dtype == torch.float32 else ""


def current_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Every parameter, running statistic and other persistent buffer, by name; with the values of
    sparse entries where they are attached. A shared one is there once."""
    tensors = {name: parameter.detach() for name, parameter in named_parameters(module).items()}
    for name, entries in sparse.attached(module).items():
        flat, leaf = tensors[name].flatten(), entries.leaf.detach().flatten()
        tensors[name] = flat.scatter(0, entries.index.flatten(), leaf).view_as(tensors[name])
    kept = statistics(module).keys()
    found: list[tuple[str, Tensor, bool]] = []
    for prefix, child in named_modules(module):
        for last, buffer in child._buffers.items():
            name = f"{prefix}.{last}" if prefix else last
            persistent = last not in child._non_persistent_buffers_set
            if buffer is not None and (persistent or name in kept):
                found.append((name, buffer, name in kept))
    first = {id(buffer): name for name, buffer, is_kept in reversed(found) if not is_kept}
    first |= {id(buffer): name for name, buffer, is_kept in found if is_kept}
    return tensors | {
        name: buffer.detach() for name, buffer, _ in found if first[id(buffer)] == name
    }


def entry_index(module: nn.Module, name: str, per_channel: int, seed: int) -> Tensor:
    """(C, K): which entries of a convolution's flattened weight ``random:K`` trains."""
    layer = submodule(module, name.rpartition(".")[0])
    if not isinstance(layer, _ConvNd):
        raise _other(f"'{name}' is no weight of a convolution")
    return sparse.choose_entries(layer, name, per_channel, seed).to(layer.weight.device)


def without_entries(weight: Tensor, index: Tensor) -> Tensor:
    """The weight with its trained entries at zero."""
    return weight.flatten().scatter(0, index.flatten(), 0.0).view_as(weight)


def _other(what: str) -> InputError:
    return InputError(f"this delta belongs to another architecture: {what}")


def _origin(delta: Delta) -> str:
    if delta.network is None:
        return ""
    return f" (load_network rebuilds {delta.network['name']} from seed {delta.network['seed']})"
