"""Training single entries of a frozen weight, right by construction.

The chosen entries are a small leaf tensor; each forward pass scatters it into the frozen weight.
Only the leaf is given to the optimiser, so decay, momentum, Adam's moments and parameter counts
concern the chosen entries and nothing else: a masked gradient would let decay and momentum move
the rest (pytorch/pytorch#38581). The module keeps its parameters, their names and its state_dict.
"""

from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.parallel import DistributedDataParallel

from gammabeta import rng
from gammabeta.errors import InputError
from gammabeta.wrappers import named_modules


def filter_size(module: _ConvNd) -> int:
    """Weights per output channel."""
    return module.weight.numel() // module.out_channels


def choose_entries(module: _ConvNd, name: str, per_channel: int, seed: int) -> Tensor:
    """Flat indices, (out_channels, K) int64, of K different random weights of every channel.

    K is capped at the size of a filter. The entries for a smaller K are the first of a larger K's.
    """
    channels, size = module.out_channels, filter_size(module)
    order = rng.generator(seed, f"random-entries/{name}").random((channels, size))
    chosen = order.argsort(axis=1, kind="stable")[:, : min(per_channel, size)]
    flat = np.arange(channels * size).reshape(tuple(module.weight.shape))
    if isinstance(module, _ConvTransposeNd):  # in, out/groups, ... -> out, in/groups, ...
        grouped = flat.reshape(module.groups, -1, *flat.shape[1:])
        flat = np.moveaxis(grouped, 2, 1)
    rows = flat.reshape(channels, size)
    return torch.from_numpy(np.take_along_axis(rows, chosen, axis=1))


class SparseEntries:
    """The trained entries of one convolution's weight. `leaf` (C, K) is what an optimiser gets.

    While attached, the forward pass of `module` uses the weight with the leaf scattered into it,
    its state_dict holds the same, and loading a state_dict reads the leaf from it.
    """

    suspended = False  # while it is, a forward pass uses the weight as it is

    def __init__(self, module: _ConvNd, index: Tensor) -> None:
        self.module = module
        self.index = index.to(module.weight.device)
        self.leaf = nn.Parameter(self._gather())
        # Bound methods, not closures: so a copied or unpickled module has hooks of its own.
        self._handles = [
            module.register_forward_pre_hook(self._substitute),
            module.register_forward_hook(self._restore, always_call=True),
            module.register_state_dict_pre_hook(self._before_saving),  # type: ignore[no-untyped-call]
            module.register_load_state_dict_post_hook(self._after_loading),  # type: ignore[no-untyped-call]
        ]
        module.__dict__["_gammabeta_sparse"] = self

    def _gather(self) -> Tensor:
        return self.module._parameters["weight"].detach().flatten()[self.index]  # type: ignore[union-attr]

    def _substitute(self, module: nn.Module, _: object) -> None:
        # An instance attribute is found before the registered parameter of the same name, so the
        # parameter itself stays as it is: registered, frozen, and with its own storage.
        if self.suspended:
            return
        frozen = module._parameters["weight"]
        assert frozen is not None
        if self.leaf.device != frozen.device:
            raise InputError(
                f"the trained entries are on {self.leaf.device} and the weight on {frozen.device}: "
                "move the module to its device first, then call Subset.apply"
            )
        flat = frozen.detach().flatten()
        leaf: Tensor = self.leaf
        # DistributedDataParallel averages the gradients of parameters, which the leaf is not.
        parallel = getattr(DistributedDataParallel, "_active_ddp_module", None)
        if parallel is not None and torch.is_grad_enabled() and leaf.requires_grad:
            leaf = _Averaged.apply(leaf, parallel.process_group)  # type: ignore[no-untyped-call]
        scattered = flat.scatter(0, self.index.flatten(), leaf.flatten().to(flat.dtype))
        module.__dict__["weight"] = scattered.view_as(frozen).to(
            memory_format=torch.channels_last
            if frozen.dim() == 4 and frozen.is_contiguous(memory_format=torch.channels_last)
            else torch.contiguous_format
        )

    def _before_saving(self, *_: object) -> None:
        self.write()

    def _after_loading(self, *_: object) -> None:
        self.read()

    def _restore(self, module: nn.Module, *_: object) -> None:
        module.__dict__.pop("weight", None)

    @torch.no_grad()
    def write(self) -> None:
        """Put the leaf's values into the module's weight."""
        weight = self.module._parameters["weight"]
        assert weight is not None
        flat = weight.flatten()  # a copy where the memory is channels_last
        weight.copy_(flat.scatter(0, self.index.flatten(), self.leaf.flatten()).view_as(weight))

    @torch.no_grad()
    def read(self) -> None:
        """Take the leaf's values from the module's weight."""
        self.leaf.copy_(self._gather())

    def detach(self) -> None:
        """Write the values into the weight and leave an ordinary module behind."""
        self.write()
        for handle in self._handles:
            handle.remove()
        del self.module.__dict__["_gammabeta_sparse"]


class _Averaged(torch.autograd.Function):
    """Itself, with a gradient that is the mean over a process group."""

    @staticmethod
    def forward(ctx: Any, leaf: Tensor, group: Any) -> Tensor:
        ctx.group = group
        return leaf.view_as(leaf)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        mean = gradients[0] / dist.get_world_size(ctx.group)
        dist.all_reduce(mean, group=ctx.group)
        return mean, None


def attached(module: nn.Module) -> dict[str, SparseEntries]:
    """Parameter name -> its sparse entries, for all that are attached in `module`."""
    found = {}
    for name, child in named_modules(module):
        entries = child.__dict__.get("_gammabeta_sparse")
        if entries is not None:
            found[f"{name}.weight" if name else "weight"] = entries
    return found


def entry_count(module: _ConvNd, per_channel: int) -> int:
    """How many entries of its weight `random:K` trains."""
    return module.out_channels * min(per_channel, filter_size(module))
