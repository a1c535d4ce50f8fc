"""The fused program on a CPU: oneDNN's convolutions and the compiled passes between them.

Members run one after another: on a CPU nothing is gained by a wider batch, and this way a layer's
tensors are still in the cache when the next pass reads them, and only one member's activations
exist at a time. What members share (the batch, the stem's output and its statistics) is made once.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from gammabeta import passes
from gammabeta.fused.plan import Block, Layer
from gammabeta.fused.program import Join, Kept, Program

_ROWS = ("values", "gradient", "gamma", "beta", "dgamma", "dbeta", "running_mean", "running_var",
         "mean", "inv", "scale", "shift")  # fmt: skip
_HEAD = ("head_weight", "head_bias")

# What members share: the stem's output, and in training its mean and variance.
Stem = tuple[Tensor, Tensor | None, Tensor | None]


class NativeProgram(Program):
    """See Program; `stream` must be the type of the activations."""

    def step(self, images: Tensor, labels: Tensor, smoothing: float = 0.0) -> tuple[Tensor, Tensor]:
        z = self._shared_stem(images)
        stem = None if z is None else (z, *passes.measure(z))
        results = []
        for row in range(self.members):
            member = self.member(row, stem)
            results.append(member.step(row_of(images, row), row_of(labels, row), smoothing))
        losses, correct = zip(*results, strict=True)
        return torch.cat(losses), torch.cat(correct)

    def logits(self, images: Tensor) -> Tensor:
        z = self._shared_stem(images)
        stem = None if z is None else (z, None, None)  # evaluation has the running statistics
        members = [self.member(row, stem) for row in range(self.members)]
        return torch.cat([each.logits(row_of(images, row)) for row, each in enumerate(members)])

    def member(self, row: int, stem: Stem | None) -> "Member":
        return Member(self, row, stem)

    def _shared_stem(self, images: Tensor) -> Tensor | None:
        """The stem's output, if all members have the same."""
        if self.members == 1 or len(images) > 1 or len(self.weights[self.plan.stem.conv]) > 1:
            return None
        return _convolve(self.plan.stem, images.to(self.dtype), self.weights[self.plan.stem.conv])


