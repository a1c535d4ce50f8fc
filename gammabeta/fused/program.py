"""The fused program in plain torch: forward and backward of a CIFAR ResNet written out, with
gradients for gamma, beta and the classifier only. The slow twin of every faster program.

Activations are (m, N, H, W, C), contiguous: m is the member axis, 1 where all members still share
the tensor. Between forward and backward live the raw output z of every convolution and whether
each value after a join is positive. With mu and inv = 1/sqrt(var + eps) over (N, H, W):

    x_hat = (z - mu) inv        s = gamma inv        t = beta - mu s        BatchNorm(z) = s z + t
    dz = s (u - sum(u)/n - x_hat sum(u x_hat)/n)     dbeta = sum(u)         dgamma = sum(u x_hat)

where u is the gradient at BatchNorm's output and n = N H W (Ioffe and Szegedy 2015, section 3).
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from gammabeta.fused.optimiser import sgd
from gammabeta.fused.plan import Block, Layer, Plan


@dataclass
class Join:
    """What a block's input a is made of: a = relu(BatchNorm(z) + skip). Nothing is added after the
    stem; after a block it is that block's own input, or BatchNorm(z_shortcut)."""

    layer: Layer
    z: Tensor
    skip: Tensor | None = None
    shortcut: Layer | None = None
    z_shortcut: Tensor | None = None


@dataclass
class Kept:
    """What one block keeps for the backward pass. positive: [a > 0] of the block's input."""

    join: Join
    positive: Tensor
    z1: Tensor
    z2: Tensor
    z_shortcut: Tensor | None


