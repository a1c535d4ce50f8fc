"""Weights that a run starts from in place of its random start.

A spec names a file of tensors by its sha256, and the file is kept in the cache folder, so that a
run can be rebuilt wherever the file went. Where the cache was emptied, keep the file again.
"""

import hashlib
import io
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from gammabeta import tensorfile
from gammabeta.cache import cache_folder
from gammabeta.disk import replace_file
from gammabeta.errors import InputError, RunError
from gammabeta.roles import find_output
from gammabeta.wrappers import plain_name

_NESTED = ("state_dict", "model", "model_state_dict")  # where training scripts put a state_dict


def keep_weights(path: str | Path) -> str:
    """Keep a copy of the tensors in a file; returns the sha256 of the file, for `RunSpec.weights`.

    path: safetensors, or what `torch.save` wrote of a state_dict (it is read with weights_only, so
    no code in it runs). Raises InputError for anything else, with nothing kept.
    """
    data = _read(Path(path))
    name = hashlib.sha256(data).hexdigest()
    copy = tensorfile.encode(_tensors(data, str(path)), {})
    place = _place(name)
    try:
        if not place.exists():
            place.parent.mkdir(parents=True, exist_ok=True)
            replace_file(place, copy)
    except OSError as error:
        raise RunError(f"could not keep {path} in {place.parent} ({error.strerror})") from error
    return name


def kept_weights(sha256: str) -> dict[str, Tensor]:
    """The tensors that `keep_weights` kept under this name."""
    if not re.fullmatch("[0-9a-f]{64}", sha256):
        raise InputError(
            f"weights is {sha256!r}: write the sha256 that gammabeta.weights.keep_weights(file) "
            "returns (64 hex digits), or --weights FILE"
        )
    place = _place(sha256)
    try:
        return safetensors.torch.load(place.read_bytes())
    except FileNotFoundError:
        raise InputError(
            f"the weights {sha256[:12]} are not in {place.parent}: give their file once more, by "
            "--weights FILE or gammabeta.weights.keep_weights(file)"
        ) from None
    except (OSError, SafetensorError) as error:
        raise InputError(f"{place} is damaged ({error}): remove it, keep the file again") from None


@torch.no_grad()
def load_weights(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Copy tensors into a network, all that it has, by name. A classifier for another number of
    classes stays what it is in `model`. Raises InputError for whatever else differs."""
    own = model.state_dict()
    classifier = find_output(model)
    head = {name for name in own if classifier and name.startswith(f"{classifier}.")}
    is_other = any(name in tensors and tensors[name].shape != own[name].shape for name in head)
    for name in tensors:
        if name not in own:
            raise InputError(f"they have {name!r}, and the network has not: name its weights")
    for name, value in own.items():
        if is_other and name in head:
            continue
        if name not in tensors:
            if name.endswith("num_batches_tracked"):  # files of before 2019 lack it
                continue
            raise InputError(f"they have no {name!r}, which the network has: name its weights")
        given = tensors[name]
        if given.shape != value.shape:
            shapes = f"shape {tuple(given.shape)}, and in the network {tuple(value.shape)}"
            raise InputError(f"their {name!r} has {shapes}: name its weights")
        value.copy_(given)


def _place(sha256: str) -> Path:
    try:
        return cache_folder() / "weights" / f"{sha256}.safetensors"
    except OSError as error:
        raise InputError(str(error)) from None


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a path that no system accepts
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"cannot read weights {str(path)!r} ({reason}): name a file") from None


def _tensors(data: bytes, title: str) -> dict[str, Tensor]:
    """The state_dict in a file's bytes, by names without DistributedDataParallel's prefix and what
    torch.compile adds."""
    try:
        found: Any = safetensors.torch.load(data)
    except SafetensorError:
        try:
            found = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        except Exception:  # whatever a damaged archive makes torch raise
            raise InputError(
                f"{title} holds no weights: name a .safetensors file, or one that torch.save wrote "
                "of a state_dict (a whole pickled module is not read: it could run code)"
            ) from None
    for key in _NESTED:
        if isinstance(found, dict) and isinstance(found.get(key), dict):
            found = found[key]
    if not isinstance(found, dict) or not all(isinstance(each, Tensor) for each in found.values()):
        raise InputError(f"{title} holds no state_dict of tensors: save one by torch.save")
    named = {plain_name(str(name)): value for name, value in found.items()}
    if named and all(name.startswith("module.") for name in named):
        return {name.removeprefix("module."): value for name, value in named.items()}
    return named
