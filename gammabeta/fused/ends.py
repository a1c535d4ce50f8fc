# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"
"""The Triton kernels around the convolutions: pooling, the classifier's loss, both ways back from
it, totals for layers too wide to merge them themselves, and the optimiser. See kernels.py."""

import triton
import triton.language as tl

from gammabeta.fused.partials import PLACES, keep_partial, normals, scales, slopes
from gammabeta.fused.windows import CONVOLUTION, IDENTITY
from gammabeta.passes.kernels import pack, unpack


@triton.jit(do_not_specialize=PLACES)
def settle(
    partial, state, values, offset, width, values_width, rows, span,
    SHARED: tl.constexpr, CHANNELS: tl.constexpr, PROGRAMS: tl.constexpr, PADDED: tl.constexpr,
    BLOCK: tl.constexpr, LINES: tl.constexpr, EPS: tl.constexpr, MOMENTUM: tl.constexpr,
):  # fmt: skip
    """Record a BatchNorm's statistics. Grid: (blocks of columns, members)."""
    member = tl.program_id(1).to(tl.int64)
    column = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    scales(
        state + member * 6 * width, values + member * values_width, offset, width, partial,
        member * (0 if SHARED else 1), rows, span, column, True,
        True, CHANNELS, PROGRAMS, PADDED, BLOCK, LINES, EPS, MOMENTUM,
    )  # fmt: skip


@triton.jit(do_not_specialize=PLACES)
def settle_back(
    partial, state, gradient, offset, width, values_width,
    PART: tl.constexpr, CHANNELS: tl.constexpr, PROGRAMS: tl.constexpr, PADDED: tl.constexpr,
    BLOCK: tl.constexpr, LINES: tl.constexpr,
):  # fmt: skip
    """Record a BatchNorm's dgamma and dbeta. Grid: (blocks of columns, members)."""
    member = tl.program_id(1).to(tl.int64)
    column = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    slopes(
        state + member * 6 * width, gradient + member * values_width, offset, width, partial, PART,
        3, member, 1, column, True, True, CHANNELS, PROGRAMS, PADDED, BLOCK, LINES,
    )  # fmt: skip


