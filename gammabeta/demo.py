"""The demonstration: one network, eight subsets, 5,000 real digits, a few minutes on a laptop."""

import torch

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
            precision=_fast_precision(),
        )
        for subset in SUBSETS
    ]


def _fast_precision() -> str:
    """bf16 where the processor computes in it (twice as fast), else fp32 (emulation is slow)."""
    return "bf16" if torch.cpu._is_avx512_bf16_supported() else "fp32"
