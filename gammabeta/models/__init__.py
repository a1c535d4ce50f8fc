"""Networks of the paper and of the non-author report on it, made from a name and a seed alone.

The names are those of names.py. The keys of a state_dict are those of open_lth for the CIFAR
networks and those of torchvision for the ImageNet networks, so that weights from there load.
"""

import torch
from torch import nn

from gammabeta.errors import InputError
from gammabeta.models.cifar_resnet import CifarResNet
from gammabeta.models.cifar_vgg import CifarVGG
from gammabeta.models.imagenet_resnet import ImageNetResNet
from gammabeta.models.initialise import initialise
from gammabeta.models.report_resnet import ReportResNet20
from gammabeta.names import parse_name
from gammabeta.roles import find_output


def create_model(
    name: str,
    *,
    num_classes: int | None = None,
    weight_init: str = "kaiming_normal",
    norm_init: str = "uniform",
    bias_init: str = "uniform",
    seed: int = 0,
) -> nn.Module:
    """The network `name` at its random start, on the CPU, in training mode.

    num_classes: 10 by default, 1000 for the ImageNet networks. Images are (N, 3, H, W) and logits
    (N, num_classes). Raises InputError, with the nearest right names, for a wrong name.
    """
    model = _in_memory(architecture(name, num_classes))
    initialise(model, weight_init, norm_init, bias_init, seed)
    # A plain attribute, no buffer: a delta of this network can be rebuilt from the seed alone.
    model.__dict__["gammabeta_recipe"] = {
        "name": name, "num_classes": _classes(model),
        "weight_init": weight_init, "norm_init": norm_init, "bias_init": bias_init, "seed": seed,
    }  # fmt: skip
    return model


def _in_memory(model: nn.Module) -> nn.Module:
    """With unset values on the CPU in place of none. As to_empty, which takes 0.3 s to import
    sympy; for parameters that all train and that no two modules share."""

    def unset(value: torch.Tensor) -> torch.Tensor:
        return torch.empty(value.shape, dtype=value.dtype, device="cpu")

    for module in model.modules():
        for name, value in module.named_parameters(recurse=False):
            setattr(module, name, nn.Parameter(unset(value)))
        for name, buffer in module.named_buffers(recurse=False):
            setattr(module, name, unset(buffer))
    return model


def _classes(model: nn.Module) -> int:
    classifier = model.get_submodule(find_output(model) or "")
    assert isinstance(classifier, nn.Linear)
    return classifier.out_features


def architecture(name: str, num_classes: int | None = None) -> nn.Module:
    """The network without values (on the meta device): enough to count and to select from."""
    if num_classes is not None and num_classes < 1:
        raise InputError(f"num_classes is {num_classes}: write 1 or more")
    family, depth, filters = parse_name(name)
    with torch.device("meta"):
        if family == "cifar_resnet":
            return CifarResNet((depth - 2) // 6, filters, num_classes or 10)
        if family == "cifar_vgg":
            return CifarVGG(depth, num_classes or 10)
        if family == "imagenet_resnet":
            return ImageNetResNet(depth, filters, num_classes or 1000)
        return ReportResNet20(num_classes or 10)
