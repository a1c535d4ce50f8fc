"""A delta: what training a subset changed in a network, and its file.

The file is safetensors: one flat tensor for each role and type ("trained/gamma/float32",
"statistics/running_mean/float32"), values in the order of the index; the index, JSON under zlib,
as bytes ("index"); and in the metadata one line of JSON with what a person asks ("about") and the
sha256 of the whole file in which that sha256 is sixty-four zeros. A tensor for each layer would
cost more bytes in names than in numbers: a ResNet-866 has 866 layers of 16 to 64 channels.
"""

import hashlib
import json
import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from gammabeta.disk import FAILING, check_name, replace_file
from gammabeta.errors import InputError, RunError
from gammabeta.tensorfile import encode, read_header

FORMAT = 3  # 1 was never released; 2 held no settings, so they cannot be compared
_WANTED = "a file that gammabeta delta, or in Python save_delta, wrote"
_INDEX_LIMIT = 1 << 28  # bytes; a small file must not unpack to gigabytes
_ZEROS = "0" * 64
_KINDS = {
    "trainable": str, "statistics": str, "per_channel": int, "seed": int,
    "frozen_sha256": str, "frozen_rounded": str, "dtype": str, "network": dict | None,
    "versions": dict, "info": dict,
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Delta:
    """What a subset's training changed, and what it belongs to. Tensors are on the CPU.

    values: trained values by parameter name; those of a sparse tensor are (C, K). roles: likewise.
    sparse: the names of the sparse ones. buffers: running statistics by name.
    frozen: name -> (mark, mark after rounding to bfloat16, empty where it is not fp32) of every
    tensor that did not train. frozen_sha256: one over all of their values; frozen_rounded: one over
    them with fp32 rounded to bfloat16. layers: what every module is, see settings.py. dtype: what
    the frozen tensors were held in, as "float32" or "mixed". network: the arguments of
    `create_model` for a network that follows from a seed (converted to `dtype`), else None. info:
    whatever was given to `save_delta`.
    """

    text: str
    statistics: str
    per_channel: int
    seed: int
    values: dict[str, Tensor]
    roles: dict[str, str]
    sparse: frozenset[str]
    buffers: dict[str, Tensor]
    frozen: dict[str, tuple[str, str]]
    frozen_sha256: str
    frozen_rounded: str
    layers: dict[str, dict[str, Any]]
    dtype: str
    network: dict[str, Any] | None
    versions: dict[str, str]
    info: dict[str, Any]

    @property
    def architecture(self) -> str:
        """The sha256 of all layers: a name for the network, which is not what is compared."""
        return hashlib.sha256(json.dumps(self.layers).encode()).hexdigest()

    @property
    def count(self) -> int:
        """Number of trained values."""
        return sum(value.numel() for value in self.values.values())

    def describe(self) -> dict[str, Any]:
        """JSON values for a person: no tensors, no marks."""
        by_role: dict[str, int] = {}
        for name, value in self.values.items():
            by_role[self.roles[name]] = by_role.get(self.roles[name], 0) + value.numel()
        return {
            "format": FORMAT,
            "trainable": self.text,
            "statistics": self.statistics,
            "seed": self.seed,
            "per_channel": self.per_channel,
            "trained": self.count,
            "trained_by_role": by_role,
            "running_statistics": sum(value.numel() for value in self.buffers.values()),
            "network": self.network,
            "dtype": self.dtype,
            "architecture": self.architecture,
            "frozen_sha256": self.frozen_sha256,
            "frozen_rounded": self.frozen_rounded,
            "versions": self.versions,
            "info": self.info,
        }


def write_delta(delta: Delta, path: Path) -> int:
    """Write the file, whole or not at all; returns its bytes. Raises InputError for a path under
    which nothing can be written, RunError if the disk fails."""
    check_name(path, "task.delta")
    data = to_bytes(delta)
    try:
        replace_file(path, data)
    except OSError as error:
        reason = error.strerror or str(error)
        if error.errno in FAILING:
            raise RunError(f"could not write {path} ({reason})") from error
        raise InputError(f"cannot write {path} ({reason}): name another file") from None
    return len(data)


def read_delta(path: str | Path) -> Delta:
    """The delta in a file. Raises InputError, in one line, for whatever else is there."""
    if not isinstance(path, str | Path):
        raise InputError(f"{path!r} is no file name: name {_WANTED}")
    path = Path(path)
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path} does not exist: name {_WANTED}") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"cannot read {str(path)!r} ({reason}): name {_WANTED}") from None
    return from_bytes(data, str(path))