class Program:
    """M networks of one plan, trained in step. Flat buffers have one row a member.

    values: (M, T) gamma of all layers, beta of all layers and, with `head`, the classifier's weight
    and bias; gradient: the same, written by `backward`. running_mean, running_var: (M, P), updated
    by `forward` in training. mean, inv: (M, P), of the last training batch. scale, shift: (M, P),
    the s and t in use. weights: one tensor (1 or M, O, I, k, k) a layer of the plan: shared by the
    members or one each. head_weight (1 or M, classes, features), head_bias (1 or M, classes): used
    where the classifier is frozen, and its start where it trains.

    dtype: of images, weights and activations. stream: of the residual stream and its gradient
    (default dtype). Everything per channel is fp32, or fp64 with an fp64 dtype.
    """

    def __init__(
        self,
        plan: Plan,
        weights: Sequence[Tensor],
        head_weight: Tensor,
        head_bias: Tensor,
        *,
        members: int = 1,
        head: bool = False,
        dtype: torch.dtype = torch.float32,
        stream: torch.dtype | None = None,
    ) -> None:
        self.plan, self.members, self.head, self.dtype = plan, members, head, dtype
        self.stream = stream or dtype
        self.exact = torch.float64 if dtype == torch.float64 else torch.float32
        self.device = weights[0].device
        self.weights = {
            layer.conv: weight.detach().to(dtype)
            for layer, weight in zip(plan.layers, weights, strict=True)
        }
        channels = plan.channels
        head_size = plan.classes * (plan.features + 1) if head else 0
        self.values = self._new(2 * channels + head_size)
        self.gradient = torch.zeros_like(self.values)
        self.gamma, self.beta = self.values[:, :channels], self.values[:, channels : 2 * channels]
        self.dgamma = self.gradient[:, :channels]
        self.dbeta = self.gradient[:, channels : 2 * channels]
        self.running_mean, self.running_var = self._new(channels), self._new(channels) + 1
        self.mean, self.inv = self._new(channels), self._new(channels)
        self.scale, self.shift = self._new(channels), self._new(channels)
        self.head_weight, self.head_bias = head_weight.to(self.exact), head_bias.to(self.exact)
        if head:
            weight_size = plan.classes * plan.features
            tail, dtail = self.values[:, 2 * channels :], self.gradient[:, 2 * channels :]
            shape = (members, plan.classes, plan.features)
            tail[:, :weight_size] = self.head_weight.flatten(1)
            tail[:, weight_size:] = self.head_bias
            self.head_weight, self.dweight = (
                each[:, :weight_size].view(shape) for each in (tail, dtail)
            )
            self.head_bias, self.dbias = (each[:, weight_size:] for each in (tail, dtail))

    def _new(self, width: int) -> Tensor:
        return torch.zeros(self.members, width, dtype=self.exact, device=self.device)

    def step(self, images: Tensor, labels: Tensor, smoothing: float = 0.0) -> tuple[Tensor, Tensor]:
        """Forward and backward on one batch: fills `gradient`.

        images: (1 or M, N, H, W, 3). labels: int64 (1 or M, N). Returns the mean loss and the
        number of correct answers of each member, both (M,).
        """
        features = self.forward(images, training=True)
        loss, correct, dfeatures = self.classify(features, labels, smoothing)
        self.backward(dfeatures)
        return loss, correct

    def logits(self, images: Tensor) -> Tensor:
        """Evaluation: (1 or M, N, H, W, 3) -> (M, N, classes), by the running statistics."""
        features = self.forward(images, training=False)
        return self._linear(features)

    def forward(self, images: Tensor, training: bool) -> Tensor:
        """The pooled features (M, N, F). In training it keeps what `backward` needs and updates the
        running statistics."""
        if not training:
            self.scale.copy_(self.gamma * torch.rsqrt(self.running_var + self.eps))
            self.shift.copy_(self.beta - self.running_mean * self.scale)
        self.kept: list[Kept] = []
        self.training = training
        join = Join(self.plan.stem, self.first(images))
        for block in self.plan.blocks:
            a, positive, z1, z_shortcut = self.enter(block, join)
            join.skip = None  # or it stays in memory until the backward pass, for nothing
            z2 = self.middle(block, z1)
            if training:
                self.kept.append(Kept(join, positive, z1, z2, z_shortcut))
            join = Join(block.second, z2, None if block.shortcut else a, block.shortcut, z_shortcut)
        self.last = join
        features = self.leave(join)
        join.skip = None
        return features

    def backward(self, dfeatures: Tensor) -> None:
        """From the gradient of the pooled features (M, N, F) to that of every gamma and beta."""
        u = self.leave_backward(dfeatures, self.last)
        for block, kept in zip(reversed(self.plan.blocks), reversed(self.kept), strict=True):
            v = self.middle_backward(block, u, kept)
            u = self.enter_backward(block, v, u, kept)
        self.kept = []

    # The passes that faster programs override. Each leaves s and t, or dgamma and dbeta, of the
    # BatchNorms that it measures in the flat buffers.

    def first(self, images: Tensor) -> Tensor:
        """The stem's raw output; its statistics."""
        return self._convolve_and_measure(self.plan.stem, images.to(self.dtype))

    def enter(self, block: Block, join: Join) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """F1. The block's input a, [a > 0], the raw output of its first convolution and, if there
        is one, of its shortcut's; their statistics."""
        a = self._join(join)
        x = a.to(self.dtype)
        z1 = self._convolve_and_measure(block.first, x)
        z_shortcut = None
        if block.shortcut is not None:
            z_shortcut = self._convolve_and_measure(block.shortcut, x)
        return a, a > 0, z1, z_shortcut

    def middle(self, block: Block, z1: Tensor) -> Tensor:
        """F2. The raw output of the second convolution; its statistics."""
        h = F.relu(self._norm(block.first, z1)).to(self.dtype)
        return self._convolve_and_measure(block.second, h)

    def leave(self, join: Join) -> Tensor:
        """The last block's output, averaged over its positions: (M, N, F)."""
        a = self._join(join)
        self.positive = a > 0
        return a.to(self.exact).mean((2, 3))

    def leave_backward(self, dfeatures: Tensor, join: Join) -> Tensor:
        """u of the last join, and the sums that its BatchNorms need."""
        n = join.layer.size**2
        u = torch.where(self.positive, (dfeatures / n)[:, :, None, None], 0).to(self.stream)
        self._sums_of_join(join, u)
        return u

    def middle_backward(self, block: Block, u: Tensor, kept: Kept) -> Tensor:
        """B2. Through the second BatchNorm, convolution and the ReLU between: v, and the sums of
        the first BatchNorm."""
        dz2 = self._norm_backward(block.second, u, kept.z2)
        dh = self._input_gradient(block.second, dz2)
        open_ = self._norm(block.first, kept.z1) > 0
        v = torch.where(open_, dh, 0)
        self._sums(block.first, v, kept.z1)
        return v

    def enter_backward(self, block: Block, v: Tensor, u: Tensor, kept: Kept) -> Tensor:
        """B1. Through the first convolution and the skip, to u of the join before and its sums."""
        dz1 = self._norm_backward(block.first, v, kept.z1)
        gradient = self._input_gradient(block.first, dz1).to(self.exact)
        if block.shortcut is None:
            gradient = gradient + u
        else:
            assert kept.z_shortcut is not None
            dz = self._norm_backward(block.shortcut, u, kept.z_shortcut)
            gradient = gradient + self._input_gradient(block.shortcut, dz)
        before = torch.where(kept.positive, gradient, 0).to(self.stream)
        self._sums_of_join(kept.join, before)
        return before

    def classify(
        self, features: Tensor, labels: Tensor, smoothing: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Cross-entropy: mean loss (M,), correct answers (M,), gradient of the features (M, N, F);
        with `head` also the classifier's gradient."""
        logits = self._linear(features)
        labels = labels.expand(self.members, -1)
        log_p = F.log_softmax(logits, -1)
        target = torch.full_like(logits, smoothing / self.plan.classes)
        target.scatter_add_(2, labels[..., None], torch.full_like(logits[..., :1], 1 - smoothing))
        loss = -(target * log_p).sum(-1).mean(-1)
        dlogits = (log_p.exp() - target) / logits.shape[1]
        if self.head:
            self.dweight.copy_(dlogits.mT @ features)
            self.dbias.copy_(dlogits.sum(1))
        return loss, (logits.argmax(-1) == labels).sum(-1), dlogits @ self.head_weight

    def optimise(
        self,
        velocity: Tensor,
        rate: Tensor,
        decay: Tensor,
        factor: Tensor,
        momentum: float,
        nesterov: bool,
    ) -> None:
        """One step of SGD (optimiser.py) on `values`. factor: (1,), on the device."""
        sgd(self.values, self.gradient, velocity, rate, decay, factor, momentum, nesterov)

    def _linear(self, features: Tensor) -> Tensor:
        return features @ self.head_weight.mT + self.head_bias[:, None]

    @functools.cached_property
    def eps(self) -> Tensor:
        """(P,), on the device."""
        eps = [torch.full((layer.channels,), layer.eps) for layer in self.plan.layers]
        return torch.cat(eps).to(self.scale)

    def _convolve_and_measure(self, layer: Layer, x: Tensor) -> Tensor:
        z = self._convolve(layer, x)
        if self.training:
            self._measure(layer, z)
        return z

    def _measure(self, layer: Layer, z: Tensor) -> None:
        """Mean and variance of z as it is stored, then s and t, and the running statistics."""
        exact = z.to(self.exact)
        var, mean = torch.var_mean(exact, (1, 2, 3), correction=0)
        n = z[0].numel() // layer.channels
        self._set_statistics(layer, mean, var, n)

    def _set_statistics(self, layer: Layer, mean: Tensor, var: Tensor, n: int) -> None:
        """mean and biased variance (1 or M, C) over n values a channel."""
        place = layer.place
        inv = torch.rsqrt(var + layer.eps)
        self.mean[:, place], self.inv[:, place] = mean, inv
        scale = self.gamma[:, place] * inv
        self.scale[:, place] = scale
        self.shift[:, place] = self.beta[:, place] - mean * scale
        self.running_mean[:, place].lerp_(mean.expand(self.members, -1), layer.momentum)
        unbiased = (var * (n / max(n - 1, 1))).expand(self.members, -1)
        self.running_var[:, place].lerp_(unbiased, layer.momentum)

    def _norm(self, layer: Layer, z: Tensor) -> Tensor:
        """s z + t, (M, N, H, W, C), exact."""
        return z * _wide(self.scale[:, layer.place]) + _wide(self.shift[:, layer.place])

    def _join(self, join: Join) -> Tensor:
        total = self._norm(join.layer, join.z)
        if join.shortcut is not None:
            assert join.z_shortcut is not None
            total = total + self._norm(join.shortcut, join.z_shortcut)
        elif join.skip is not None:
            total = total + join.skip
        return F.relu(total).to(self.stream)

    def _x_hat(self, layer: Layer, z: Tensor) -> Tensor:
        return (z - _wide(self.mean[:, layer.place])) * _wide(self.inv[:, layer.place])

    def _sums(self, layer: Layer, u: Tensor, z: Tensor) -> None:
        u = u.to(self.exact)
        self.dbeta[:, layer.place] = u.sum((1, 2, 3))
        self.dgamma[:, layer.place] = (u * self._x_hat(layer, z)).sum((1, 2, 3))

    def _sums_of_join(self, join: Join, u: Tensor) -> None:
        self._sums(join.layer, u, join.z)
        if join.shortcut is not None:
            assert join.z_shortcut is not None
            self._sums(join.shortcut, u, join.z_shortcut)

    def _norm_backward(self, layer: Layer, u: Tensor, z: Tensor) -> Tensor:
        """dz from u and the sums in dgamma and dbeta."""
        n = u[0].numel() // layer.channels
        dbeta, dgamma = self.dbeta[:, layer.place], self.dgamma[:, layer.place]
        centred = u - _wide(dbeta / n) - self._x_hat(layer, z) * _wide(dgamma / n)
        return (_wide(self.scale[:, layer.place]) * centred).to(self.dtype)

    def _convolve(self, layer: Layer, x: Tensor) -> Tensor:
        def one(x: Tensor, weight: Tensor) -> Tensor:
            return F.conv2d(x, weight, stride=layer.stride, padding=layer.padding)

        return _each(one, x, self.weights[layer.conv])

    def _input_gradient(self, layer: Layer, dz: Tensor) -> Tensor:
        """The gradient at a convolution's input: a transposed convolution, which needs no input."""

        def one(dz: Tensor, weight: Tensor) -> Tensor:
            return F.conv_transpose2d(
                dz, weight, stride=layer.stride, padding=layer.padding,
                output_padding=layer.output_padding,
            )  # fmt: skip

        return _each(one, dz, self.weights[layer.conv])


def _wide(channels: Tensor) -> Tensor:
    """(M, C) -> (M, 1, 1, 1, C)"""
    return channels[:, None, None, None]


def _each(function: Callable[[Tensor, Tensor], Tensor], x: Tensor, weights: Tensor) -> Tensor:
    """A function of an NCHW batch and one weight, over members: x (1 or M, N, H, W, C)."""
    if len(weights) == 1:  # shared: all members are one batch
        out = function(x.flatten(0, 1).permute(0, 3, 1, 2), weights[0])
        out = out.permute(0, 2, 3, 1).contiguous()
        return out.view(*x.shape[:2], *out.shape[1:])
    xs = x.expand(len(weights), *x.shape[1:]).permute(0, 1, 4, 2, 3)
    outs = [function(one, weight) for one, weight in zip(xs, weights, strict=True)]
    return torch.stack(outs).permute(0, 1, 3, 4, 2).contiguous()
