"""What the passes of the Triton program work on: its buffers, how its kernels are cut, and who adds
up their partials."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import triton.language as tl
from torch import Tensor

from gammabeta.fused import ends, partials, windows
from gammabeta.fused.plan import Layer, Plan
from gammabeta.fused.program import Join, Program
from gammabeta.fused.tiles import MERGES, TILES, WIDEST, Tile, fit, lay_out, lines, padded

TYPES = {torch.float32: tl.float32, torch.float16: tl.float16, torch.bfloat16: tl.bfloat16}


@dataclass(frozen=True)
class Partials:
    """buffer: (1 or M, parts, programs, padded channels), of programs with `span` rows each."""

    buffer: Tensor
    span: int

    @property
    def programs(self) -> int:
        return self.buffer.shape[2]


class Workspace(Program):
    """The program without its passes. The flat buffers are views: write into them, never replace
    them. All else that kernels write is allocated at the first batch of a size, and kept."""

    tiles = TILES
    merges = MERGES
    widest = WIDEST

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
        super().__init__(
            plan, weights, head_weight, head_bias,
            members=members, head=head, dtype=dtype, stream=stream,
        )  # fmt: skip
        if {dtype, self.stream} - TYPES.keys():
            raise ValueError("the Triton program knows fp32, fp16 and bf16")
        shape = (members, partials.ROWS_OF_STATE, plan.channels)
        self.state = torch.zeros(shape, dtype=self.exact, device=self.device)
        self.mean, self.inv, self.scale, self.shift, self.running_mean, self.running_var = (
            self.state.unbind(1)
        )
        self.running_var += 1
        self._forth, self._back = (
            {
                layer.conv: lay_out(self.weights[layer.conv], back, self._pack(layer))
                for layer in plan.layers
            }
            for back in (False, True)
        )
        # Alternate blocks write to alternate buffers: each still reads what the one before wrote.
        self._turn = {block.first.conv: index % 2 for index, block in enumerate(plan.blocks)}
        self._buffers: dict[tuple[str, tuple[int, ...], torch.dtype], Tensor] = {}
        self._partials: dict[str, Partials] = {}
        self._partials_back: dict[str, Partials] = {}

    def _tile(self, layer: Layer, rows: int = 0) -> Tile:
        return fit(self.tiles[min(padded(layer.channels), max(self.tiles))], rows)

    def _block(self, layer: Layer) -> int:
        """How many of its channels a program holds at once."""
        return min(padded(layer.channels), self.widest)

    def _merges(self, layer: Layer) -> bool:
        """Whether the kernel that needs a layer's totals merges the partials itself."""
        return padded(layer.channels) <= min(self.merges, self.widest)

    def _pack(self, layer: Layer) -> int:
        whole = max(padded(layer.channels_in), padded(layer.channels)) <= self.widest
        return self._tile(layer).pack if whole and layer.stride == 1 else 1

    def _output(self, layer: Layer, role: str, lead: int, count: int) -> Tensor:
        """For a raw output: kept for the backward pass, or one for all layers in evaluation."""
        shape = (lead, count, layer.size, layer.size, layer.channels)
        return self._buffer(layer.conv if self.training else role, shape, self.dtype)

    def _bits(self, join: Join) -> Tensor | None:
        """For [a > 0] of what the join makes, eight channels a byte; nobody asks in evaluation."""
        if not self.training:
            return None
        rows = join.z.shape[1] * join.layer.size**2
        shape = (self.members, rows, padded(join.layer.channels) // 8)
        return self._buffer(f"bits behind {join.layer.conv}", shape, torch.uint8)

    def _buffer(self, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        key = (name, shape, dtype)
        if key not in self._buffers:
            self._buffers[key] = torch.empty(shape, dtype=dtype, device=self.device)
        return self._buffers[key]

    def _launch(self, kernel: Any, grid: tuple[int, ...], warps: int, **arguments: Any) -> None:
        # One stage: a kernel's loads go through arithmetic, which no pipeline helps. Not measured.
        kernel[grid](**arguments, num_warps=warps, num_stages=1)

    def _scales(self, layer: Layer, join: Join | None) -> dict[str, Any]:
        """Where a kernel finds s and t of a join's BatchNorms, or what to make them of."""
        skip, sums, sums_side, offset_side = windows.NOTHING, None, None, 0
        if join is not None:
            layer = join.layer
            settle = self.training and self._merges(layer)
            sums = self._partials[layer.conv] if settle else None
            if join.skip is not None:
                skip = windows.IDENTITY
            if join.shortcut is not None:
                skip, offset_side = windows.CONVOLUTION, join.shortcut.offset
                sums_side = self._partials[join.shortcut.conv] if settle else None
        programs = 1 if sums is None else sums.programs
        return {
            "partial_in": sums and sums.buffer,
            "partial_side_in": sums_side and sums_side.buffer,
            "span_in": 1 if sums is None else sums.span,
            "PROGRAMS_IN": programs,
            "SETTLE": sums is not None,
            "SKIP": skip.value,
            "offset_side": offset_side,
            "LINES": lines(programs, self._block(layer)),
            **self._flat(layer),
            "EPS": layer.eps,
            "MOMENTUM": layer.momentum,
        }

    def _flat(self, layer: Layer) -> dict[str, Any]:
        return {
            "state": self.state,
            "values": self.values,
            "offset": layer.offset,
            "width": self.plan.channels,
            "values_width": self.values.shape[1],
        }

    def _below(self, join: Join, programs: int) -> dict[str, Any]:
        """Where a kernel that writes the gradient behind a join's BatchNorms finds what their sums
        need, and leaves its partials."""
        layer = join.layer
        wide = padded(layer.channels)
        partial = self._buffer(
            f"sums of {layer.conv} back", (self.members, 3, programs, wide), self.exact
        )
        self._partials_back[layer.conv] = Partials(partial, 0)
        return {
            "below": join.z,
            "side_below": join.z_shortcut,
            "partial": partial,
            "state": self.state,
            "offset_below": layer.offset,
            "offset_side_below": join.shortcut.offset if join.shortcut else 0,
            "width": self.plan.channels,
            "SIDE_BELOW": join.shortcut is not None,
            "CHANNELS": layer.channels,
            "PADDED": wide,
            "BLOCK_N": self._block(layer),
        }

    def _settle(self, layer: Layer, rows: int) -> None:
        """Record the statistics of a layer that is too wide for the kernel behind to make them."""
        sums = self._partials[layer.conv]
        wide, block = padded(layer.channels), self._block(layer)
        self._launch(
            ends.settle, (wide // block, self.members), 4,
            partial=sums.buffer, rows=rows, span=sums.span, PROGRAMS=sums.programs,
            SHARED=len(sums.buffer) == 1, CHANNELS=layer.channels, PADDED=wide, BLOCK=block,
            LINES=lines(sums.programs, block), EPS=layer.eps, MOMENTUM=layer.momentum,
            **self._flat(layer),
        )  # fmt: skip

    def _settle_wide(self, join: Join) -> None:
        if not self._merges(join.layer):
            sums = self._partials_back[join.layer.conv]
            self._settle_back(join.layer, sums, 1)
            if join.shortcut is not None:
                self._settle_back(join.shortcut, sums, 2)

    def _settle_back(self, layer: Layer, sums: Partials, part: int) -> None:
        """Record dgamma and dbeta, from parts `part` and 0."""
        wide, block = padded(layer.channels), self._block(layer)
        self._launch(
            ends.settle_back, (wide // block, self.members), 4,
            partial=sums.buffer, state=self.state, gradient=self.gradient, offset=layer.offset,
            width=self.plan.channels, values_width=self.values.shape[1], PROGRAMS=sums.programs,
            PART=part, CHANNELS=layer.channels, PADDED=wide, BLOCK=block,
            LINES=lines(sums.programs, block),
        )  # fmt: skip
