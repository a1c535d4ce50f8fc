"""The role of every parameter of a network, from module types and structure, never from a word in
its name: gamma, beta, output, shortcut, conv, linear, bias or other.

Works on any torch.nn.Module. A normalisation layer is one of torch's own, a subclass (timm's
BatchNormAct2d), or a look-alike: it owns one-dimensional `weight` and perhaps `bias` and nothing
else, and has running statistics or an epsilon (RMSNorm as transformers write it).
"""

import math
from collections.abc import Collection
from dataclasses import dataclass

from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd
from torch.nn.parameter import UninitializedParameter

from gammabeta.errors import InputError
from gammabeta.wrappers import named_modules, named_parameters, plain, submodule

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


def left_alone(module: nn.Module, trained: Collection[str] = ()) -> dict[str, str]:
    """Layers that no part but `all`, `name:REGEX` and perhaps `bias` selects from, and why: module
    name -> a few words. They own parameters directly, none of them among the `trained` names, and
    are no layer of torch, or they are normalisation layers frozen by their making. What their parts
    are plays no role. The network itself is none of its layers."""
    found = {}
    parameters = named_parameters(module)
    training = {id(parameter) for name, parameter in parameters.items() if name in trained}
    for name, child in named_modules(module):
        kind = type(child).__name__
        own = [each for each in child._parameters.values() if each is not None]
        if is_frozen_norm(child):
            found[name] = f"{kind}, whose gamma and beta are buffers"
            continue
        trains = any(id(parameter) in training for parameter in own)
        if name and own and not trains and not _is_known(child):
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
    """Name of the classifier: the module named by `output`; else what `get_classifier()` (timm)
    returns, or `get_output_embeddings()` (transformers) if no other head is beside it; else the
    last module with parameters, if that is a linear layer and not part of something else. None
    where that is not clear: several heads, a last block that is no head, or a model without any."""
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
            name = names[id(head)]
            if accessor == "get_output_embeddings" and _leading_nowhere(module, name):
                return None
            return name
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
    name = names[id(last)]
    owner = name.rpartition(".")[0]
    parent = submodule(module, owner)
    if _is_one_of_several(last, parent) or isinstance(parent, nn.MultiheadAttention):
        return None
    if owner and _goes_back(last, parent):
        return None
    beside = any("." not in other for other in _leading_nowhere(module, name))
    return None if owner and beside else name


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


def _goes_back(last: nn.Linear, parent: nn.Module) -> bool:
    """Whether a block ends as wide as it began, like squeeze-and-excitation, the two layers of a
    transformer's block or its attention: another layer goes on from there, so it is no head."""
    others = [each for each in map(plain, parent.children()) if isinstance(each, nn.Linear)]
    return any(other is not last and other.in_features == last.out_features for other in others)


def _leading_nowhere(module: nn.Module, head: str) -> list[str]:
    """Names of linear layers beside `head` whose width no layer takes, whole or cut into two to
    four: other heads. Those in a ModuleList are not asked, as it holds a stack of blocks."""
    widths: set[int] = set()
    for _, child in named_modules(module):
        if isinstance(child, nn.Linear):
            widths.add(child.in_features)
        elif isinstance(child, _ConvNd):
            widths.add(child.in_channels)
        elif not isinstance(child, nn.Embedding):
            own = (each for each in child._parameters.values() if each is not None)
            widths |= {extent for parameter in own for extent in parameter.shape if extent > 1}
    return [
        name
        for name, child in named_modules(module)
        if isinstance(child, nn.Linear)
        and name != head
        and not name.startswith(f"{head}.")
        and not widths & {child.out_features // parts for parts in (1, 2, 3, 4)
                          if child.out_features % parts == 0}
        and not _in_a_list(module, name)
    ]  # fmt: skip


def _in_a_list(module: nn.Module, name: str) -> bool:
    parts = name.split(".")
    owners = (submodule(module, ".".join(parts[:end])) for end in range(1, len(parts)))
    return any(isinstance(owner, nn.ModuleList) for owner in owners)


def linear_layers(module: nn.Module) -> str:
    """For error messages: the candidates for a classifier."""
    names = [name for name, child in named_modules(module) if isinstance(child, nn.Linear)]
    shown = ", ".join(name or "(the module itself)" for name in names[-5:])
    return f"its linear layers: {shown}" if names else "it has no linear layer"
