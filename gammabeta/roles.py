"""The role of every parameter of a network, from module types and structure, never from a word in
its name: gamma, beta, output, shortcut, conv, linear, bias or other.

Works on any torch.nn.Module. A normalisation layer is one of torch's own, a subclass (timm's
BatchNormAct2d), or a look-alike: it owns one-dimensional `weight` and perhaps `bias` and nothing
else, and has running statistics or an epsilon (RMSNorm as transformers write it).
"""

import math
from dataclasses import dataclass

from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd
from torch.nn.parameter import UninitializedParameter

from gammabeta.errors import InputError
from gammabeta.wrappers import named_modules, plain, submodule

_TORCH_NORMS = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
_EPSILONS = ("eps", "variance_epsilon", "epsilon")
# The attribute under which a block of open_lth, torchvision, timm and transformers keeps it.
_SHORTCUTS = ("shortcut", "downsample")


@dataclass(frozen=True)
class Role:
    """One parameter: its name, role and shape. on_shortcut: it belongs to a shortcut."""

    name: str
    role: str
    shape: tuple[int, ...]
    on_shortcut: bool

    @property
    def size(self) -> int:
        return math.prod(self.shape)


def is_norm(module: nn.Module) -> bool:
    """Whether `module` is a normalisation layer or looks like one."""
    if isinstance(module, _TORCH_NORMS):
        return True
    own = {name for name, parameter in module._parameters.items() if parameter is not None}
    if "weight" not in own or not own <= {"weight", "bias"}:
        return False
    if any(module._parameters[name].dim() != 1 for name in own):  # type: ignore[union-attr]
        return False
    running = {"running_mean", "running_var"} <= module._buffers.keys()
    return running or any(isinstance(getattr(module, name, None), float) for name in _EPSILONS)


def has_statistics(module: nn.Module) -> bool:
    """Whether `module` is a normalisation layer that keeps running statistics."""
    return (
        module._buffers.get("running_mean") is not None
        and not is_frozen_norm(module)
        and (isinstance(module, _NormBase) or is_norm(module) or not module._parameters)
    )


def is_frozen_norm(module: nn.Module) -> bool:
    """Whether `module` keeps gamma and beta as buffers beside its statistics, and so can neither
    train them nor follow the data: torchvision's FrozenBatchNorm2d, and DETR's."""
    return {"weight", "bias", "running_mean", "running_var"} <= module._buffers.keys()


def left_alone(module: nn.Module) -> dict[str, str]:
    """Layers that no part but `all`, `name:REGEX` and perhaps `bias` selects from, and why: module
    name -> a few words. They own parameters directly and are no layer of torch, or they are
    normalisation layers frozen by their making. The network itself is none of its layers."""
    found = {}
    for name, child in named_modules(module):
        kind = type(child).__name__
        if is_frozen_norm(child):
            found[name] = f"{kind}, whose gamma and beta are buffers"
        elif (
            name
            and not _is_known(child)
            and any(each is not None for each in child._parameters.values())
        ):
            found[name] = f"{kind}, of unknown kind"
    return found


def _is_known(module: nn.Module) -> bool:
    of_torch = type(module).__module__.startswith("torch.")
    return of_torch or isinstance(module, nn.Linear | _ConvNd | nn.Embedding) or is_norm(module)


def roles(module: nn.Module, output: str | None = None) -> list[Role]:
    """Every parameter of `module` once, in the module's order (a shared one under its first name).

    output: name of the classifier, where its place does not tell (see `find_output`).
    """
    classifier = find_output(module, output)
    shortcuts = _shortcut_modules(module)
    found = []
    seen: set[int] = set()
    for module_name, child in named_modules(module):
        for name, parameter in child._parameters.items():
            if parameter is None or id(parameter) in seen:
                continue
            seen.add(id(parameter))
            full = f"{module_name}.{name}" if module_name else name
            if isinstance(parameter, UninitializedParameter):
                raise InputError(f"{full} has no shape yet: run one batch through the module first")
            in_output = classifier is not None and (
                module_name == classifier or module_name.startswith(classifier + ".")
            )
            on_shortcut = module_name in shortcuts
            role = "output" if in_output else _role(child, name, on_shortcut)
            found.append(Role(full, role, tuple(parameter.shape), on_shortcut))
    return found


def _role(module: nn.Module, name: str, on_shortcut: bool) -> str:
    if is_norm(module):
        return "gamma" if name == "weight" else "beta"
    if name.endswith("bias"):
        return "bias"
    if isinstance(module, _ConvNd) and name == "weight":
        one_by_one = all(extent == 1 for extent in module.kernel_size)
        return "shortcut" if on_shortcut and one_by_one else "conv"
    return "linear" if isinstance(module, nn.Linear) else "other"


def _shortcut_modules(module: nn.Module) -> set[str]:
    """Names of all modules that lie under an attribute `shortcut` or `downsample` of a block."""
    return {
        name
        for name, _ in named_modules(module)
        if any(part in _SHORTCUTS for part in name.split("."))
    }


def find_output(module: nn.Module, output: str | None = None) -> str | None:
    """Name of the classifier: the module named by `output`; else what `get_classifier()` (timm) or
    `get_output_embeddings()` (transformers) returns; else the last module with parameters, if that
    is a linear layer. None where that is not clear: several heads, or a model without any."""
    names = {id(child): name for name, child in named_modules(module)}
    if output is not None:
        if output not in names.values():
            raise InputError(f"no module is named {output!r}; {linear_layers(module)}")
        return output
    for accessor in ("get_classifier", "get_output_embeddings"):
        head = _call(plain(module), accessor)
        head = plain(head) if isinstance(head, nn.Module) else head
        if isinstance(head, tuple | list | nn.ModuleList | nn.ModuleDict):
            return None
        if id(head) in names:
            return str(names[id(head)])
    if getattr(plain(module), "base_model", None) is plain(
        module
    ):  # so transformers mark one without a head
        return None
    last = None
    for _, child in named_modules(module):
        if any(parameter is not None for parameter in child._parameters.values()):
            last = child
    if not isinstance(last, nn.Linear):
        return None
    parent = submodule(module, names[id(last)].rpartition(".")[0])
    return None if _is_one_of_several(last, parent) else names[id(last)]


def _call(module: nn.Module, accessor: str) -> object:
    """What a method without arguments returns, if there is one and it can."""
    method = getattr(module, accessor, None)
    try:
        return method() if callable(method) else None
    except (TypeError, AttributeError, NotImplementedError):
        return None


def _is_one_of_several(last: nn.Linear, parent: nn.Module) -> bool:
    """Whether a linear layer is one head of several: beside another that takes the same features
    and does not lead to it."""
    if isinstance(parent, nn.ModuleList | nn.ModuleDict):
        return True
    return not isinstance(parent, nn.Sequential) and any(
        isinstance(other, nn.Linear)
        and other is not last
        and other.in_features == last.in_features
        and other.out_features != last.in_features
        for other in map(plain, parent.children())
    )


def linear_layers(module: nn.Module) -> str:
    """For error messages: the candidates for a classifier."""
    names = [name for name, child in named_modules(module) if isinstance(child, nn.Linear)]
    shown = ", ".join(name or "(the module itself)" for name in names[-5:])
    return f"its linear layers: {shown}" if names else "it has no linear layer"
