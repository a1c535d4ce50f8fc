"""The policy for running statistics, apart from what trains: track, frozen or batch.

    track    normalise by the batch, update running mean and variance (what torch does by default)
    frozen   normalise by the running statistics, in training too; they never change
    batch    normalise by the batch, in evaluation too; the running statistics never change

A policy is enforced at every forward pass by hooks, so `model.train()` and `model.eval()` cannot
undo it; between passes every layer is as it was.
"""

from torch import Tensor, nn
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
    kept: list[tuple[bool, dict[str, Tensor | None]]] = []

    def before(module: nn.Module, _: object) -> None:
        kept.append((module.training, dict(module._buffers)))
        module.training = policy == "batch"
        if policy == "batch":  # what the pass writes goes into copies that nobody reads
            for name, buffer in kept[-1][1].items():
                module._buffers[name] = None if buffer is None else buffer.clone()

    def after(module: nn.Module, *_: object) -> None:
        if kept:
            module.training, buffers = kept.pop()
            module._buffers.update(buffers)

    return [
        layer.register_forward_pre_hook(before),
        layer.register_forward_hook(after, always_call=True),
    ]
