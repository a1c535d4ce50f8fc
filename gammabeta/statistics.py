"""The policy for running statistics, apart from what trains: track, frozen or batch.

    track    normalise by the batch, update running mean and variance (what torch does by default)
    frozen   normalise by the running statistics, in training too; they never change
    batch    normalise by the batch, in evaluation too; the running statistics never change

A policy is enforced at every forward pass by hooks, so `model.train()` and `model.eval()` cannot
undo it; between passes every layer is as it was. A network that is compiled already knows the hooks
that it was compiled with and no others: `hold_policy` keeps them, so that it follows a change.
"""

from torch import Tensor, nn

from gammabeta.errors import InputError, suggest
from gammabeta.roles import has_statistics

POLICIES = ("track", "frozen", "batch")


class _Enforcer:
    """Holds one layer to a policy; its bound methods are the hooks, so that a copied or unpickled
    layer has an enforcer of its own."""

    def __init__(self, layer: nn.Module, policy: str) -> None:
        self.policy = policy
        self.kept: list[tuple[bool, dict[str, Tensor | None]]] = []
        self.handles = [
            layer.register_forward_pre_hook(self.before),
            layer.register_forward_hook(self.after, always_call=True),
        ]

    def before(self, layer: nn.Module, _: object) -> None:
        if self.policy == "track":
            return
        self.kept.append((layer.training, dict(layer._buffers)))
        layer.training = self.policy == "batch"
        if self.policy == "batch":  # what the pass writes goes into copies that nobody reads
            for name, buffer in self.kept[-1][1].items():
                layer._buffers[name] = None if buffer is None else buffer.clone()

    def after(self, layer: nn.Module, *_: object) -> None:
        if self.kept:
            layer.training, buffers = self.kept.pop()
            layer._buffers.update(buffers)


def set_statistics_policy(module: nn.Module, policy: str) -> int:
    """Give every layer of `module` that keeps running statistics this policy, in place of any it
    had. Returns how many layers there are."""
    check_policy(policy)
    layers = [child for child in module.modules() if has_statistics(child)]
    for layer in layers:
        if policy != "track":
            hold_policy(layer, policy)
        elif enforcer := layer.__dict__.pop("_gammabeta_statistics", None):
            enforcer.policy = policy  # for what is compiled with these hooks
            for handle in enforcer.handles:
                handle.remove()
    return len(layers)


def hold_policy(layer: nn.Module, policy: str) -> None:
    """Give one layer a policy, by hooks that stay: under torch.compile too it can change later."""
    enforcer = layer.__dict__.get("_gammabeta_statistics")
    if enforcer is None:
        layer.__dict__["_gammabeta_statistics"] = _Enforcer(layer, policy)
    elif enforcer.policy != policy:
        enforcer.policy = policy


def policies(module: nn.Module) -> dict[nn.Module, str]:
    """Every layer of `module` that keeps running statistics -> its policy."""
    found = {}
    for layer in module.modules():
        if has_statistics(layer):
            enforcer = layer.__dict__.get("_gammabeta_statistics")
            found[layer] = enforcer.policy if enforcer else "track"
    return found


def check_policy(policy: str) -> None:
    """Raise InputError for a policy that does not exist."""
    if policy not in POLICIES:
        raise InputError(f"unknown statistics policy '{policy}': {suggest(str(policy), POLICIES)}")
