"""Feature maps: what chosen convolutions make of some test images, and the filters themselves.

A map is the raw output of a convolution (with its bias, where it has one), before BatchNorm and
ReLU: this is what the non-author report shows. Convolutions are counted from 1 in order of
execution, those on shortcuts too. In `report_resnet20` the 1st and the 4th are the report's layers
1 and 10 (Keras counts every layer), the 10th is its tenth convolution.
"""

import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gammabeta.errors import RunError
from gammabeta.probe.pack import pack, pack_scaled
from gammabeta.probe.subject import Subject

PLACES = (1, 4, 10)
IMAGES = 8
CHANNELS = 64  # the first so many of a convolution
SIDE = 64  # larger maps are averaged down, so that a file stays small

Array = np.ndarray[Any, np.dtype[Any]]


def asked() -> dict[str, Any]:
    return {"places": list(PLACES), "pictures": IMAGES, "channels": CHANNELS, "side": SIDE}


def measure(subject: Subject) -> dict[str, Any]:
    """images: which test images, spread evenly over those that are looked at; pixels: of
    them, as they were before normalisation, uint8 N H W C; labels, predicted: their classes.

    layers: one a convolution, {name, place, channels, averaged, maps, filters}. channels: how many
    it has, of which the first 64 are kept; averaged: maps are means over squares of so many pixels
    a side; maps: (N, C, H, W), each map on its own scale; filters: (C, C in, height, width), each
    filter on its own scale. `read.feature_maps` reads them. A place that the
    network does not have is left out.
    """
    order: list[nn.Module] = []
    outputs: dict[int, Tensor] = {}

    def keep(module: nn.Module, _: object, out: Tensor) -> None:
        if module not in order:
            order.append(module)
        place = order.index(module) + 1
        if place in PLACES:  # all of them would fill the memory of a deep network
            outputs[place] = out

    count = sum(len(labels) for _, labels in subject.test())
    chosen = sorted(set(np.linspace(0, count - 1, min(IMAGES, count)).round().astype(int).tolist()))
    pixels: list[Tensor] = []
    classes: list[int] = []
    predicted: list[int] = []
    maps: dict[int, list[Tensor]] = {}
    averaged: dict[int, int] = {}
    convolutions = {m: n for n, m in subject.network.named_modules() if isinstance(m, nn.Conv2d)}
    handles = [each.register_forward_hook(keep) for each in convolutions]
    try:
        first = 0
        for images, labels in subject.test():
            # whole batches: under the policy "batch" the others of its batch shape an image's maps
            here = [each - first for each in chosen if first <= each < first + len(labels)]
            first += len(labels)
            if not here:
                continue
            logits = subject.logits(images)
            pixels.append(_pixels(images[here], subject))
            classes += labels[here].tolist()
            predicted += logits[here].argmax(1).tolist()
            for place, out in sorted(outputs.items()):
                found = out[here, :CHANNELS].float()
                averaged[place] = math.ceil(max(found.shape[2:]) / SIDE)
                small = F.avg_pool2d(found, averaged[place]) if averaged[place] > 1 else found
                maps.setdefault(place, []).append(small.cpu())
            outputs.clear()
    finally:
        for handle in handles:
            handle.remove()
    if not maps:
        raise RunError(f"run {subject.run.id} has no convolution to look at: leave maps out")
    layers = []
    for place, parts in maps.items():
        layer = order[place - 1]
        assert isinstance(layer, nn.Conv2d)
        layers.append(
            {
                "name": convolutions[layer],
                "place": place,
                "channels": layer.out_channels,
                "averaged": averaged[place],
                "maps": pack_scaled(torch.cat(parts).numpy()),
                "filters": pack_scaled(layer.weight[:CHANNELS].detach().float().cpu().numpy(), 3),
            }
        )
    return {
        "images": chosen,
        "pixels": pack(torch.cat(pixels).numpy()),
        "labels": classes,
        "predicted": predicted,
        "layers": layers,
        "summary": {"images": len(chosen), "convolutions": [each["name"] for each in layers]},
    }


def _pixels(images: Tensor, subject: Subject) -> Tensor:
    """Normalised images float32 (N, C, H, W) back to uint8 (N, H, W, C), on the CPU."""
    assert subject.batches is not None
    data = subject.batches.data
    mean, std = (torch.tensor(each).view(-1, 1, 1) for each in (data.mean, data.std))
    return ((images.cpu() * std + mean) * 255).round().clamp(0, 255).byte().permute(0, 2, 3, 1)
