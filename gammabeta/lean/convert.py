"""Any network to one that keeps a tensor a layer: its frozen convolutions and its chains of
BatchNorm, addition and ReLU are found in the graph that torch.fx draws, and only those change.

The network itself stays as it is, with its modules, parameter names and state_dict; what changes is
how `forward` is computed, at the topmost modules that can be traced. `restore` takes it back.
"""

import operator
import random
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import fx, nn

from gammabeta.lean.layers import LeanConv, LeanNorm
from gammabeta.sparse import attached

if TYPE_CHECKING:
    from gammabeta.processes import Processes

_RELUS = {F.relu, torch.relu, F.relu_, torch.relu_}
_ADDS = {operator.add, operator.iadd, torch.add}


@dataclass(frozen=True)
class Conversion:
    """What happened to one layer. how: "frozen convolution", "norm", "norm + relu",
    "norm + add + relu", or "stock: REASON"."""

    name: str
    how: str


def convert(module: nn.Module, across: "Processes | None" = None) -> list[Conversion]:
    """Convert `module` in place, where it is safe; one row for each convolution and BatchNorm.
    across: processes that share out a batch; the BatchNorms that are converted see all of it.

    Call it after requires_grad is settled. A layer stays stock if it trains (a convolution), has
    hooks of its own, or is a subclass; a whole module does if its graph cannot be drawn, or would
    not be right for every call (it depends on the mode, random numbers, optional arguments).
    Modules and hooks that are added or replaced afterwards are not seen: call it again. torch.func
    (vmap, grad) refuses a converted network: `restore` it first. torch.compile compiles the stock
    layers of a converted network, so it gains nothing by the conversion.
    """
    restore(module)
    names = {child: name for name, child in module.named_modules()}
    reasons: dict[nn.Module, str] = {}
    done: dict[nn.Module, str] = {}
    sparse: set[nn.Module] = {entries.module for entries in attached(module).values()}

    def visit(part: nn.Module) -> None:
        if not any(_kind(child) for child in part.modules()) or _kind(part):
            return
        graph = _traced(part)
        if isinstance(graph, fx.GraphModule):
            _convert_graph(graph, sparse, done, reasons, across)
            part.__dict__["forward"] = graph.forward
            return
        for child in part.modules():
            if _kind(child):
                reasons[child] = graph
        for child in part.children():
            visit(child)

    visit(module)
    return [
        Conversion(names[child], done.get(child) or f"stock: {reasons.get(child, 'not found')}")
        for child in names
        if _kind(child)
    ]


def restore(module: nn.Module) -> None:
    """Undo `convert`."""
    for child in module.modules():
        forward = child.__dict__.get("forward")
        if isinstance(getattr(forward, "__self__", None), fx.GraphModule):
            del child.__dict__["forward"]


def _kind(module: nn.Module) -> str | None:
    """What the table has rows for."""
    if isinstance(module, nn.Conv2d):
        return "convolution"
    return "norm" if isinstance(module, nn.modules.batchnorm._BatchNorm) else None


