"""Deltas of a network: make one from a trained subset, check it against a network, put it in.

A delta fits one architecture and one set of frozen values, and both are checked before anything is
changed. A network may be held in bfloat16 where the delta was trained in fp32, or the other way
round: its frozen values are then compared after rounding, and trained values are rounded too (to a
wider type they go unchanged).
"""

import hashlib
import json
import platform
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import torch
from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from gammabeta import sparse
from gammabeta.delta_file import Delta, read_delta, write_delta
from gammabeta.errors import InputError, RunError
from gammabeta.models import create_model
from gammabeta.statistics import set_statistics_policy
from gammabeta.subset import Subset, mark, statistics
from gammabeta.version import __version__

# What changes what a layer computes but not its tensors' shapes.
_ATTRIBUTES = (
    "stride", "padding", "dilation", "groups", "padding_mode", "output_padding", "kernel_size",
    "ceil_mode", "eps", "num_groups", "normalized_shape", "negative_slope", "approximate",
    "num_heads", "output_size", "scale_factor",
)  # fmt: skip
_WIDTHS = (torch.float32, torch.bfloat16)


def save_delta(
    module: nn.Module, subset: Subset, path: str | Path, *, info: Mapping[str, Any] | None = None
) -> Delta:
    """Write what the training of `subset` changed in `module`: trained values and all running
    statistics, with what they belong to. One file, kilobytes; see delta_file.py.

    info: JSON values of your own (task, accuracy, names of the classes), kept and shown.
    A network of `create_model` whose frozen values still follow from its seed becomes one that
    `load_network` rebuilds from the file alone. Buffers other than running statistics count as
    frozen. Raises InputError, with nothing written, for a subset of another network and for a
    path that cannot be written.
    """
    delta = make_delta(module, subset, info=info)
    write_delta(delta, Path(path))
    return delta


def load_delta(module: nn.Module, delta: str | Path | Delta) -> Delta:
    """Put a delta into the network that it was trained on, in place, with its policy for running
    statistics. Raises InputError, with nothing changed, for a damaged file, another architecture
    or other frozen values, and names the first tensor that differs."""
    found = delta if isinstance(delta, Delta) else read_delta(delta)
    module = plain(module)
    check_delta(module, found)
    _put(module, found)
    return found


def load_network(delta: str | Path | Delta) -> nn.Module:
    """The whole network of a delta, rebuilt from its seed, in evaluation mode. Raises InputError
    for a delta that belongs to a network of another origin: make that and write load_delta."""
    found = delta if isinstance(delta, Delta) else read_delta(delta)
    if found.network is None:
        raise InputError(
            "this delta belongs to a network that does not follow from a seed: make that network "
            "and write load_delta(module, path)"
        )
    module = create_model(**found.network)
    try:
        check_delta(module, found)
    except InputError as error:
        versions = ", ".join(f"{name} {version}" for name, version in found.versions.items())
        raise RunError(
            f"the network was rebuilt from its seed with other values ({error}): use the versions "
            f"that the delta was saved with ({versions})"
        ) from None
    _put(module, found)
    return module.eval()


def make_delta(
    module: nn.Module, subset: Subset, *, info: Mapping[str, Any] | None = None
) -> Delta:
    """`save_delta` without the file."""
    module = plain(module)
    tensors = current_tensors(module)
    rows = {row.name: row for row in subset.table}
    buffers = statistics(module)
    for name in (*dict(module.named_parameters()), *buffers):
        if name not in rows or rows[name].shape != tuple(tensors[name].shape):
            raise InputError(f"this subset was selected on another network ('{name}' differs)")
    for name in rows:
        if name not in tensors:
            raise InputError(f"this subset was selected on another network ('{name}' differs)")
    values, frozen = {}, {}
    for name, tensor in tensors.items():
        row = rows.get(name)
        if tensor.is_meta:
            raise InputError(f"'{name}' has no values (meta device): train the network first")
        if row is not None and row.verdict == "trained":
            values[name] = tensor.cpu().clone()
        elif name not in buffers:
            if row is not None and row.verdict == "sparse":
                index = entry_index(module, name, subset.per_channel, subset.seed)
                values[name] = tensor.flatten()[index].cpu()
                tensor = without_entries(tensor, index)
            frozen[name] = (mark(tensor), _rounded_mark(tensor))
    layers = _layers(module)
    return Delta(
        text=subset.text,
        statistics=subset.statistics,
        per_channel=subset.per_channel,
        seed=subset.seed,
        values=values,
        roles={name: rows[name].role for name in values},
        sparse=frozenset(name for name in values if rows[name].verdict == "sparse"),
        buffers={name: value.cpu() for name, value in buffers.items()},
        frozen=frozen,
        layers=layers,
        architecture=_architecture(tensors, layers),
        network=_recipe(module, subset, frozen),
        versions={
            "gammabeta": __version__, "torch": torch.__version__, "numpy": np.__version__,
            "safetensors": safetensors.__version__, "python": platform.python_version(),
        },
        info=_checked_info(info),
    )  # fmt: skip


