"""Tensors and a few words as the bytes of a safetensors file; the same tensors, the same bytes."""

import json
from collections.abc import Mapping
from typing import Any

import safetensors.torch
from torch import Tensor, contiguous_format

from gammabeta.errors import InputError


def encode(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """The bytes of a safetensors file: eight of header length, a JSON header, the numbers.

    Raises InputError for a tensor named ``__metadata__``.
    """
    if "__metadata__" in tensors:
        raise InputError("safetensors keeps the name __metadata__ for itself: rename that tensor")
    # Own memory for each: views and tied tensors are refused by safetensors.
    copies = {
        name: tensor.detach().cpu().clone(memory_format=contiguous_format)
        for name, tensor in tensors.items()
    }
    words = {"format": "pt", **metadata}
    data = safetensors.torch.save(copies, words)
    # safetensors writes the metadata in an order that differs between processes; with its keys
    # sorted the same tensors always give the same file.
    header, numbers = read_header(data)
    header["__metadata__"] = dict(sorted(words.items()))
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the numbers start at a multiple of eight
    return len(text).to_bytes(8, "little") + text + data[numbers:]


def read_header(data: bytes) -> tuple[dict[str, Any], int]:
    """The JSON header of a valid safetensors file, and where its numbers start."""
    end = 8 + int.from_bytes(data[:8], "little")
    header: dict[str, Any] = json.loads(data[8:end])
    return header, end