class _Tracer(fx.Tracer):
    """Sees the layers that the table has rows for as one, subclasses too."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return _kind(m) is not None or super().is_leaf_module(m, module_qualified_name)


def _traced(module: nn.Module) -> fx.GraphModule | str:
    """Its graph, or why there is none that is always right. Drawing it leaves no trace behind."""
    if module._forward_hooks or module._forward_pre_hooks:
        return "hooks on the module around it"
    before = {child: dict(child.__dict__) for child in module.modules()}
    draws = _random_states()
    graphs = []
    try:
        for training in (True, False):
            for child, attributes in before.items():
                child.__dict__.clear()
                child.__dict__.update(attributes)
                child.training = training
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                graphs.append(fx.GraphModule(module, _Tracer().trace(module)))
        if any(_changed(child, attributes) for child, attributes in before.items()):
            return "its forward changes attributes"
    except Exception as error:  # whatever a stranger's forward does with a proxy
        line = " ".join(str(error).split())[:100]
        return f"its graph cannot be drawn ({type(error).__name__}: {line})"
    finally:
        for child, attributes in before.items():
            child.__dict__.clear()
            child.__dict__.update(attributes)
        drew = _random_states() != draws
        random.setstate(draws[0])
        np.random.set_state(draws[1])  # noqa: NPY002 (the state strangers' code draws from)
        torch.set_rng_state(torch.tensor(draws[2], dtype=torch.uint8))
    if drew:
        return "its graph depends on random numbers"
    if graphs[0].code != graphs[1].code:
        return "its graph depends on the mode"
    if any(node.op == "placeholder" and node.args for node in graphs[0].graph.nodes):
        return "it has optional arguments"
    return graphs[0]


def _changed(child: nn.Module, before: dict[str, Any]) -> bool:
    """Whether drawing changed an attribute, but for the mode and the constants torch.fx adds."""
    return any(
        before.get(name) is not value
        for name, value in child.__dict__.items()
        if name != "training" and not name.startswith("_tensor_constant")
    )


def _random_states() -> tuple[Any, Any, list[int]]:
    """Of Python, NumPy and torch, comparable."""
    kind, keys, *rest = np.random.get_state()  # noqa: NPY002
    return random.getstate(), (kind, tuple(keys), *rest), torch.get_rng_state().tolist()


def _convert_graph(
    graph: fx.GraphModule,
    sparse: set[nn.Module],
    done: dict[nn.Module, str],
    reasons: dict[nn.Module, str],
    across: "Processes | None",
) -> None:
    modules = dict(graph.named_modules())
    for node in list(graph.graph.nodes):
        layer = modules.get(node.target) if node.op == "call_module" else None
        if layer is None or not _kind(layer):
            continue
        reason = _why_stock(layer, node, sparse)
        if reason is not None:
            reasons[layer] = reason
        elif isinstance(layer, nn.Conv2d):
            _put(graph, node, f"lean_{node.name}", LeanConv(layer), node.args)
            graph.graph.erase_node(node)
            done[layer] = "frozen convolution"
        elif isinstance(layer, nn.BatchNorm2d):
            done[layer] = _convert_norm(graph, node, layer, modules, across)
    graph.recompile()


def _why_stock(layer: nn.Module, node: fx.Node, sparse: set[nn.Module]) -> str | None:
    if type(layer) not in (nn.Conv2d, nn.BatchNorm2d):
        return f"a {type(layer).__name__}"
    if len(node.args) != 1 or node.kwargs:
        return "called in an unusual way"
    if isinstance(layer, nn.Conv2d):
        if layer in sparse or any(parameter.requires_grad for parameter in layer.parameters()):
            return "it trains"
        if layer.padding_mode != "zeros" or isinstance(layer.padding, str):
            return "its padding"
    elif isinstance(layer, nn.BatchNorm2d) and (layer.weight is None or layer.momentum is None):
        return "no gamma and beta, or a cumulative average"
    ours = 1 if "_gammabeta_statistics" in layer.__dict__ else 0
    if len(layer._forward_hooks) > ours or len(layer._forward_pre_hooks) > ours:
        return "it has hooks"
    if layer._backward_hooks or layer._backward_pre_hooks or "forward" in layer.__dict__:
        return "it has hooks"
    if "parametrizations" in layer._modules:
        return "it is parametrised"
    return None


def _convert_norm(
    graph: fx.GraphModule,
    node: fx.Node,
    norm: nn.BatchNorm2d,
    modules: dict[str, nn.Module],
    across: "Processes | None",
) -> str:
    add = _only_user(node, _is_add)
    relu = _only_user(node if add is None else add, lambda user: _is_relu(user, modules))
    chain = [each for each in (node, add, relu) if each is not None]
    if relu is None or not _may_move(chain, modules):
        _put(graph, node, f"lean_{node.name}", LeanNorm(norm, False, across), node.args)
        graph.graph.erase_node(node)
        return "norm"
    inputs = list(node.args)
    if add is not None:
        inputs.append(next(each for each in add.args if each is not node))
    _put(graph, relu, f"lean_{node.name}", LeanNorm(norm, True, across), inputs)
    for each in reversed(chain):
        graph.graph.erase_node(each)
    return "norm + relu" if add is None else "norm + add + relu"


def _may_move(chain: Sequence[fx.Node], modules: dict[str, nn.Module]) -> bool:
    """Whether all of a chain can be computed at its end: nothing on the way is changed in place,
    except what only the chain itself sees."""
    for each in chain[1:]:
        target = each.args[0]
        if _in_place(each, modules) and (target not in chain or len(target.users) > 1):  # type: ignore[union-attr]
            return False
    between = chain[0]
    while between is not chain[-1]:
        if between not in chain and _in_place(between, modules):
            return False
        between = between.next
    return True


def _in_place(node: fx.Node, modules: dict[str, nn.Module]) -> bool:
    """Whether a node may change its input."""
    if node.op == "call_module":
        return bool(getattr(modules.get(str(node.target)), "inplace", False))
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    changing = name.endswith("_") or (name.startswith("i") and hasattr(operator, name))
    return changing or name == "setitem" or bool(node.kwargs.get("inplace")) or "out" in node.kwargs


def _put(graph: fx.GraphModule, old: fx.Node, name: str, new: nn.Module, inputs: Any) -> None:
    """Compute `new` of `inputs` in the place of `old`, which nothing uses any more."""
    graph.add_submodule(name, new)
    with graph.graph.inserting_before(old):
        node = graph.graph.call_module(name, tuple(inputs))
    old.replace_all_uses_with(node)


def _only_user(node: fx.Node, wanted: Callable[[fx.Node], bool]) -> fx.Node | None:
    """The user of a node, if it is the only one and of the wanted kind."""
    users = list(node.users)
    return users[0] if len(users) == 1 and wanted(users[0]) else None


def _is_relu(node: fx.Node, modules: dict[str, nn.Module]) -> bool:
    if node.op == "call_module":
        layer = modules.get(str(node.target))
        return type(layer) is nn.ReLU and not layer._forward_hooks and not layer._forward_pre_hooks
    if node.op == "call_method":
        return node.target in ("relu", "relu_")
    return node.op == "call_function" and node.target in _RELUS


def _is_add(node: fx.Node) -> bool:
    """A sum of two different tensors of the graph."""
    known = node.op == "call_function" and node.target in _ADDS
    known = known or (node.op == "call_method" and node.target in ("add", "add_"))
    tensors = [each for each in node.args if isinstance(each, fx.Node)]
    return known and not node.kwargs and len(node.args) == 2 and len(set(tensors)) == 2