class Member(Program):
    """One row of a program's buffers, trained on its own. Activations are (1, N, H, W, C)."""

    def __init__(self, whole: Program, row: int, stem: Stem | None) -> None:
        self.plan, self.head, self.dtype, self.stream = (
            whole.plan, whole.head, whole.dtype, whole.dtype
        )  # fmt: skip
        self.exact, self.device, self.members, self.stem = whole.exact, whole.device, 1, stem
        self.weights = {name: row_of(weight, row) for name, weight in whole.weights.items()}
        for name in _ROWS:
            setattr(self, name, getattr(whole, name)[row : row + 1])
        for name in (*_HEAD, *(("dweight", "dbias") if whole.head else ())):
            setattr(self, name, row_of(getattr(whole, name), row))

    def first(self, images: Tensor) -> Tensor:
        if self.stem is None:
            return super().first(images)
        z, mean, var = self.stem
        if self.training:
            assert mean is not None
            assert var is not None
            self._set_statistics(self.plan.stem, mean, var, z.numel() // z.shape[-1])
        return z

    def enter(self, block: Block, join: Join) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        a, positive = self._pass_join(join)
        z1 = self._convolve_and_measure(block.first, a)
        if block.shortcut is None:
            return a, positive, z1, None
        return a, positive, z1, self._convolve_and_measure(block.shortcut, a)

    def middle(self, block: Block, z1: Tensor) -> Tensor:
        h, _ = passes.normalise(z1, *self._affine(block.first), relu=True, keep=False)
        return self._convolve_and_measure(block.second, h)

    def leave(self, join: Join) -> Tensor:
        a, self.positive = self._pass_join(join)
        return a.to(self.exact).mean((2, 3))

    def leave_backward(self, dfeatures: Tensor, join: Join) -> Tensor:
        gradient = (dfeatures / join.layer.size**2).to(self.dtype)[:, :, None, None]
        return self._sums_and_u(join, gradient.expand_as(join.z).contiguous(), self.positive)

    def middle_backward(self, block: Block, u: Tensor, kept: Kept) -> Tensor:
        dh = self._through(block.second, u, kept.z2)
        scale, shift = self._affine(block.first)
        dbeta, dgamma, _, _ = passes.sums(
            dh, kept.z1, *self._moments(block.first), opened=(scale, shift)
        )
        self._keep_sums(block.first, dbeta, dgamma)
        return dh  # not masked: the next pass recomputes the mask as it reads z1 anyway

    def enter_backward(self, block: Block, v: Tensor, u: Tensor, kept: Kept) -> Tensor:
        gradient = self._through(block.first, v, kept.z1, masked=False)
        skip = u
        if block.shortcut is not None:
            assert kept.z_shortcut is not None
            skip = self._through(block.shortcut, u, kept.z_shortcut)
        return self._sums_and_u(kept.join, gradient, kept.positive, skip)

    def _pass_join(self, join: Join) -> tuple[Tensor, Tensor]:
        """a and the bits of [a > 0]."""
        skip = join.skip
        affine: tuple[Tensor, ...] = ()
        if join.shortcut is not None:
            skip, affine = join.z_shortcut, self._affine(join.shortcut)
        a, bits = passes.normalise(
            join.z, *self._affine(join.layer), skip, *affine, relu=True, keep=self.training
        )
        return a, a if bits is None else bits

    def _sums_and_u(
        self, join: Join, gradient: Tensor, bits: Tensor, skip: Tensor | None = None
    ) -> Tensor:
        """u = (gradient + skip) where a > 0, with the sums of the join's BatchNorms."""
        shortcut = None
        if join.shortcut is not None:
            assert join.z_shortcut is not None
            shortcut = (join.z_shortcut, *self._moments(join.shortcut))
        dbeta, dgamma, second, u = passes.sums(
            gradient, join.z, *self._moments(join.layer),
            opened=bits, more=skip, shortcut=shortcut, keep=True,
        )  # fmt: skip
        self._keep_sums(join.layer, dbeta, dgamma)
        if join.shortcut is not None:
            assert second is not None
            self._keep_sums(join.shortcut, dbeta, second)
        assert u is not None
        return u

    def _through(self, layer: Layer, g: Tensor, z: Tensor, masked: bool = True) -> Tensor:
        """From the gradient at a BatchNorm's output to that at its convolution's input. masked:
        the ReLU behind it has been applied to g; else it is recomputed from z."""
        scale, shift = self._affine(layer)
        n = z.numel() // layer.channels
        k1, k2 = self.dbeta[0, layer.place] / n, self.dgamma[0, layer.place] / n
        ours = self._moments(layer)
        dz = passes.input_gradient(g, z, *ours, scale, k1, k2, None if masked else shift)
        return _input_gradient(layer, dz, self.weights[layer.conv])

    def _affine(self, layer: Layer) -> tuple[Tensor, Tensor]:
        return self.scale[0, layer.place], self.shift[0, layer.place]

    def _moments(self, layer: Layer) -> tuple[Tensor, Tensor]:
        return self.mean[0, layer.place], self.inv[0, layer.place]

    def _keep_sums(self, layer: Layer, dbeta: Tensor, dgamma: Tensor) -> None:
        self.dbeta[0, layer.place], self.dgamma[0, layer.place] = dbeta, dgamma

    def _convolve_and_measure(self, layer: Layer, x: Tensor) -> Tensor:
        z = _convolve(layer, x, self.weights[layer.conv])
        if self.training:
            self._set_statistics(layer, *passes.measure(z), z.numel() // layer.channels)
        return z


def row_of(tensor: Tensor, row: int) -> Tensor:
    """Row `row` of a tensor with one row a member, or the one row that all members share."""
    return tensor[row : row + 1] if len(tensor) > 1 else tensor


def _convolve(layer: Layer, x: Tensor, weight: Tensor) -> Tensor:
    """(1, N, H, W, C) -> (1, N, H', W', C'). Plain torch: prepacked weights gain nothing here."""
    images = x[0].permute(0, 3, 1, 2)  # channels_last as it lies in memory
    z = F.conv2d(images, weight[0], stride=layer.stride, padding=layer.padding)
    return z.permute(0, 2, 3, 1).contiguous()[None]


def _input_gradient(layer: Layer, dz: Tensor, weight: Tensor) -> Tensor:
    gradient = F.conv_transpose2d(
        dz[0].permute(0, 3, 1, 2),
        weight[0],
        stride=layer.stride,
        padding=layer.padding,
        output_padding=layer.output_padding,
    )
    return gradient.permute(0, 2, 3, 1).contiguous()[None]
