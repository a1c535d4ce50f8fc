"""How often each ReLU feature is off, and which features are dead or constant.

A *feature* is one channel of one ReLU's output. An *input* of it is one test image at one position:
a feature of a map of H x W pixels has images x H x W inputs. It is *off* for an input where its
output is exactly zero, in the precision of the run. *Mostly off*: off on more than 99 % of its
inputs, strictly. *Dead*: off on all of them, so a dead feature is mostly off too. *Constant*: the
same value on all of them, exactly, and not zero. A value that is not a number is not off.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gammabeta.errors import RunError
from gammabeta.probe.relus import watched
from gammabeta.probe.subject import Subject, short

MOSTLY = 0.99


@dataclass
class _Counts:
    """Of one ReLU so far. shape: of its output for one image, (C, H, W) or (C,). off: int64 (C,);
    low, high: smallest and largest value, float32 (C,)."""

    shape: tuple[int, ...]
    inputs: int
    off: Tensor
    low: Tensor
    high: Tensor


def asked() -> dict[str, Any]:
    return {"mostly": MOSTLY}


def measure(subject: Subject) -> dict[str, Any]:
    """layers: one a ReLU, in order of execution, {name, shape, inputs, off, low, high, share,
    mostly_off, dead, constant}. shape: (C, H, W) of an image; inputs: of each feature; off: on how
    many of them, a whole number a feature; low, high: its smallest and largest output; share: the
    mean over features of off / inputs; mostly_off, dead, constant: how many features are. summary:
    the same of all features of the network, each counted once.
    """
    counts: dict[str, _Counts] = {}

    def see(name: str, out: Tensor) -> None:
        # N C H W -> rows of channels: a view where the memory is channels_last
        rows = out.detach().movedim(1, -1).reshape(-1, out.shape[1])
        off = (rows == 0).sum(0)
        low, high = rows.amin(0).float(), rows.amax(0).float()
        before = counts.get(name)
        if before is None:
            counts[name] = _Counts(tuple(out.shape[1:]), len(rows), off, low, high)
            return
        before.inputs += len(rows)
        before.off += off
        before.low = torch.minimum(before.low, low)
        before.high = torch.maximum(before.high, high)

    with watched(subject.network, see):
        for images, _ in subject.test():
            subject.logits(images)
    if not counts:
        raise RunError(f"run {subject.run.id} has no ReLU to look at: leave activity out")
    layers = [_layer(name, each) for name, each in counts.items()]
    features = sum(len(layer["off"]) for layer in layers)
    shares = sum(count / layer["inputs"] for layer in layers for count in layer["off"])
    summary = {"features": features, "share": short(shares / features)}
    for kind in ("mostly_off", "dead", "constant"):
        summary[kind] = sum(layer[kind] for layer in layers)
    return {"layers": layers, "summary": summary}


def _layer(name: str, counts: _Counts) -> dict[str, Any]:
    off = counts.off.tolist()
    dead = [count == counts.inputs for count in off]
    same = (counts.low == counts.high).tolist()
    return {
        "name": name,
        "shape": list(counts.shape),
        "inputs": counts.inputs,
        "off": off,
        "low": [short(value) for value in counts.low.tolist()],
        "high": [short(value) for value in counts.high.tolist()],
        "share": short(sum(off) / (len(off) * counts.inputs)),
        "mostly_off": sum(is_mostly_off(count, counts.inputs) for count in off),
        "dead": sum(dead),
        "constant": sum(each and not gone for each, gone in zip(same, dead, strict=True)),
    }


def is_mostly_off(off: int, inputs: int) -> bool:
    """Whether a feature is off on more than 99 % of its inputs; in whole numbers, for at exactly
    99 % a quotient could fall on either side."""
    return 100 * off > 99 * inputs