def plain(module: nn.Module) -> nn.Module:
    """The network inside DistributedDataParallel, DataParallel and torch.compile's wrapper."""
    while True:
        if isinstance(module, DistributedDataParallel | DataParallel):
            module = module.module
        elif isinstance(inner := module.__dict__.get("_modules", {}).get("_orig_mod"), nn.Module):
            module = inner
        else:
            return module


def current_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Every parameter, running statistic and other persistent buffer, by name; with the values of
    sparse entries where they are attached."""
    tensors = {name: parameter.detach() for name, parameter in module.named_parameters()}
    for name, entries in sparse.attached(module).items():
        flat, leaf = tensors[name].flatten(), entries.leaf.detach().flatten()
        tensors[name] = flat.scatter(0, entries.index.flatten(), leaf).view_as(tensors[name])
    kept = statistics(module).keys()
    for prefix, child in module.named_modules():
        for last, buffer in child._buffers.items():
            name = f"{prefix}.{last}" if prefix else last
            persistent = last not in child._non_persistent_buffers_set
            if buffer is not None and (persistent or name in kept):
                tensors[name] = buffer.detach()
    return tensors


def check_delta(
    module: nn.Module,
    delta: Delta,
    *,
    base: Mapping[str, Tensor] | None = None,
    marks: MutableMapping[object, str] | None = None,
) -> None:
    """Raise InputError with the first tensor in which a network is not the delta's.

    base: values to look at in place of the module's own. marks: those known from earlier checks of
    the same values, and kept for later ones.
    """
    tensors = current_tensors(module) | dict(base or {})
    marks = {} if marks is None else marks
    names = delta.values.keys() | delta.buffers.keys() | delta.frozen.keys()
    for name, tensor in tensors.items():
        if name not in names:
            raise _other(f"the delta has no '{name}'")
        if name in delta.sparse:
            continue
        value = delta.values.get(name, delta.buffers.get(name))
        if value is None:
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
    if (here := _layers(module)) != delta.layers:
        for place, (name, child) in enumerate(module.named_modules()):
            if here[4 * place : 4 * place + 4] != delta.layers[4 * place : 4 * place + 4]:
                kind = f"of class {type(child).__name__} with the shapes and settings"
                raise _other(f"'{name or 'the network'}' is not {kind} that it has here")
        raise _other("it has more layers")
    for name, tensor in tensors.items():
        if name in delta.frozen and not _is_same(module, name, tensor, delta, marks):
            raise InputError(
                f"'{name}' has other values here than where this delta was trained: load the "
                f"weights that it was trained on first{_origin(delta)}"
            )


def _is_same(
    module: nn.Module, name: str, tensor: Tensor, delta: Delta, marks: MutableMapping[object, str]
) -> bool:
    """Whether a frozen tensor is what it was, up to rounding to bfloat16."""
    own, rounded = delta.frozen[name]
    key: tuple[object, ...] = (name,)
    if name in delta.sparse:
        key = (name, delta.per_channel, delta.seed)
        index = entry_index(module, name, delta.per_channel, delta.seed)
        if tuple(index.shape) != tuple(delta.values[name].shape):
            return False
        tensor = without_entries(tensor, index)
    if key not in marks:
        marks[key] = mark(tensor)
    if marks[key] == own or (tensor.dtype == torch.bfloat16 and marks[key] == rounded):
        return True
    return _rounded_mark(tensor) == own


def _rounded_mark(tensor: Tensor) -> str:
    return mark(tensor.bfloat16()) if tensor.dtype == torch.float32 else ""


def entry_index(module: nn.Module, name: str, per_channel: int, seed: int) -> Tensor:
    """(C, K): which entries of a convolution's flattened weight ``random:K`` trains."""
    layer = module.get_submodule(name.rpartition(".")[0])
    if not isinstance(layer, nn.modules.conv._ConvNd):
        raise _other(f"'{name}' is no weight of a convolution")
    return sparse.choose_entries(layer, name, per_channel, seed).to(layer.weight.device)


