"""What a tensor's values are, in a few digits: whether two networks hold the same."""

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from gammabeta.errors import RunError
from gammabeta.wrappers import named_parameters


def digest(tensor: Tensor) -> str:
    """The sha256 of a tensor's type, shape and values, in hex."""
    values = tensor.detach().cpu().contiguous()
    found = hashlib.sha256(f"{values.dtype} {tuple(values.shape)} ".encode())
    raw: Any = values.flatten().view(torch.uint8).numpy()
    found.update(raw)  # read where it is, not copied
    return found.hexdigest()


def mark(tensor: Tensor) -> str:
    """The first 16 hex digits of a tensor's `digest`."""
    return digest(tensor)[:16]


def together(digests: Mapping[str, str]) -> str:
    """One sha256 over the digests of many tensors and their names, in whatever order they come."""
    lines = (f"{name} {found}\n" for name, found in sorted(digests.items()))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def fingerprint(module: nn.Module) -> dict[str, str]:
    """Parameter name -> its `mark`."""
    return {name: mark(parameter) for name, parameter in named_parameters(module).items()}


def check_fingerprint(module: nn.Module, expected: Mapping[str, str]) -> None:
    """Raise RunError with the name of the first tensor that is not what it was."""
    found = fingerprint(module)
    for name in sorted(found.keys() | expected.keys()):
        if found.get(name) != expected.get(name):
            raise RunError(
                f"'{name}' was rebuilt from the seed with other values than the run began with: "
                "use the gammabeta and numpy versions noted in its env.json (orthogonal weights "
                "also depend on the processor's linear algebra)"
            )
