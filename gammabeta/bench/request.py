"""What was asked for, checked before anything is made."""

from collections.abc import Sequence

import torch

from gammabeta.bench.case import Case
from gammabeta.bench.contenders import CONTENDERS
from gammabeta.bench.rounds import check_contenders
from gammabeta.errors import InputError, about, suggest
from gammabeta.models import architecture
from gammabeta.names import parse_name
from gammabeta.spec import RunSpec
from gammabeta.subset import select

PRECISIONS = {"fp32": ["fp32"], "bf16": ["bf16"], "both": ["fp32", "bf16"]}
_TUNES = "torch-compile-max"  # for minutes, so only when asked for


def make_case(model: str, trainable: str, batch: int | None, device: torch.device) -> Case:
    """In fp32. batch: None for 128 images, or 8 of ImageNet's size on a CPU."""
    if batch is None:
        with about("model"):
            small = parse_name(model).family == "imagenet_resnet" and device.type == "cpu"
        batch = 8 if small else 128
    spec = RunSpec(model=model, trainable=trainable, data="synthetic", batch_size=batch)
    if batch < 2:
        raise InputError("batch_size is 1, too few for BatchNorm: write 2 or more", "batch_size")
    with about("trainable"):
        if not select(architecture(spec.model), spec.trainable).count:
            raise InputError("nothing trains, so no step can be timed: write for example bn")
    return Case(spec.model, spec.trainable, "fp32", batch, device)


def choose_precisions(text: str) -> list[str]:
    """fp32, bf16, or both of them."""
    if text not in PRECISIONS:
        raise InputError(f"unknown precision '{text}': {suggest(text, PRECISIONS)}")
    return PRECISIONS[text]


def choose_contenders(text: str | None, case: Case) -> list[str]:
    """Names from a list such as torch,fused; None: all that can take the case and start soon."""
    if text is None:
        return possible(case, without=[_TUNES])
    names = list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    if not names:
        raise InputError(f"no contender is named: known: {', '.join(CONTENDERS)}")
    check_contenders(names, case)
    return names


def possible(case: Case, without: Sequence[str] = ()) -> list[str]:
    """The contenders that can take this case."""
    return [
        name
        for name, contender in CONTENDERS.items()
        if name not in without and contender.why_not(case) is None
    ]