def to_bytes(delta: Delta) -> bytes:
    """The bytes of the file. The same delta gives the same bytes."""
    parts: dict[str, list[Tensor]] = {}
    kinds: dict[str, int] = {}  # most layers are as some other is
    layers = [
        [name, kinds.setdefault(json.dumps(about), len(kinds))]
        for name, about in delta.layers.items()
    ]
    index: dict[str, Any] = {"trained": [], "statistics": [], "frozen": [], "layers": layers}
    index["kinds"] = [json.loads(kind) for kind in kinds]
    for name, value in delta.values.items():
        key = f"{delta.roles[name]}/{_type_name(value)}"
        parts.setdefault(f"trained/{key}", []).append(value.flatten())
        index["trained"].append([name, key, list(value.shape), name in delta.sparse])
    for name, value in delta.buffers.items():
        key = f"{name.rpartition('.')[2]}/{_type_name(value)}"
        parts.setdefault(f"statistics/{key}", []).append(value.flatten())
        index["statistics"].append([name, key, list(value.shape)])
    index["frozen"] = [[name, *marks] for name, marks in delta.frozen.items()]
    tensors = {key: torch.cat(values) for key, values in parts.items()}
    packed = zlib.compress(json.dumps(index, separators=(",", ":")).encode(), 9)
    tensors["index"] = torch.frombuffer(bytearray(packed), dtype=torch.uint8)
    about = json.dumps(delta.describe(), sort_keys=True)
    words = {"gammabeta_delta": str(FORMAT), "about": about, "sha256": _ZEROS}
    data = encode(tensors, words)
    return _with_sum(data, _ZEROS, hashlib.sha256(data).hexdigest())


def from_bytes(data: bytes, where: str) -> Delta:
    """The inverse. where: how messages call the file."""
    try:
        header = read_header(data)[0] if len(data) > 8 else {}
        words = header.get("__metadata__", {})
        found, given = words.get("gammabeta_delta"), words.get("sha256")
    except (ValueError, AttributeError, RecursionError):
        raise InputError(f"{where} is no delta, or a damaged one: write it again") from None
    if not isinstance(found, str) or not isinstance(given, str):
        raise InputError(f"{where} is no delta: name {_WANTED}")
    if found != str(FORMAT):
        is_older = found.isdecimal() and int(found) < FORMAT
        what = "save it again, from the run or the network" if is_older else "update gammabeta"
        raise InputError(f"{where} has format {found}, this version reads {FORMAT}: {what}")
    if hashlib.sha256(_with_sum(data, given, _ZEROS)).hexdigest() != given:
        raise InputError(f"{where} is damaged (its checksum differs): copy it or write it again")
    try:
        return _unpack(safetensors.torch.load(data), json.loads(words["about"]))
    except InputError:
        raise
    except Exception:  # a right checksum over something that we did not write
        raise InputError(f"{where} is no delta: name {_WANTED}") from None


def _with_sum(data: bytes, old: str, new: str) -> bytes:
    """The file with another sha256 in its metadata."""
    return data.replace(f'"sha256":"{old}"'.encode(), f'"sha256":"{new}"'.encode(), 1)


def _unpack(tensors: Mapping[str, Tensor], about: dict[str, Any]) -> Delta:
    unpacker = zlib.decompressobj()
    text = unpacker.decompress(tensors["index"].numpy().tobytes(), _INDEX_LIMIT)
    if unpacker.unconsumed_tail:
        raise InputError("the index of this delta is too long: it is damaged, or of other origin")
    index = json.loads(text)
    offsets: dict[str, int] = {}

    def take(key: str, shape: list[int]) -> Tensor:
        start = offsets.get(key, 0)
        offsets[key] = start + math.prod(shape)
        # a copy: a view would keep the values of all layers alive
        return tensors[key][start : offsets[key]].reshape(shape).clone()

    for key, kind in _KINDS.items():
        if not isinstance(about[key], kind):
            raise TypeError(f"{key} is {about[key]!r}")
    return Delta(
        text=about["trainable"],
        statistics=about["statistics"],
        per_channel=about["per_channel"],
        seed=about["seed"],
        values={name: take(f"trained/{key}", shape) for name, key, shape, _ in index["trained"]},
        roles={name: key.partition("/")[0] for name, key, _, _ in index["trained"]},
        sparse=frozenset(name for name, _, _, sparse in index["trained"] if sparse),
        buffers={
            name: take(f"statistics/{key}", shape) for name, key, shape in index["statistics"]
        },
        frozen={name: (own, rounded) for name, own, rounded in index["frozen"]},
        layers={name: dict(index["kinds"][kind]) for name, kind in index["layers"]},
        frozen_sha256=about["frozen_sha256"],
        frozen_rounded=about["frozen_rounded"],
        dtype=about["dtype"],
        network=about["network"],
        versions=about["versions"],
        info=about["info"],
    )


def _type_name(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