def without_entries(weight: Tensor, index: Tensor) -> Tensor:
    """The weight with its trained entries at zero."""
    return weight.flatten().scatter(0, index.flatten(), 0.0).view_as(weight)


@torch.no_grad()
def _put(module: nn.Module, delta: Delta) -> None:
    targets = dict(module.named_parameters()) | dict(module.named_buffers())
    attached = sparse.attached(module)
    for name, value in (delta.values | delta.buffers).items():
        target = targets[name]
        if name in delta.sparse:
            index = entry_index(module, name, delta.per_channel, delta.seed).flatten()
            entries = value.flatten().to(target)
            value = target.flatten().scatter(0, index, entries).view_as(target)
        target.copy_(value)
        if name in attached:
            attached[name].read()
    set_statistics_policy(module, delta.statistics)


def _other(what: str) -> InputError:
    return InputError(f"this delta belongs to another architecture: {what}")


def _origin(delta: Delta) -> str:
    if delta.network is None:
        return ""
    return f" (load_network rebuilds {delta.network['name']} from seed {delta.network['seed']})"


def _layers(module: nn.Module) -> str:
    """Four hex digits for each module: its name, shapes, kind and settings."""
    digits = []
    for name, child in module.named_modules():
        words = [name, *(str(tuple(p.shape)) for p in child._parameters.values() if p is not None)]
        if next(child.children(), None) is None:  # users rename the classes of whole networks
            kind = type(child).__name__
            words.append("BatchNorm" if "BatchNorm" in kind and "Act" not in kind else kind)
        for attribute in _ATTRIBUTES:
            value = getattr(child, attribute, None)
            if isinstance(value, bool | int | float | str | tuple):
                words.append(f"{attribute}={tuple(value) if isinstance(value, tuple) else value}")
        digits.append(hashlib.sha256(" ".join(words).encode()).hexdigest()[:4])
    return "".join(digits)


def _architecture(tensors: Mapping[str, Tensor], layers: str) -> str:
    shapes = "".join(f"{name} {tuple(tensor.shape)}\n" for name, tensor in tensors.items())
    return hashlib.sha256((shapes + layers).encode()).hexdigest()


def _recipe(
    module: nn.Module, subset: Subset, frozen: Mapping[str, tuple[str, str]]
) -> dict[str, Any] | None:
    """The arguments of `create_model`, if its random start still is what did not train."""
    recipe: dict[str, Any] | None = module.__dict__.get("gammabeta_recipe")
    if recipe is None:
        return None
    start = create_model(**recipe)
    tensors = current_tensors(start)
    rows = {row.name: row for row in subset.table}
    for name, (own, _) in frozen.items():
        tensor = tensors.get(name)
        if tensor is None:
            return None
        if name in rows and rows[name].verdict == "sparse":
            index = entry_index(start, name, subset.per_channel, subset.seed)
            tensor = without_entries(tensor, index)
        if mark(tensor) != own:
            return None
    return dict(recipe)


def _checked_info(info: Mapping[str, Any] | None) -> dict[str, Any]:
    try:
        kept: dict[str, Any] = json.loads(json.dumps(dict(info or {}), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise InputError(f"info holds what JSON does not know ({error}): leave it out") from None
    return kept
