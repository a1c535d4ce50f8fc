"""BatchNorm folded into the convolution or linear layer before it, in fp64."""

from torch import Tensor

from gammabeta.compact.graph import EACH, MIXES, Graph, Step


def fold(graph: Graph) -> int:
    """Fold every affine step whose input is a layer that nothing else reads; how many there were.

    A scale of zero makes a row of zeros: the layer's channel is then its bias, for any input.
    """
    folded = 0
    users = graph.users()
    for step in list(graph.steps.values()):
        if step.node.op != "affine":
            continue
        layer = graph.steps[step.node.inputs[0]]
        if layer.kind != MIXES or len(users[layer.node.name]) != 1:
            continue
        if layer.node.name == graph.output:
            continue
        _scale(layer, step.node.tensors["scale"], step.node.tensors["shift"])
        layer.norm = layer.norm or step.norm
        graph.replace(step.node.name, layer.node.name)
        del graph.steps[step.node.name]
        users = graph.users()
        folded += 1
    return folded


def scale_and_shift(
    gamma: Tensor | None, beta: Tensor | None, mean: Tensor, variance: Tensor, eps: float
) -> dict[str, Tensor]:
    """The tensors of the affine step that a BatchNorm of these (C,) is in evaluation mode."""
    scale = (variance + eps).rsqrt()
    scale = scale if gamma is None else gamma * scale
    shift = -mean * scale
    return {"scale": scale, "shift": shift if beta is None else beta + shift}


def _scale(layer: Step, scale: Tensor, shift: Tensor) -> None:
    tensors = layer.node.tensors
    weight = tensors["weight"]
    bias = tensors.get("bias", weight.new_zeros(len(weight)))
    tensors["weight"] = weight * scale.view(-1, *[1] * (weight.dim() - 1))
    tensors["bias"] = bias * scale + shift


def drop_constant_branches(graph: Graph, values: dict[str, Tensor]) -> list[Step]:
    """Turn additions of a tensor whose every channel is constant into shifts, or into nothing where
    all of them are zero; returns the steps that nothing needs then.

    values: those of `analyse.constants`.
    """
    for step in list(graph.steps.values()):
        if step.kind != "adds":
            continue
        for place, name in enumerate(step.node.inputs):
            constant = values[name]
            if bool(constant.isnan().any()):
                continue
            other = step.node.inputs[1 - place]
            if not bool(constant.any()):
                graph.replace(step.node.name, other)
                del graph.steps[step.node.name]
            else:
                step.node.op, step.node.settings, step.kind = "affine", {}, EACH
                step.node.inputs = (other,)
                shift = constant.clone()
                step.node.tensors = {"scale": shift.new_ones(len(shift)), "shift": shift}
            break
    return graph.drop_unused()
