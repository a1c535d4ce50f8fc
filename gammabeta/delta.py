"""Deltas of a network: make one from a trained subset, check it against a network, put it in.

A delta fits one architecture and one set of frozen values, and both are checked before anything is
changed. A network may be held in bfloat16 where the delta was trained in fp32, or the other way
round: its frozen values are then compared after rounding, and trained values are rounded too (to a
wider type they go unchanged).
"""

import inspect
import json
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from gammabeta import settings, sparse
from gammabeta.delta_check import (
    check_delta,
    current_tensors,
    entry_index,
    rounded_digest,
    without_entries,
)
from gammabeta.delta_file import Delta, read_delta, write_delta
from gammabeta.errors import InputError, RunError
from gammabeta.fingerprint import digest, together
from gammabeta.models import create_model
from gammabeta.statistics import set_statistics_policy
from gammabeta.subset import Subset, statistics
from gammabeta.version import __version__
from gammabeta.wrappers import named_buffers, named_parameters, plain


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
    if not isinstance(path, str | Path):
        raise InputError(f"{path!r} is no file name: name one, for example 'task.delta'")
    delta = make_delta(module, subset, info=info)
    write_delta(delta, Path(path))
    return delta


def load_delta(module: nn.Module, delta: str | Path | Delta) -> Delta:
    """Put a delta into the network that it was trained on, in place, with its policy for running
    statistics. Raises InputError, with nothing changed, for a damaged file, another architecture
    or other frozen values, and names the first tensor that differs."""
    module = plain(module)
    found = delta if isinstance(delta, Delta) else read_delta(delta)
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
    module = _start(found)
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
    wrapped, module = module, plain(module)
    if not isinstance(subset, Subset):
        raise InputError(f"{subset!r} is no subset: write select(module, 'bn'), and give that")
    if isinstance(wrapped, AveragedModel) and any(r.verdict == "sparse" for r in subset.table):
        raise InputError(
            "AveragedModel averages parameters, and the entries that random:K trains are none: "
            "save the delta of the network that trained"
        )
    tensors = current_tensors(module)
    rows = {row.name: row for row in subset.table}
    buffers = statistics(module)
    for name in (*named_parameters(module), *buffers):
        if name not in rows or rows[name].shape != tuple(tensors[name].shape):
            raise InputError(f"this subset was selected on another network ('{name}' differs)")
    for name in rows:
        if name not in tensors:
            raise InputError(f"this subset was selected on another network ('{name}' differs)")
    values, own, rounded = {}, {}, {}
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
            own[name], rounded[name] = digest(tensor), rounded_digest(tensor)
    dtype = _frozen_dtype(tensors, own)
    return Delta(
        text=subset.text,
        statistics=subset.statistics,
        per_channel=subset.per_channel,
        seed=subset.seed,
        values=values,
        roles={name: rows[name].role for name in values},
        sparse=frozenset(name for name in values if rows[name].verdict == "sparse"),
        buffers={name: value.cpu() for name, value in buffers.items()},
        frozen={name: (own[name][:16], rounded[name][:16]) for name in own},
        frozen_sha256=together(own),
        frozen_rounded=together({name: rounded[name] or own[name] for name in own}),
        layers=settings.layers(module),
        dtype=dtype,
        network=_recipe(module, subset, own, dtype),
        versions={
            "gammabeta": __version__, "torch": torch.__version__, "numpy": np.__version__,
            "safetensors": safetensors.__version__, "python": platform.python_version(),
        },
        info=_checked_info(info),
    )  # fmt: skip


@torch.no_grad()
def _put(module: nn.Module, delta: Delta) -> None:
    targets = named_parameters(module) | named_buffers(module)
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


def _frozen_dtype(tensors: Mapping[str, Tensor], frozen: Mapping[str, str]) -> str:
    """The type in which the frozen tensors are held, as "float32"; "mixed" where there are more."""
    kinds = {tensors[name].dtype for name in frozen if tensors[name].is_floating_point()}
    return (
        str(next(iter(kinds), torch.float32)).removeprefix("torch.") if len(kinds) < 2 else "mixed"
    )


def _recipe(
    module: nn.Module, subset: Subset, frozen: Mapping[str, str], dtype: str
) -> dict[str, Any] | None:
    """The arguments of `create_model`, if its random start, converted, still is what did not
    train."""
    recipe: dict[str, Any] | None = module.__dict__.get("gammabeta_recipe")
    if recipe is None or dtype == "mixed":
        return None
    start = create_model(**recipe).to(getattr(torch, dtype))
    tensors = current_tensors(start)
    rows = {row.name: row for row in subset.table}
    for name, own in frozen.items():
        tensor = tensors.get(name)
        if tensor is None:
            return None
        if name in rows and rows[name].verdict == "sparse":
            index = entry_index(start, name, subset.per_channel, subset.seed)
            tensor = without_entries(tensor, index)
        if digest(tensor) != own:
            return None
    return dict(recipe)


def _start(delta: Delta) -> nn.Module:
    """The network that a delta's recipe gives, every tensor in the type that it had."""
    recipe = delta.network or {}
    try:
        inspect.signature(create_model).bind(**recipe)
        module = create_model(**recipe).to(getattr(torch, delta.dtype))
    except InputError:
        raise
    except (TypeError, AttributeError, ValueError, KeyError) as error:
        raise InputError(
            f"this delta's network is none that this version makes ({error}): update gammabeta, or "
            "make the network and write load_delta(module, path)"
        ) from None
    tensors = named_parameters(module) | named_buffers(module)
    for name, value in (delta.values | delta.buffers).items():
        if name in tensors and value.is_floating_point():
            tensors[name].data = tensors[name].data.to(value.dtype)
    return module


def _checked_info(info: Mapping[str, Any] | None) -> dict[str, Any]:
    try:
        kept: dict[str, Any] = json.loads(json.dumps(dict(info or {}), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise InputError(f"info holds what JSON does not know ({error}): leave it out") from None
    return kept
