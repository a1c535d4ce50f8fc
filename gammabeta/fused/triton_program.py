"""The fused program on an NVIDIA GPU: two Triton kernels a layer. Import it only where triton is.

A step has no data-dependent launch and no synchronisation, and all it writes lies in buffers that
are made at the first batch of a size and kept: after one step of a size, which compiles its
kernels, a step of it can be captured in a CUDA graph. What a pass returns is overwritten by the
next step.
"""

import torch
from torch import Tensor

from gammabeta.fused import ends, kernels, windows
from gammabeta.fused.plan import Block, Layer
from gammabeta.fused.program import Join, Kept
from gammabeta.fused.tiles import PRECISION, cut, lines, padded, power_of_two
from gammabeta.fused.workspace import TYPES, Partials, Workspace


class TritonProgram(Workspace):
    """See Program; dtype is fp32, fp16 or bf16."""

    def first(self, images: Tensor) -> Tensor:
        stem = self.plan.stem
        lead = max(len(images), len(self._forth[stem.conv]))
        z = self._output(stem, "z2", lead, images.shape[1])
        self._convolve_forward(stem, images.contiguous(), z)
        return z

    def enter(self, block: Block, join: Join) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        count, turn = join.z.shape[1], self._turn[block.first.conv]
        a = self._buffer(f"a{turn}", (self.members, *join.z.shape[1:]), self.stream)
        bits = self._bits(join)
        z1 = self._output(block.first, "z1", self.members, count)
        side = None
        if block.shortcut is not None:
            side = self._output(block.shortcut, f"side{turn}", self.members, count)
        self._convolve_forward(block.first, join.z, z1, join, a, bits, block.shortcut, side)
        return a, a if bits is None else bits, z1, side

    def middle(self, block: Block, z1: Tensor) -> Tensor:
        z2 = self._output(block.second, "z2", self.members, z1.shape[1])
        self._convolve_forward(block.second, z1, z2, Join(block.first, z1))
        return z2

    def leave(self, join: Join) -> Tensor:
        layer, count = join.layer, join.z.shape[1]
        features = self._buffer("features", (self.members, count, layer.channels), self.exact)
        bits = self._bits(join)
        if bits is not None:
            self.positive = bits
        wide = padded(layer.channels)
        self._launch(
            ends.leave, (count, self.members, cut(wide, self.widest)), 4,
            z=join.z, skip=_skipped(join), features=features, bits=bits,
            rows=count * layer.size**2, KEEP_BITS=self.training, STREAM=TYPES[self.stream],
            PIXELS=layer.size**2, ROWS=power_of_two(layer.size**2),
            CHANNELS=layer.channels, PADDED=wide, BLOCK=self._block(layer),
            **self._scales(layer, join),
        )  # fmt: skip
        return features

    def _convolve_forward(
        self,
        layer: Layer,
        z_in: Tensor,
        z: Tensor,
        join: Join | None = None,
        a: Tensor | None = None,
        bits: Tensor | None = None,
        shortcut: Layer | None = None,
        side: Tensor | None = None,
    ) -> None:
        """z, and side with a shortcut, from what the join makes of z_in (None: z_in as it is). a:
        the join is a block's input, kept there if it is the skip."""
        rows = z.shape[1] * layer.size**2
        tile = self._tile(layer, rows)
        wide, wide_in = padded(layer.channels), padded(layer.channels_in)
        programs = cut(rows, tile.span)
        scales = self._scales(layer, join)  # of the layer before: its sums, not those made here
        made = [each for each in (layer, shortcut) if each is not None]
        if self.training:
            for each in made:
                name, shape = f"sums of {each.conv}", (len(z), 2, programs, wide)
                self._partials[each.conv] = Partials(
                    self._buffer(name, shape, self.exact), tile.span
                )
        sums = [self._partials[each.conv].buffer if self.training else None for each in made]
        self._launch(
            kernels.convolve, (programs, len(z), cut(wide, self.widest)), tile.warps,
            z_in=z_in, skip=join and _skipped(join),
            weight=self._forth[layer.conv], side_weight=shortcut and self._forth[shortcut.conv],
            a=a, bits=bits, z=z, side=side, partial=sums[0], partial_side=sums[-1],
            rows=rows, SPAN=tile.span,
            NORM=join is not None, KEEP_A=a is not None and shortcut is None,
            KEEP_BITS=bits is not None, SIDE=shortcut is not None, MEASURE=self.training,
            STREAM=TYPES[self.dtype if a is None else self.stream],
            SHARED_IN=len(z_in) == 1, SHARED_WEIGHT=len(self._forth[layer.conv]) == 1,
            SIZE=layer.size, STRIDE=layer.stride, CHANNELS_IN=layer.channels_in,
            CHANNELS=layer.channels, PADDED_IN=wide_in, PADDED=wide, PACK=self._pack(layer),
            BLOCK_M=tile.rows // self._pack(layer),
            BLOCK_C=min(wide_in, self.widest), BLOCK_N=self._block(layer),
            PRECISION=PRECISION, **scales,
        )  # fmt: skip
        if self.training and not self._merges(layer):
            for each in made:
                self._settle(each, rows)

    def leave_backward(self, dfeatures: Tensor, join: Join) -> Tensor:
        layer, rows = join.layer, join.z.shape[1] * join.layer.size**2
        tile, wide = self._tile(layer, rows), padded(layer.channels)
        u = self._buffer(f"u{len(self.plan.blocks) % 2}", tuple(join.z.shape), self.stream)
        programs = cut(rows, tile.span)
        self._launch(
            ends.leave_back, (programs, self.members, cut(wide, self.widest)), tile.warps,
            dfeatures=dfeatures, bits=self.positive, out=u, rows=rows, SPAN=tile.span,
            PIXELS=layer.size**2, BLOCK_M=tile.rows, **self._below(join, programs),
        )  # fmt: skip
        self._settle_wide(join)
        return u

    def middle_backward(self, block: Block, u: Tensor, kept: Kept) -> Tensor:
        v = self._buffer("v", tuple(kept.z1.shape), self.dtype)
        self._convolve_backward(block.second, u, kept.z2, v, Join(block.first, kept.z1))
        return v

    def enter_backward(self, block: Block, v: Tensor, u: Tensor, kept: Kept) -> Tensor:
        shape = (self.members, *kept.join.z.shape[1:])
        before = self._buffer(f"u{self._turn[block.first.conv]}", shape, self.stream)
        self._convolve_backward(block.first, v, kept.z1, before, kept.join, block, u, kept)
        return before

    def backward(self, dfeatures: Tensor) -> None:
        super().backward(dfeatures)
        stem = self.plan.stem
        if self._merges(stem):  # no kernel behind asks for the stem's sums
            self._settle_back(stem, self._partials_back[stem.conv], 1)

    def _convolve_backward(
        self,
        layer: Layer,
        u: Tensor,
        z: Tensor,
        out: Tensor,
        below: Join,
        block: Block | None = None,
        u_skip: Tensor | None = None,
        kept: Kept | None = None,
    ) -> None:
        """From u, the gradient behind the layer's BatchNorm, to that behind the join's. With
        `block` the layer is a block's first: its skip joins in, and the mask is the kept one."""
        shortcut = None if block is None else block.shortcut
        skip = windows.NOTHING
        if block is not None:
            skip = windows.IDENTITY if shortcut is None else windows.CONVOLUTION
        rows = z.shape[1] * layer.size**2
        tile = self._tile(layer, rows)
        wide, wide_out = padded(layer.channels), padded(layer.channels_in)
        settle = self._merges(layer)
        sums = self._partials_back[layer.conv]
        sums_skip = self._partials_back[block.second.conv] if block and shortcut else sums
        programs = cut(rows, tile.span)
        self._launch(
            kernels.convolve_back,
            (programs, self.members, cut(wide_out, self.widest)), tile.warps,
            u=u, z=z, weight=self._back[layer.conv], u_skip=u_skip,
            side=kept and kept.z_shortcut,
            side_weight=shortcut and self._back[shortcut.conv],
            bits=kept and kept.positive, out=out, partial_in=sums.buffer,
            partial_skip=sums_skip.buffer, gradient=self.gradient, offset=layer.offset,
            offset_side=0 if shortcut is None else shortcut.offset,
            values_width=self.values.shape[1], rows=rows, SPAN=tile.span,
            PROGRAMS_IN=sums.programs, PROGRAMS_SKIP=sums_skip.programs,
            SKIP=skip.value, BITS=block is not None, SETTLE=settle,
            SHARED_BELOW=len(below.z) == 1, SHARED_WEIGHT=len(self._forth[layer.conv]) == 1,
            SIZE=layer.size, STRIDE=layer.stride, CHANNELS_IN=layer.channels, PADDED_IN=wide,
            PACK=self._pack(layer), BLOCK_M=tile.rows // self._pack(layer),
            BLOCK_C=self._block(layer),
            LINES=lines(max(sums.programs, sums_skip.programs), self._block(layer)),
            PRECISION=PRECISION, **self._below(below, programs),
        )  # fmt: skip
        self._settle_wide(below)

    def classify(
        self, features: Tensor, labels: Tensor, smoothing: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        shape, classes = features.shape[:2], self.plan.classes
        losses = self._buffer("losses", tuple(shape), self.exact)
        correct = self._buffer("correct", tuple(shape), torch.int64)
        dlogits = self._buffer("dlogits", (*shape, classes), self.exact)
        dfeatures = self._buffer("dfeatures", tuple(features.shape), self.exact)
        weight, bias, labels = self.head_weight, self.head_bias, labels.contiguous()
        self._launch(
            ends.classify, (shape[1], self.members), 4,
            features=features, weight=weight, bias=bias, labels=labels, losses=losses,
            correct=correct, dlogits=dlogits, dfeatures=dfeatures, smoothing=float(smoothing),
            weight_step=_step(weight), bias_step=_step(bias), label_step=_step(labels),
            FEATURES=self.plan.features, CLASSES=classes, BLOCK=self.widest, PADDED=padded(classes),
        )  # fmt: skip
        if self.head:
            self.dweight.copy_(dlogits.mT @ features)
            self.dbias.copy_(dlogits.sum(1))
        return losses.mean(-1), correct.sum(-1), dfeatures

    def optimise(
        self,
        velocity: Tensor,
        rate: Tensor,
        decay: Tensor,
        factor: Tensor,
        momentum: float,
        nesterov: bool,
    ) -> None:
        count = self.values.numel()
        self._launch(
            ends.optimise, (cut(count, 1024),), 4,
            values=self.values, gradient=self.gradient, velocity=velocity, rate=rate, decay=decay,
            factor=factor, momentum=float(momentum), count=count, NESTEROV=nesterov, BLOCK=1024,
        )  # fmt: skip


def _skipped(join: Join) -> Tensor | None:
    return join.skip if join.shortcut is None else join.z_shortcut


def _step(x: Tensor) -> int:
    """From one member to the next."""
    return 0 if len(x) == 1 else x.stride(0)
