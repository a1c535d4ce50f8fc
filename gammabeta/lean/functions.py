"""Autograd functions that keep one tensor a layer: the raw output z of each convolution.

Stock torch keeps two: the convolution keeps its input, which is the ReLU's output, and BatchNorm
keeps z. Here a frozen convolution keeps nothing, and BatchNorm + ReLU (+ add) keeps z and works out
again where the ReLU was open; after an addition that is one bit a value.

Images are (N, C, H, W) in channels_last memory; what a function gets in another layout it copies.
"""

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from gammabeta import passes
from gammabeta.passes.edges import output_padding
from gammabeta.passes.twin import exact

if TYPE_CHECKING:
    from gammabeta.processes import Processes


class FrozenConvolution(torch.autograd.Function):
    """A convolution whose weight and bias never get a gradient: it keeps no activation.

    The input's gradient is a transposed convolution, which needs no input: torch's own backward
    asks for one, even if only to look at its shape.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        stride: tuple[int, int],
        padding: tuple[int, int],
        dilation: tuple[int, int],
        groups: int,
    ) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.size, ctx.options = x.shape[-2:], (stride, padding, dilation, groups)
        return F.conv2d(x, weight, bias, stride, padding, dilation, groups)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (weight,) = ctx.saved_tensors
        stride, padding, dilation, groups = ctx.options
        sizes = (ctx.size, gradient.shape[-2:], weight.shape[2:])
        extra = list(map(output_padding, *sizes, stride, padding, dilation))
        gradient = gradient.to(weight.dtype)
        dx = F.conv_transpose2d(gradient, weight, None, stride, padding, extra, groups, dilation)
        return (dx, *[None] * 6)


class NormAct(torch.autograd.Function):
    """relu(s z + t + residual), s = gamma inv, t = beta - mean s, with the ReLU and the residual
    both optional. Keeps z, and one bit a value if it has a ReLU behind an addition.

    mean, var: (C,), the statistics to use; None: those of the batch, through which the gradient
    then flows. across: where the batch is shared out among processes, their sums (processes.py).
    Returns the output, (N, H, W, C), the mean and biased variance that were used, and of how many
    values they are; all processes must call forward and backward, in the same order.
    """

    @staticmethod
    def forward(
        ctx: Any,
        z: Tensor,
        gamma: Tensor,
        beta: Tensor,
        residual: Tensor | None,
        mean: Tensor | None,
        var: Tensor | None,
        eps: float,
        relu: bool,
        across: "Processes | None",
    ) -> tuple[Tensor, Tensor, Tensor, int | Tensor]:
        ctx.of_batch, ctx.dtype, ctx.across = mean is None, gamma.dtype, across
        z = _rows(z)
        ctx.n = z.numel() // z.shape[-1]
        if mean is None or var is None:
            mean, var = passes.measure(z)
            if across is not None:
                mean, var, ctx.n = across.moments(mean, var, ctx.n)
        # A network in bf16 keeps even these in bf16; the passes want them exact.
        mean, var, gamma, beta = (exact(each) for each in (mean, var, gamma, beta))
        inv = torch.rsqrt(var + eps)
        s = gamma * inv
        t = beta - mean * s
        skip = None if residual is None else _rows(residual).to(z.dtype)
        joined = relu and residual is not None
        needed = any(ctx.needs_input_grad)
        out, bits = passes.normalise(z, s, t, skip, relu=relu, keep=joined and needed)
        if needed:
            ctx.save_for_backward(z, mean, inv, s, t, bits)
        ctx.relu, ctx.joined = relu, joined
        ctx.set_materialize_grads(False)  # no zeros for outputs that have no gradient
        ctx.mark_non_differentiable(mean, var)
        return out, mean, var, ctx.n

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor | None, *_: Tensor | None) -> tuple[Tensor | None, ...]:
        if gradient is None:
            return (None,) * 9
        z, mean, inv, s, t, bits = ctx.saved_tensors
        g = gradient.contiguous().to(z.dtype)
        want_z, want_gamma, want_beta, want_residual = ctx.needs_input_grad[:4]
        dbeta: Tensor | None = None
        dgamma: Tensor | None = None
        through_statistics = ctx.of_batch and want_z
        if want_gamma or want_beta or through_statistics or ctx.joined:
            opened = bits if ctx.joined else (s, t) if ctx.relu else None
            dbeta, dgamma, _shortcut, masked = passes.sums(
                g, z, mean, inv, opened=opened, keep=ctx.joined
            )
            g = g if masked is None else masked
        dz: Tensor | None = None
        if want_z:
            if not ctx.of_batch:
                k1 = k2 = torch.zeros_like(s)
            else:
                assert dbeta is not None
                assert dgamma is not None
                both = torch.stack([dbeta, dgamma])
                if ctx.across is not None:  # what the others have depends on z too
                    ctx.across.sum(both)
                k1, k2 = both / ctx.n
            still_masked = t if ctx.relu and not ctx.joined else None
            dz = passes.input_gradient(g, z, mean, inv, s, k1, k2, still_masked)
            dz = dz.permute(0, 3, 1, 2)
        return (
            dz,
            dgamma.to(ctx.dtype) if want_gamma and dgamma is not None else None,
            dbeta.to(ctx.dtype) if want_beta and dbeta is not None else None,
            g.permute(0, 3, 1, 2) if want_residual else None,
            *[None] * 5,
        )


def _rows(images: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, H, W, C), contiguous; a view of channels_last images."""
    return images.permute(0, 2, 3, 1).contiguous()