@triton.jit(do_not_specialize=PLACES)
def leave(
    z, skip, features, bits, partial_in, partial_side_in,
    state, values, offset, offset_side, width, values_width, rows, span_in,
    SKIP: tl.constexpr, SETTLE: tl.constexpr, KEEP_BITS: tl.constexpr, STREAM: tl.constexpr,
    PIXELS: tl.constexpr, ROWS: tl.constexpr, CHANNELS: tl.constexpr, PADDED: tl.constexpr,
    PROGRAMS_IN: tl.constexpr, BLOCK: tl.constexpr, LINES: tl.constexpr, EPS: tl.constexpr,
    MOMENTUM: tl.constexpr,
):  # fmt: skip
    """The mean over an image's PIXELS of a = relu(s z + t + skip). ROWS: PIXELS, or the next power
    of two. Grid: (images, members, blocks of columns)."""
    image, member, split = tl.program_id(0), tl.program_id(1).to(tl.int64), tl.program_id(2)
    images = tl.num_programs(0)
    state += member * 6 * width
    values += member * values_width
    column = split * BLOCK + tl.arange(0, BLOCK)
    scale, shift = scales(
        state, values, offset, width, partial_in, member, rows, span_in, column,
        image == 0, SETTLE, CHANNELS, PROGRAMS_IN, PADDED, BLOCK, LINES, EPS, MOMENTUM,
    )  # fmt: skip
    pixel = tl.arange(0, ROWS)
    mask = (pixel < PIXELS)[:, None] & (column < CHANNELS)[None, :]
    first = (member * images + image) * PIXELS
    at = pixel[:, None] * CHANNELS + column[None, :]
    value = tl.load(z + first * CHANNELS + at, mask=mask, other=0.0).to(tl.float32)
    value = value * scale[None, :] + shift[None, :]
    if SKIP == IDENTITY:
        value += tl.load(skip + first * CHANNELS + at, mask=mask, other=0.0)
    if SKIP == CONVOLUTION:
        scale, shift = scales(
            state, values, offset_side, width, partial_side_in, member, rows, span_in, column,
            image == 0, SETTLE, CHANNELS, PROGRAMS_IN, PADDED, BLOCK, LINES, EPS, MOMENTUM,
        )  # fmt: skip
        beside = tl.load(skip + first * CHANNELS + at, mask=mask, other=0.0)
        value += beside * scale[None, :] + shift[None, :]
    value = tl.where((value < 0.0) | (mask == 0), 0.0, value).to(STREAM)
    if KEEP_BITS:
        byte = pixel[:, None] * (PADDED // 8) + tl.arange(0, BLOCK // 8)[None, :]
        to = bits + first * (PADDED // 8) + split * (BLOCK // 8)
        packed = pack(value > 0.0, ROWS, BLOCK)
        tl.store(to + byte, packed, mask=(pixel < PIXELS)[:, None])
    mean = tl.sum(value.to(tl.float32), 0) / PIXELS
    to = (member * images + image) * CHANNELS + column
    tl.store(features + to, mean, mask=column < CHANNELS)


@triton.jit(do_not_specialize=PLACES)
def leave_back(
    dfeatures, bits, below, side_below, out, partial,
    state, offset_below, offset_side_below, width, rows,
    SIDE_BELOW: tl.constexpr, PIXELS: tl.constexpr, CHANNELS: tl.constexpr, PADDED: tl.constexpr,
    SPAN: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """out = dfeatures / PIXELS where a > 0, and its partials, as in convolve_back. Grid: (programs,
    members, blocks of columns)."""
    program, member, split = tl.program_id(0), tl.program_id(1).to(tl.int64), tl.program_id(2)
    dfeatures += member * (rows // PIXELS) * CHANNELS
    bits += member * rows * (PADDED // 8) + split * (BLOCK_N // 8)
    below += member * rows * CHANNELS
    out += member * rows * CHANNELS
    if SIDE_BELOW:
        side_below += member * rows * CHANNELS
    state += member * 6 * width
    column = split * BLOCK_N + tl.arange(0, BLOCK_N)
    mean, inv = normals(state, offset_below, width, column, CHANNELS)
    if SIDE_BELOW:
        side_mean, side_inv = normals(state, offset_side_below, width, column, CHANNELS)
    total = tl.zeros([BLOCK_N], tl.float32)
    total_below = tl.zeros([BLOCK_N], tl.float32)
    total_side = tl.zeros([BLOCK_N], tl.float32)
    for start in range(0, SPAN, BLOCK_M):
        row = program * SPAN + start + tl.arange(0, BLOCK_M)
        mask = (row < rows)[:, None] & (column < CHANNELS)[None, :]
        from_ = (row // PIXELS)[:, None] * CHANNELS + column[None, :]
        value = tl.load(dfeatures + from_, mask=mask, other=0.0) / PIXELS
        byte = row[:, None] * (PADDED // 8) + tl.arange(0, BLOCK_N // 8)[None, :]
        packed = tl.load(bits + byte, mask=(row < rows)[:, None], other=0)
        stored = tl.where(unpack(packed, BLOCK_M, BLOCK_N), value, 0.0).to(out.dtype.element_ty)
        at = row[:, None] * CHANNELS + column[None, :]
        tl.store(out + at, stored, mask=mask)
        kept = stored.to(tl.float32)
        raw = tl.load(below + at, mask=mask, other=0.0)
        total += tl.sum(kept, 0)
        total_below += tl.sum(kept * ((raw - mean[None, :]) * inv[None, :]), 0)
        if SIDE_BELOW:
            raw = tl.load(side_below + at, mask=mask, other=0.0)
            hat = (raw - side_mean[None, :]) * side_inv[None, :]
            total_side += tl.sum(kept * hat, 0)
    keep_partial(partial, 0, 3, member, program, column, total, PADDED)
    keep_partial(partial, 1, 3, member, program, column, total_below, PADDED)
    if SIDE_BELOW:
        keep_partial(partial, 2, 3, member, program, column, total_side, PADDED)


@triton.jit
def classify(
    features, weight, bias, labels, losses, correct, dlogits, dfeatures, smoothing,
    weight_step, bias_step, label_step,
    FEATURES: tl.constexpr, CLASSES: tl.constexpr, BLOCK: tl.constexpr, PADDED: tl.constexpr,
):  # fmt: skip
    """Linear layer and cross-entropy of one image, and the way back, with BLOCK features at a time.
    PADDED: classes, to a power of two. *_step: from one member to the next. Grid: (images,
    members)."""
    image, member = tl.program_id(0), tl.program_id(1).to(tl.int64)
    images = tl.num_programs(0)
    row = member * images + image
    weight += member * weight_step
    class_ = tl.arange(0, PADDED)
    real = class_ < CLASSES
    logits = tl.load(bias + member * bias_step + class_, mask=real, other=0.0)
    for block in range(0, FEATURES, BLOCK):
        feature = block + tl.arange(0, BLOCK)
        known = feature < FEATURES
        at = class_[:, None] * FEATURES + feature[None, :]
        part = tl.load(weight + at, mask=real[:, None] & known[None, :], other=0.0)
        value = tl.load(features + row * FEATURES + feature, mask=known, other=0.0)
        logits += tl.sum(part * value[None, :], 1)
    logits = tl.where(real, logits, float("-inf"))
    label = tl.load(labels + member * label_step + image)
    top = tl.max(logits, 0)
    raised = tl.exp(logits - top)
    sum_ = tl.sum(raised, 0)
    log_p = tl.where(real, logits - top - tl.log(sum_), 0.0)
    target = tl.where(class_ == label, 1.0 - smoothing, 0.0) + smoothing / CLASSES
    target = tl.where(real, target, 0.0)
    tl.store(losses + row, -tl.sum(target * log_p, 0))
    tl.store(correct + row, (tl.argmax(logits, 0) == label).to(tl.int64))
    slope = tl.where(real, raised / sum_ - target, 0.0) / images
    tl.store(dlogits + row * CLASSES + class_, slope, mask=real)
    for block in range(0, FEATURES, BLOCK):
        feature = block + tl.arange(0, BLOCK)
        known = feature < FEATURES
        at = class_[:, None] * FEATURES + feature[None, :]
        part = tl.load(weight + at, mask=real[:, None] & known[None, :], other=0.0)
        pulled = tl.sum(part * slope[:, None], 0)
        tl.store(dfeatures + row * FEATURES + feature, pulled, mask=known)


@triton.jit
def optimise(
    values, gradient, velocity, rate, decay, factor, momentum, count,
    NESTEROV: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One step of SGD over flat buffers: see optimiser.py. Grid: (blocks of values,)."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = at < count
    value = tl.load(values + at, mask=mask)
    direction = tl.load(gradient + at, mask=mask) + tl.load(decay + at, mask=mask) * value
    moved = direction + momentum * tl.load(velocity + at, mask=mask)
    tl.store(velocity + at, moved, mask=mask & (momentum != 0.0))
    step = direction + momentum * moved if NESTEROV else moved
    step = step * (tl.load(rate + at, mask=mask) * tl.load(factor))
    tl.store(values + at, value - step, mask=mask)
