"""What takes the place of a convolution or a BatchNorm in a converted network. They hold the stock
layer, read its parameters and modes at each pass, and keep its running statistics."""

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gammabeta.lean.functions import FrozenConvolution, NormAct

if TYPE_CHECKING:
    from gammabeta.processes import Processes


class LeanConv(nn.Module):
    """A frozen Conv2d. If its weight trains after all, it is a stock one again."""

    conv: nn.Conv2d

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.__dict__["conv"] = conv  # not registered: it belongs to the network

    def forward(self, x: Tensor) -> Tensor:
        conv = self.conv
        trained = conv.weight.requires_grad or (conv.bias is not None and conv.bias.requires_grad)
        kept = torch.is_grad_enabled() and x.requires_grad
        if trained or not kept or torch.compiler.is_compiling():
            out: Tensor = conv._conv_forward(x, conv.weight, conv.bias)
            return out  # stock: it keeps nothing, what it keeps is needed, or a compiler decides
        dtype = _autocast_type(x)
        bias = None if conv.bias is None else conv.bias.to(dtype)
        options: Any = (conv.stride, conv.padding, conv.dilation, conv.groups)
        return FrozenConvolution.apply(x.to(dtype), conv.weight.to(dtype), bias, *options)  # type: ignore[no-any-return, no-untyped-call]


class LeanNorm(nn.Module):
    """BatchNorm2d, perhaps with a ReLU behind it, perhaps with an addition between the two.
    across: the processes among which a batch is shared out, if it is."""

    norm: nn.BatchNorm2d

    def __init__(self, norm: nn.BatchNorm2d, relu: bool, across: "Processes | None" = None) -> None:
        super().__init__()
        self.__dict__["norm"] = norm
        self.relu, self.across = relu, across

    def forward(self, z: Tensor, residual: Tensor | None = None) -> Tensor:
        norm = self.norm
        norm._check_input_dim(z)
        broadcasts = residual is not None and residual.shape != z.shape
        # Nothing to measure; or a compiler is at work, which fuses by itself and knows no C++.
        stock = z.numel() == 0 or (torch.compiler.is_compiling() and self.across is None)
        if stock or broadcasts:  # a sum that broadcasts is not ours to fuse
            out = norm(z) if stock else LeanNorm(norm, False, self.across)(z)
            out = out if residual is None else out + residual
            return F.relu(out) if self.relu else out
        across = self.across if self.across is not None and self.across.together else None
        mean, var, follow = self._statistics(z, alone=across is None)
        out, mean, var, n = NormAct.apply(  # type: ignore[no-untyped-call]
            z, norm.weight, norm.bias, residual, mean, var, norm.eps, self.relu, across
        )
        if follow:
            self._follow(mean, var, n)
        # A view made here, not inside the function: torch lets it be changed in place.
        return out.permute(0, 3, 1, 2)  # type: ignore[no-any-return]

    def _statistics(self, z: Tensor, alone: bool) -> tuple[Tensor | None, Tensor | None, bool]:
        """(mean, variance, do the running ones follow); None: those of the batch. This is what the
        hooks of ../statistics.py do to a stock layer."""
        norm = self.norm
        enforcer = norm.__dict__.get("_gammabeta_statistics")
        policy = enforcer.policy if enforcer is not None else "track"
        of_batch = norm.running_mean is None or policy == "batch"
        if of_batch or (norm.training and policy == "track"):
            if alone and z.numel() == z.shape[1]:
                raise ValueError(f"Expected more than 1 value per channel, got {tuple(z.shape)}")
            return None, None, not of_batch
        assert norm.running_mean is not None
        assert norm.running_var is not None
        # Copies: what autograd keeps must not change when the running ones do.
        return norm.running_mean.clone(), norm.running_var.clone(), False

    @torch.no_grad()
    def _follow(self, mean: Tensor, var: Tensor, n: int | Tensor) -> None:
        norm = self.norm
        assert norm.running_mean is not None
        assert norm.running_var is not None
        assert norm.momentum is not None
        dtype = norm.running_mean.dtype
        norm.running_mean.lerp_(mean.to(dtype), norm.momentum)
        norm.running_var.lerp_((var * (n / (n - 1))).to(dtype), norm.momentum)
        if norm.num_batches_tracked is not None:
            norm.num_batches_tracked.add_(1)


def _autocast_type(x: Tensor) -> torch.dtype:
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
