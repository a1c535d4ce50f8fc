# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"
"""The convolutions of the fused program as Triton kernels, one forward and one backward; the
mathematics is program.py's, triton_program.py launches them.

An activation of one member is a matrix: a row PACK pixels side by side, a column a channel of one
of them. A program makes SPAN successive rows, BLOCK_M at a time, and BLOCK_N channels of them: a
sum over steps, each a tl.dot of input pixels, made of their parts on the way in, with weights. With
PACK = 1 a step is a tap, and there are nine. With PACK = 2 it is a row of taps: the 4 pixels that
2 neighbours need are made once, 6 where nine taps would make 9, and 4/3 of the products are not 0.
The grid is (programs, members, blocks of channels). Tensors that the members share have one copy
(SHARED_). Weights come from tiles.py: (1 or M, steps, input columns, output columns).
"""

import triton
import triton.language as tl

from gammabeta.fused.partials import (
    PLACES,
    SCALE,
    SHIFT,
    fetch,
    fold,
    fold_statistics,
    keep_partial,
    normals,
    scales,
    slopes,
    spread,
)
from gammabeta.fused.windows import (
    CONVOLUTION,
    IDENTITY,
    NOTHING,
    columns,
    count_steps,
    down,
    load_step,
    own,
    owns,
    pixels,
    place_of,
    right,
)
from gammabeta.passes.kernels import add_tile, pack, unpack


