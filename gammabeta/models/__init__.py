"""Networks of the paper and of the non-author report on it, made from a name and a seed alone.

    cifar_resnet_<depth>[_<filters>]     depth = 6D+2; filters of the first stage, default 16
    cifar_vgg_<depth>                    depth 11, 13, 16 or 19
    imagenet_resnet_<depth>[_<filters>]  depth 18, 34, 50, 101, 152 or 200; filters default 64
    report_resnet20                      the report's bottleneck network

The keys of a state_dict are those of open_lth for the CIFAR networks and those of torchvision for
the ImageNet networks, so that weights from there load.
"""

import torch
from torch import nn

from gammabeta.errors import InputError, suggest
from gammabeta.models.cifar_resnet import CifarResNet
from gammabeta.models.cifar_vgg import PLANS as VGG_PLANS
from gammabeta.models.cifar_vgg import CifarVGG
from gammabeta.models.imagenet_resnet import STAGES as IMAGENET_STAGES
from gammabeta.models.imagenet_resnet import ImageNetResNet
from gammabeta.models.initialise import initialise
from gammabeta.models.report_resnet import ReportResNet20

CIFAR_DEPTHS = (14, 32, 56, 110, 218, 434, 866)
CIFAR_FILTERS = (32, 64, 128, 256, 512)
PAPER_IMAGENET_DEPTHS = (18, 34, 50, 101, 200)

# Every network of the paper, in the order of its tables, and the one of the report.
PAPER_NETWORKS = (
    *(f"cifar_resnet_{depth}" for depth in CIFAR_DEPTHS),
    *(f"cifar_resnet_14_{filters}" for filters in CIFAR_FILTERS),
    *(f"cifar_vgg_{depth}" for depth in VGG_PLANS),
    *(f"imagenet_resnet_{depth}" for depth in PAPER_IMAGENET_DEPTHS),
    "report_resnet20",
)


def create_model(
    name: str,
    *,
    num_classes: int | None = None,
    weight_init: str = "kaiming_normal",
    norm_init: str = "uniform",
    seed: int = 0,
) -> nn.Module:
    """The network `name` at its random start, on the CPU, in training mode.

    num_classes: 10 by default, 1000 for the ImageNet networks. Images are (N, 3, H, W) and logits
    (N, num_classes). Raises InputError, with the nearest right names, for a wrong name.
    """
    model = architecture(name, num_classes).to_empty(device="cpu")
    initialise(model, weight_init, norm_init, seed)
    return model


def architecture(name: str, num_classes: int | None = None) -> nn.Module:
    """The network without values (on the meta device): enough to count and to select from."""
    if num_classes is not None and num_classes < 1:
        raise InputError(f"num_classes is {num_classes}: write 1 or more")
    family, numbers = _parse(name)
    with torch.device("meta"):
        if family == "cifar_resnet":
            depth, filters = numbers[0], numbers[1] if len(numbers) > 1 else 16
            return CifarResNet((depth - 2) // 6, filters, num_classes or 10)
        if family == "cifar_vgg":
            return CifarVGG(numbers[0], num_classes or 10)
        if family == "imagenet_resnet":
            filters = numbers[1] if len(numbers) > 1 else 64
            return ImageNetResNet(numbers[0], filters, num_classes or 1000)
        return ReportResNet20(num_classes or 10)


def image_size(name: str) -> int:
    """Height and width in pixels of the images the network is made for."""
    return 224 if name.startswith("imagenet_") else 32


def _parse(name: str) -> tuple[str, list[int]]:
    """'cifar_resnet_14_32' -> ('cifar_resnet', [14, 32]), or an InputError that helps."""
    if name == "report_resnet20":
        return name, []
    for family, most in (("cifar_resnet", 2), ("cifar_vgg", 1), ("imagenet_resnet", 2)):
        if name.startswith(family + "_"):
            words = name.removeprefix(family + "_").split("_")
            if len(words) > most or not all(w.isascii() and w.isdigit() for w in words):
                break
            numbers = [int(word) for word in words]
            _check_depth(family, name, numbers[0])
            if len(numbers) > 1 and not 1 <= numbers[1] <= 4096:
                raise InputError(f"{name}: write between 1 and 4096 filters, as in {family}_14_32")
            return family, numbers
    raise InputError(f"unknown network '{name}': {suggest(name, PAPER_NETWORKS)}")


def _check_depth(family: str, name: str, depth: int) -> None:
    if family == "cifar_resnet":
        if depth < 8 or (depth - 2) % 6:
            lower = max(8, (depth - 2) // 6 * 6 + 2)
            near = [lower, lower + 6] if depth >= 8 else [8, 14]
            names = " or ".join(f"cifar_resnet_{each}" for each in near)
            raise InputError(f"{name}: the depth must be 6D+2; did you mean {names}?")
        if depth > 6002:
            raise InputError(f"{name}: the depth must be at most 6002")
        return
    known = tuple(VGG_PLANS if family == "cifar_vgg" else IMAGENET_STAGES)
    if depth not in known:
        near = sorted(sorted(known, key=lambda each: abs(each - depth))[:2])
        names = " or ".join(f"{family}_{each}" for each in near)
        raise InputError(f"{name}: no such depth; did you mean {names}?")
