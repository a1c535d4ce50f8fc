"""The policy for running statistics, apart from what trains: track, frozen or batch.

    track    normalise by the batch, update running mean and variance (what torch does by default)
    frozen   normalise by the running statistics, in training too; they never change
    batch    normalise by the batch, in evaluation too; the running statistics never change

A policy is enforced at every forward pass by hooks, so `model.train()` and `model.eval()` cannot
undo it, and no attribute of a layer is changed between passes.
"""

from typing import Any

from torch import nn
from torch.utils.hooks import RemovableHandle

from gammabeta.errors import InputError, suggest
from gammabeta.roles import has_statistics

POLICIES = ("track", "frozen", "batch")


def set_statistics_policy(module: nn.Module, policy: str) -> int:
    """Give every layer of `module` that keeps running statistics this policy, in place of any it
    had. Returns how many layers there are."""
    if policy not in POLICIES:
        raise InputError(f"unknown statistics policy '{policy}': {suggest(policy, POLICIES)}")
    layers = [child for child in module.modules() if has_statistics(child)]
    for layer in layers:
        for handle in layer.__dict__.pop("_gammabeta_statistics", ()):
            handle.remove()
        if policy != "track":
            layer.__dict__["_gammabeta_statistics"] = _enforce(layer, policy)
    return len(layers)


def _enforce(layer: nn.Module, policy: str) -> list[RemovableHandle]:
    forced: dict[str, Any] = (
        {"training": False}
        if policy == "frozen"
        else {"training": True, "track_running_stats": False}
    )
    kept: list[dict[str, Any]] = []

    def before(module: nn.Module, _: object) -> None:
        kept.append({name: getattr(module, name) for name in forced if hasattr(module, name)})
        for name in kept[-1]:
            setattr(module, name, forced[name])

    def after(module: nn.Module, *_: object) -> None:
        if kept:
            for name, value in kept.pop().items():
                setattr(module, name, value)

    return [
        layer.register_forward_pre_hook(before),
        layer.register_forward_hook(after, always_call=True),
    ]