@triton.jit(do_not_specialize=PLACES)
def convolve(
    z_in, skip, weight, side_weight, a, bits, z, side,
    partial_in, partial_side_in, partial, partial_side,
    state, values, offset, offset_side, width, values_width, rows, span_in,
    NORM: tl.constexpr, SKIP: tl.constexpr, KEEP_A: tl.constexpr, KEEP_BITS: tl.constexpr,
    SIDE: tl.constexpr, SETTLE: tl.constexpr, MEASURE: tl.constexpr, STREAM: tl.constexpr,
    SHARED_IN: tl.constexpr, SHARED_WEIGHT: tl.constexpr, PACK: tl.constexpr,
    SIZE: tl.constexpr, STRIDE: tl.constexpr, CHANNELS_IN: tl.constexpr, CHANNELS: tl.constexpr,
    PADDED_IN: tl.constexpr, PADDED: tl.constexpr, EPS: tl.constexpr, MOMENTUM: tl.constexpr,
    SPAN: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_N: tl.constexpr,
    PROGRAMS_IN: tl.constexpr, LINES: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """z = a 3x3 convolution of a and, with SIDE, side = a 1x1 convolution of a; their partials.
    a = relu(s z_in + t + what is skipped), made anew for each step; without NORM, the images z_in.

    SKIP: NOTHING, IDENTITY (skip) or CONVOLUTION (s skip + t). STREAM: the type of a itself.
    KEEP_A, KEEP_BITS: a, and [a > 0] eight to a byte, are written, each pixel once. rows, SPAN:
    in pixels. SIDE, a stride and blocks of input channels need PACK = 1.
    """
    program, member, split = tl.program_id(0), tl.program_id(1).to(tl.int64), tl.program_id(2)
    WINDOW: tl.constexpr = PACK + 2 if PACK > 1 else 1
    STEPS: tl.constexpr = count_steps(0, 1, PACK)
    COLUMNS: tl.constexpr = PACK * PADDED
    lead_in = member * (0 if SHARED_IN else 1)
    set_ = member * (0 if SHARED_WEIGHT else 1)
    rows_in = rows * (STRIDE * STRIDE)
    z_in += lead_in * rows_in * CHANNELS_IN
    weight += set_ * STEPS * WINDOW * PADDED_IN * COLUMNS
    z += member * rows * CHANNELS
    if SKIP != NOTHING:
        skip += member * rows_in * CHANNELS_IN
    if KEEP_A:
        a += member * rows_in * CHANNELS_IN
    if KEEP_BITS:
        bits += member * rows_in * (PADDED_IN // 8)
    if SIDE:
        side_weight += set_ * PADDED_IN * PADDED
        side += member * rows * CHANNELS
    state += member * 6 * width
    values += member * values_width
    k = tl.arange(0, WINDOW * BLOCK_C)
    ahead = k[None, :] // BLOCK_C if WINDOW > 1 else tl.zeros([1, 1], tl.int32)
    column = split * BLOCK_N + tl.arange(0, PACK * BLOCK_N)
    out_channel, out_place = columns(split, PACK, BLOCK_N, CHANNELS)
    record = (program == 0) & (split == 0)
    if SETTLE:
        of_block = tl.arange(0, BLOCK_C)
        scale, shift = scales(
            state, values, offset, width, partial_in, lead_in, rows_in, span_in, of_block,
            record, True, CHANNELS_IN, PROGRAMS_IN, PADDED_IN, BLOCK_C, LINES, EPS, MOMENTUM,
        )  # fmt: skip
        scale, shift = spread(scale, WINDOW, BLOCK_C), spread(shift, WINDOW, BLOCK_C)
        if SKIP == CONVOLUTION:
            side_scale, side_shift = scales(
                state, values, offset_side, width, partial_side_in, member, rows_in, span_in,
                of_block, record, True, CHANNELS_IN, PROGRAMS_IN, PADDED_IN, BLOCK_C, LINES, EPS,
                MOMENTUM,
            )  # fmt: skip
            side_scale = spread(side_scale, WINDOW, BLOCK_C)
            side_shift = spread(side_shift, WINDOW, BLOCK_C)
    count, side_count = 0.0, 0.0
    mean, m2 = tl.zeros([PACK * BLOCK_N], tl.float32), tl.zeros([PACK * BLOCK_N], tl.float32)
    side_mean, side_m2 = tl.zeros([BLOCK_N], tl.float32), tl.zeros([BLOCK_N], tl.float32)
    for start in range(0, SPAN // PACK, BLOCK_M):
        row = program * (SPAN // PACK) + start + tl.arange(0, BLOCK_M)
        valid = row < rows // PACK
        image, y = row // (SIZE * SIZE // PACK), row // (SIZE // PACK) % SIZE * STRIDE
        x = row % (SIZE // PACK) * (PACK * STRIDE)
        sum_ = tl.zeros([BLOCK_M, PACK * BLOCK_N], tl.float32)
        side_sum = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
        for block in range(0, PADDED_IN, BLOCK_C):
            channel = block + k % BLOCK_C
            if NORM and not SETTLE:
                scale, shift = scales(
                    state, values, offset, width, None, 0, 0, 0, channel,
                    False, False, CHANNELS_IN, 1, PADDED_IN, BLOCK_C, LINES, EPS, MOMENTUM,
                )  # fmt: skip
                if SKIP == CONVOLUTION:
                    side_scale, side_shift = scales(
                        state, values, offset_side, width, None, 0, 0, 0, channel,
                        False, False, CHANNELS_IN, 1, PADDED_IN, BLOCK_C, LINES, EPS, MOMENTUM,
                    )  # fmt: skip
            # The loads of a step come before the product of the step before: nothing moves them up.
            pixel, inside = pixels(
                image, y + down(0, 0, 1, PACK), x + right(0, 0, 1, PACK), ahead, valid,
                SIZE * STRIDE,
            )  # fmt: skip
            value, beside, part = load_step(
                z_in, skip, weight, pixel, inside, channel, block + k, column,
                SKIP != NOTHING, CHANNELS_IN, COLUMNS,
            )  # fmt: skip
            for step in tl.static_range(STEPS):
                if step + 1 < STEPS:
                    next_pixel, next_inside = pixels(
                        image, y + down(0, step + 1, 1, PACK), x + right(0, step + 1, 1, PACK),
                        ahead, valid, SIZE * STRIDE,
                    )  # fmt: skip
                    next_value, next_beside, next_part = load_step(
                        z_in, skip, weight, next_pixel, next_inside, channel,
                        (step + 1) * WINDOW * PADDED_IN + block + k, column,
                        SKIP != NOTHING, CHANNELS_IN, COLUMNS,
                    )  # fmt: skip
                made = value
                if NORM:
                    total = value.to(tl.float32) * scale[None, :] + shift[None, :]
                    if SKIP == IDENTITY:
                        total += beside
                    if SKIP == CONVOLUTION:
                        total += beside * side_scale[None, :] + side_shift[None, :]
                    # ReLU, but what is no number stays none; and padding is 0, not relu(t).
                    made = tl.where(inside & ~(total < 0.0), total, 0.0).to(STREAM)
                    if owns(step, STRIDE, PACK):
                        if KEEP_A:
                            mine = inside & own(ahead, PACK) & (split == 0)
                            to = pixel * CHANNELS_IN + channel[None, :]
                            tl.store(a + to, made, mask=mine & (channel < CHANNELS_IN)[None, :])
                        if KEEP_BITS:
                            byte = tl.arange(0, WINDOW * BLOCK_C // 8)[None, :]
                            over = byte // (BLOCK_C // 8)
                            pixel, inside = pixels(
                                image, y + down(0, step, 1, PACK), x + right(0, step, 1, PACK),
                                over, valid, SIZE * STRIDE,
                            )  # fmt: skip
                            to = pixel * (PADDED_IN // 8) + block // 8 + byte % (BLOCK_C // 8)
                            packed = pack(made > 0.0, BLOCK_M, WINDOW * BLOCK_C)
                            mine = inside & own(over, PACK) & (split == 0)
                            tl.store(bits + to, packed, mask=mine)
                made = made.to(weight.dtype.element_ty)
                sum_ = tl.dot(made, part, sum_, input_precision=PRECISION)
                if SIDE and step == 4:  # the middle tap
                    at = channel[:, None] * PADDED + column[None, :]
                    part = tl.load(side_weight + at)
                    side_sum = tl.dot(made, part, side_sum, input_precision=PRECISION)
                if step + 1 < STEPS:
                    pixel, inside = next_pixel, next_inside
                    value, beside, part = next_value, next_beside, next_part
        to = row[:, None] * (PACK * CHANNELS) + out_place[None, :]
        shown = valid[:, None] & (out_channel < CHANNELS)[None, :]
        stored = sum_.to(z.dtype.element_ty)
        tl.store(z + to, stored, mask=shown)
        if MEASURE:
            count, mean, m2 = add_tile(count, mean, m2, stored.to(tl.float32), valid)
        if SIDE:
            stored = side_sum.to(side.dtype.element_ty)
            tl.store(side + to, stored, mask=shown)
            if MEASURE:
                side_count, side_mean, side_m2 = add_tile(
                    side_count, side_mean, side_m2, stored.to(tl.float32), valid
                )
    if MEASURE:
        channel = split * BLOCK_N + tl.arange(0, BLOCK_N)
        mean, m2 = fold_statistics(count, mean, m2, PACK, BLOCK_N)
        keep_partial(partial, 0, 2, member, program, channel, mean, PADDED)
        keep_partial(partial, 1, 2, member, program, channel, m2, PADDED)
        if SIDE:
            keep_partial(partial_side, 0, 2, member, program, channel, side_mean, PADDED)
            keep_partial(partial_side, 1, 2, member, program, channel, side_m2, PADDED)


@triton.jit(do_not_specialize=PLACES)
def convolve_back(
    u, z, weight, u_skip, side, side_weight, bits, below, side_below, out,
    partial_in, partial_skip, partial,
    state, gradient, offset, offset_side, offset_below, offset_side_below, width, values_width,
    rows,
    SKIP: tl.constexpr, BITS: tl.constexpr, SIDE_BELOW: tl.constexpr, SETTLE: tl.constexpr,
    SHARED_BELOW: tl.constexpr, SHARED_WEIGHT: tl.constexpr, PACK: tl.constexpr,
    SIZE: tl.constexpr, STRIDE: tl.constexpr, CHANNELS_IN: tl.constexpr, CHANNELS: tl.constexpr,
    PADDED_IN: tl.constexpr, PADDED: tl.constexpr,
    SPAN: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_N: tl.constexpr,
    PROGRAMS_IN: tl.constexpr, PROGRAMS_SKIP: tl.constexpr, LINES: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """out = (the input gradient of a 3x3 convolution + that of the skip) [mask], and its partials:
    the sums of out, out x_hat(below) and, with SIDE_BELOW, out x_hat(side_below).

    u is the gradient at the output of the BatchNorm behind the convolution, z what that BatchNorm
    was given: pixels of SIZE x SIZE with CHANNELS_IN. out, below: STRIDE times as high and wide,
    with CHANNELS. SKIP: NOTHING, IDENTITY (u_skip) or CONVOLUTION (from u_skip and side, through a
    1x1 convolution). BITS: the mask is kept in bits; else it is [s below + t > 0]. partial_in has
    the sums of u and u x_hat(z), partial_skip those of u_skip and, as part 2, u_skip x_hat(side).
    """
    program, member, split = tl.program_id(0), tl.program_id(1).to(tl.int64), tl.program_id(2)
    PARTS: tl.constexpr = 3
    WINDOW: tl.constexpr = PACK + 2 if PACK > 1 else 1
    COLUMNS: tl.constexpr = PACK * PADDED
    lead_below = member * (0 if SHARED_BELOW else 1)
    set_ = member * (0 if SHARED_WEIGHT else 1)
    rows_below = rows * (STRIDE * STRIDE)
    u += member * rows * CHANNELS_IN
    z += member * rows * CHANNELS_IN
    weight += set_ * count_steps(0, 1, PACK) * WINDOW * PADDED_IN * COLUMNS
    below += lead_below * rows_below * CHANNELS
    out += member * rows_below * CHANNELS
    if SIDE_BELOW:
        side_below += member * rows_below * CHANNELS
    if SKIP == IDENTITY:
        u_skip += member * rows_below * CHANNELS
    if SKIP == CONVOLUTION:
        u_skip += member * rows * CHANNELS_IN
        side += member * rows * CHANNELS_IN
        side_weight += set_ * PADDED_IN * PADDED
    if BITS:
        bits += member * rows_below * (PADDED // 8) + split * (BLOCK_N // 8)
    state += member * 6 * width
    gradient += member * values_width
    k = tl.arange(0, WINDOW * BLOCK_C)
    ahead = k[None, :] // BLOCK_C if WINDOW > 1 else tl.zeros([1, 1], tl.int32)
    column = split * BLOCK_N + tl.arange(0, PACK * BLOCK_N)
    out_channel, out_place = columns(split, PACK, BLOCK_N, CHANNELS)
    record = (program == 0) & (split == 0)
    if SETTLE:
        of_block = tl.arange(0, BLOCK_C)
        slope_u, slope_z, level = slopes(
            state, gradient, offset, width, partial_in, 1, PARTS, member, rows, of_block,
            record, True, CHANNELS_IN, PROGRAMS_IN, PADDED_IN, BLOCK_C, LINES,
        )  # fmt: skip
        slope_u, slope_z = spread(slope_u, WINDOW, BLOCK_C), spread(slope_z, WINDOW, BLOCK_C)
        level = spread(level, WINDOW, BLOCK_C)
        if SKIP == CONVOLUTION:
            side_u, side_z, side_level = slopes(
                state, gradient, offset_side, width, partial_skip, 2, PARTS, member, rows,
                of_block, record, True, CHANNELS_IN, PROGRAMS_SKIP, PADDED_IN, BLOCK_C, LINES,
            )  # fmt: skip
    mean, inv = normals(state, offset_below, width, out_channel, CHANNELS)
    if SIDE_BELOW:
        side_mean, side_inv = normals(state, offset_side_below, width, out_channel, CHANNELS)
    if not BITS:
        scale = fetch(state + SCALE * width + offset_below, out_channel, CHANNELS)
        shift = fetch(state + SHIFT * width + offset_below, out_channel, CHANNELS)
    total = tl.zeros([PACK * BLOCK_N], tl.float32)
    total_below = tl.zeros([PACK * BLOCK_N], tl.float32)
    total_side = tl.zeros([PACK * BLOCK_N], tl.float32)
    for start in range(0, SPAN // PACK, BLOCK_M):
        row = program * (SPAN // PACK) + start + tl.arange(0, BLOCK_M)
        valid = row < rows // PACK
        image, y = row // (SIZE * SIZE // PACK), row // (SIZE // PACK) % SIZE
        x = row % (SIZE // PACK) * PACK
        for phase in tl.static_range(STRIDE * STRIDE):
            sum_ = tl.zeros([BLOCK_M, PACK * BLOCK_N], tl.float32)
            for block in range(0, PADDED_IN, BLOCK_C):
                channel = block + k % BLOCK_C
                if not SETTLE:
                    slope_u, slope_z, level = slopes(
                        state, gradient, offset, width, None, 1, PARTS, 0, rows, channel,
                        False, False, CHANNELS_IN, 1, PADDED_IN, BLOCK_C, LINES,
                    )  # fmt: skip
                from_, inside = pixels(
                    image, y + down(phase, 0, STRIDE, PACK), x + right(phase, 0, STRIDE, PACK),
                    ahead, valid, SIZE,
                )  # fmt: skip
                value, raw, part = load_step(
                    u, z, weight, from_, inside, channel,
                    place_of(phase, 0, STRIDE, PACK) * WINDOW * PADDED_IN + block + k, column,
                    True, CHANNELS_IN, COLUMNS,
                )  # fmt: skip
                for step in tl.static_range(count_steps(phase, STRIDE, PACK)):
                    if step + 1 < count_steps(phase, STRIDE, PACK):
                        next_from, next_inside = pixels(
                            image, y + down(phase, step + 1, STRIDE, PACK),
                            x + right(phase, step + 1, STRIDE, PACK), ahead, valid, SIZE,
                        )  # fmt: skip
                        place = place_of(phase, step + 1, STRIDE, PACK)
                        next_value, next_raw, next_part = load_step(
                            u, z, weight, next_from, next_inside, channel,
                            place * WINDOW * PADDED_IN + block + k, column,
                            True, CHANNELS_IN, COLUMNS,
                        )  # fmt: skip
                    dz = value * slope_u[None, :] + (raw * slope_z[None, :] + level[None, :])
                    dz = tl.where(inside, dz, 0.0).to(weight.dtype.element_ty)
                    sum_ = tl.dot(dz, part, sum_, input_precision=PRECISION)
                    if step + 1 < count_steps(phase, STRIDE, PACK):
                        inside = next_inside
                        value, raw, part = next_value, next_raw, next_part
                if SKIP == CONVOLUTION and phase == 0:
                    if not SETTLE:
                        side_u, side_z, side_level = slopes(
                            state, gradient, offset_side, width, None, 2, PARTS, 0, rows,
                            channel, False, False, CHANNELS_IN, 1, PADDED_IN, BLOCK_C, LINES,
                        )  # fmt: skip
                    value, raw, part = load_step(
                        u_skip, side, side_weight, row[:, None], valid[:, None], channel, channel,
                        column, True, CHANNELS_IN, PADDED,
                    )  # fmt: skip
                    dz = value * side_u[None, :] + (raw * side_z[None, :] + side_level[None, :])
                    dz = tl.where(valid[:, None], dz, 0.0).to(weight.dtype.element_ty)
                    sum_ = tl.dot(dz, part, sum_, input_precision=PRECISION)
            pixel, _ = pixels(
                image, y * STRIDE + phase // STRIDE, x * STRIDE + phase % STRIDE,
                tl.zeros([1, 1], tl.int32), valid, SIZE * STRIDE,
            )  # fmt: skip
            to = pixel * CHANNELS + out_place[None, :]
            shown = valid[:, None] & (out_channel < CHANNELS)[None, :]
            if SKIP == IDENTITY:
                sum_ += tl.load(u_skip + to, mask=shown, other=0.0)
            z_below = tl.load(below + to, mask=shown, other=0.0).to(tl.float32)
            if BITS:
                byte = pixel * (PADDED // 8) + tl.arange(0, PACK * BLOCK_N // 8)[None, :]
                packed = tl.load(bits + byte, mask=valid[:, None], other=0)
                open_ = unpack(packed, BLOCK_M, PACK * BLOCK_N)
            else:
                open_ = z_below * scale[None, :] + shift[None, :] > 0.0
            stored = tl.where(open_ & shown, sum_, 0.0).to(out.dtype.element_ty)
            tl.store(out + to, stored, mask=shown)
            kept = stored.to(tl.float32)
            total += tl.sum(kept, 0)
            total_below += tl.sum(kept * ((z_below - mean[None, :]) * inv[None, :]), 0)
            if SIDE_BELOW:
                z_below = tl.load(side_below + to, mask=shown, other=0.0).to(tl.float32)
                hat = (z_below - side_mean[None, :]) * side_inv[None, :]
                total_side += tl.sum(kept * hat, 0)
    channel = split * BLOCK_N + tl.arange(0, BLOCK_N)
    total, total_below = fold(total, PACK, BLOCK_N), fold(total_below, PACK, BLOCK_N)
    keep_partial(partial, 0, PARTS, member, program, channel, total, PADDED)
    keep_partial(partial, 1, PARTS, member, program, channel, total_below, PADDED)
    if SIDE_BELOW:
        total_side = fold(total_side, PACK, BLOCK_N)
        keep_partial(partial, 2, PARTS, member, program, channel, total_side, PADDED)
