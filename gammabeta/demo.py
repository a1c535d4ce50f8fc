"""The demonstration: one network, eight subsets, 5,000 real digits, a few minutes on a laptop."""

import torch

from gammabeta.engine import fast_precision
from gammabeta.spec import RunSpec

SUBSETS = ("none", "output", "random:2", "beta", "gamma", "bn", "bn+output", "all")
EPOCHS = 8


def demo_specs() -> list[RunSpec]:
    """cifar_resnet_14 with each subset, in the order of the table."""
    return [
        RunSpec(
            model="cifar_resnet_14",
            trainable=subset,
            data="digits",
            epochs=EPOCHS,
            batch_size=32,  # many small steps learn more from 4,000 images than few large ones
            precision=fast_precision(torch.device("cpu")),
        )
        for subset in SUBSETS
    ]
