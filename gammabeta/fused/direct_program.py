"""The fused program on a CPU, two passes a layer: convolutions of its own (direct.cpp), which
normalise what they read and sum what they write."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from gammabeta.fused import direct
from gammabeta.fused.native_program import Member, NativeProgram, Stem, row_of
from gammabeta.fused.plan import Block, Layer, Plan
from gammabeta.fused.program import Join, Kept


class DirectProgram(NativeProgram):
    """See Program; for what direct.takes."""

    def __init__(self, plan: Plan, weights: Sequence[Tensor], *rest: Any, **options: Any) -> None:
        super().__init__(plan, weights, *rest, **options)
        self.packed = {
            back: {
                layer.conv: torch.stack(
                    [direct.pack(layer, one, self.dtype, back) for one in self.weights[layer.conv]]
                )
                for layer in plan.layers
            }
            for back in (False, True)
        }
        rows = [
            {name: getattr(self, name)[row] for name in direct.BUFFERS}
            for row in range(self.members)
        ]
        self.norms = [
            {layer.conv: direct.norm(layer, row) for layer in plan.layers} for row in rows
        ]

    def member(self, row: int, stem: Stem | None) -> Member:
        return DirectMember(self, row, stem)


class DirectMember(Member):
    def __init__(self, whole: DirectProgram, row: int, stem: Stem | None) -> None:
        super().__init__(whole, row, stem)
        self.forth, self.back = (
            {conv: row_of(packed, row)[0] for conv, packed in whole.packed[back].items()}
            for back in (False, True)
        )
        self.norms = whole.norms[row]

    def first(self, images: Tensor) -> Tensor:
        if self.stem is not None:
            return super().first(images)
        return self._forward(self.plan.stem, images.to(self.dtype).contiguous())[0]

    def enter(self, block: Block, join: Join) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        a = torch.empty_like(join.z) if block.shortcut is None else None  # it is the skip then
        bits = torch.empty(join.z.numel() // 8, dtype=torch.uint8) if self.training else None
        z1, side = self._forward(block.first, join.z, join, block.shortcut, a=a, bits=bits)
        return z1 if a is None else a, z1 if bits is None else bits, z1, side

    def middle(self, block: Block, z1: Tensor) -> Tensor:
        return self._forward(block.second, z1, Join(block.first, z1))[0]

    def middle_backward(self, block: Block, u: Tensor, kept: Kept) -> Tensor:
        v = torch.empty_like(kept.z1)
        direct.backward(
            block.second, self._gradient(block.second, u, kept.z2),
            z=kept.z1, norm=self.norms[block.first.conv], out=v,
        )  # fmt: skip
        return v

    def enter_backward(self, block: Block, v: Tensor, u: Tensor, kept: Kept) -> Tensor:
        join = kept.join
        before = torch.empty_like(join.z)
        given: dict[str, direct.Given] = {
            "bits": kept.positive, "z": join.z, "norm": self.norms[join.layer.conv], "out": before,
        }  # fmt: skip
        if join.shortcut is not None:
            given |= {"z2": join.z_shortcut, "norm2": self.norms[join.shortcut.conv]}
        side = None
        if block.shortcut is None:
            given |= {"more": u}
        else:
            assert kept.z_shortcut is not None
            given |= {"side_taps": block.shortcut.kernel}
            side = self._gradient(block.shortcut, u, kept.z_shortcut)
        direct.backward(block.first, self._gradient(block.first, v, kept.z1), side, **given)
        return before

    def _forward(
        self,
        layer: Layer,
        source: Tensor,
        join: Join | None = None,
        shortcut: Layer | None = None,
        **made: Tensor | None,
    ) -> tuple[Tensor, Tensor | None]:
        """The raw output of a layer, and of the shortcut beside it; their statistics."""
        shape = (*source.shape[:2], layer.size, layer.size, layer.channels)
        z = source.new_empty(shape)
        given: dict[str, direct.Given] = {
            "input": source,
            "weight": self.forth[layer.conv],
            "z": z,
            **made,
        }
        if self.training:
            given |= {"own": self.norms[layer.conv]}
        if join is not None:
            given |= {"norm": self.norms[join.layer.conv], "skip": join.skip}
            if join.shortcut is not None:
                given |= {"skip": join.z_shortcut, "skip_norm": self.norms[join.shortcut.conv]}
        side = None
        if shortcut is not None:
            side = source.new_empty(shape)
            given |= {
                "side_taps": shortcut.kernel,
                "side_weight": self.forth[shortcut.conv],
                "side": side,
            }
            if self.training:
                given |= {"side_own": self.norms[shortcut.conv]}
        direct.forward(layer, **given)
        return z, side

    def _gradient(self, layer: Layer, u: Tensor, z: Tensor) -> direct.Gradient:
        return {"u": u, "z": z, "weight": self.back[layer.conv], "norm": self.norms[layer.conv]}
