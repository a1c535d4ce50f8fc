# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"
"""The passes as Triton kernels, for an NVIDIA GPU; on_gpu.py launches them. What each computes is
said, and done slowly, in twin.py.

A tensor is a matrix: a row a pixel, a column a channel. The passes that only write take a tile
(BLOCK_M, BLOCK_C) a program. Those that add up take `span` rows a program and write a partial for
each column, which a second kernel merges in a fixed order: two runs agree to the last bit.
Statistics and sums are fp32.
"""

import triton
import triton.language as tl

NOWHERE, BITS, AFFINE = (tl.constexpr(kind) for kind in range(3))  # where a mask comes from


@triton.jit
def merge(n, mean, m2, more_n, more_mean, more_m2):
    """Count, mean and M2 (the sum of squared distances from the mean) of two sets together (Chan,
    Golub and LeVeque 1979). Squares are of distances only: a mean far from zero costs no digits."""
    total = n + more_n
    share = more_n / total
    delta = more_mean - mean
    return total, mean + delta * share, m2 + more_m2 + delta * delta * (n * share)


@triton.jit
def add_tile(n, mean, m2, value, valid):
    """n, mean and m2 with the valid rows of a tile (BLOCK_M, BLOCK_N)."""
    count = tl.sum(valid.to(tl.float32), 0)
    here = tl.sum(tl.where(valid[:, None], value, 0.0), 0) / tl.maximum(count, 1.0)
    distance = tl.where(valid[:, None], value - here[None, :], 0.0)
    return merge(n, mean, m2, count, here, tl.sum(distance * distance, 0))


@triton.jit
def pack(flag, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """(ROWS, COLUMNS) of truths -> (ROWS, COLUMNS / 8) bytes."""
    bit = tl.reshape(flag.to(tl.int32), (ROWS, COLUMNS // 8, 8)) << tl.arange(0, 8)[None, None, :]
    return tl.sum(bit, 2).to(tl.uint8)


@triton.jit
def unpack(byte, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    bit = (byte.to(tl.int32)[:, :, None] >> tl.arange(0, 8)[None, None, :]) & 1
    return tl.reshape(bit, (ROWS, COLUMNS)) != 0


@triton.jit
def _tile(start, rows, channels, BLOCK_M: tl.constexpr, BLOCK_C: tl.constexpr):
    """Of a tile: where its values lie, which there are, its columns and which of its rows and
    columns there are."""
    row = start + tl.arange(0, BLOCK_M)
    column = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    at = row.to(tl.int64)[:, None] * channels + column[None, :]
    valid, inside = row < rows, column < channels
    return at, valid[:, None] & inside[None, :], column, valid, inside


@triton.jit
def _bytes(start, rows, channels, BLOCK_M: tl.constexpr, BLOCK_C: tl.constexpr):
    """The same of the tile's bits: where their bytes lie, and which there are."""
    row = start + tl.arange(0, BLOCK_M)
    column = tl.program_id(1) * (BLOCK_C // 8) + tl.arange(0, BLOCK_C // 8)
    at = row.to(tl.int64)[:, None] * (channels // 8) + column[None, :]
    return at, (row < rows)[:, None] & (column < channels // 8)[None, :]


@triton.jit
def _value(tensor, at, there):
    return tl.load(tensor + at, mask=there, other=0.0).to(tl.float32)


@triton.jit
def _channel(vector, column, inside):
    return tl.load(vector + column, mask=inside, other=0.0)[None, :]


@triton.jit
def measure(
    z, partial, rows, channels, span, BLOCK_M: tl.constexpr, BLOCK_C: tl.constexpr
):  # fmt: skip
    """partial (2, programs, channels): mean and M2 of a program's rows. Values are taken relative
    to the first row's, so that the variance of a constant is 0."""
    program = tl.program_id(0)
    column = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    inside = column < channels
    first = _channel(z, column, inside).to(tl.float32)
    n, mean = 0.0, tl.zeros([BLOCK_C], tl.float32)
    m2 = tl.zeros([BLOCK_C], tl.float32)
    end = tl.minimum(program * span + span, rows)  # no tile without a row: it would divide by 0
    for start in range(program * span, end, BLOCK_M):
        at, there, _, valid, _ = _tile(start, rows, channels, BLOCK_M, BLOCK_C)
        n, mean, m2 = add_tile(n, mean, m2, _value(z, at, there) - first, valid)
    at = program * channels + column
    tl.store(partial + at, mean, mask=inside)
    tl.store(partial + tl.num_programs(0) * channels + at, m2, mask=inside)


@triton.jit
def merge_moments(
    z, partial, moments, programs, rows, channels, span, LINES: tl.constexpr, BLOCK_C: tl.constexpr
):  # fmt: skip
    """moments (2, channels): mean and biased variance, from the partials of `measure`."""
    column = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    inside = column < channels
    n, mean = 0.0, tl.zeros([BLOCK_C], tl.float32)
    m2 = tl.zeros([BLOCK_C], tl.float32)
    for begin in range(0, programs, LINES):
        line = begin + tl.arange(0, LINES)
        at = line[:, None] * channels + column[None, :]
        there = (line < programs)[:, None] & inside[None, :]
        count = tl.minimum(tl.maximum(rows - line * span, 0), span).to(tl.float32)
        means = tl.load(partial + at, mask=there, other=0.0)
        m2s = tl.load(partial + programs * channels + at, mask=there, other=0.0)
        more = tl.sum(count, 0)
        here = tl.sum(count[:, None] * means, 0) / more
        distance = means - here[None, :]
        m2s += count[:, None] * distance * distance
        n, mean, m2 = merge(n, mean, m2, more, here, tl.sum(m2s, 0))
    first = tl.load(z + column, mask=inside, other=0.0).to(tl.float32)
    tl.store(moments + column, mean + first, mask=inside)
    tl.store(moments + channels + column, m2 / rows, mask=inside)


@triton.jit
def normalise(
    z, s, t, skip, s2, t2, out, bits, rows, channels,
    SKIP: tl.constexpr, SHORTCUT: tl.constexpr, RELU: tl.constexpr, KEEP: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    start = tl.program_id(0) * BLOCK_M
    at, there, column, _, inside = _tile(start, rows, channels, BLOCK_M, BLOCK_C)
    y = _value(z, at, there) * _channel(s, column, inside) + _channel(t, column, inside)
    if SKIP:
        more = _value(skip, at, there)
        if SHORTCUT:
            more = more * _channel(s2, column, inside) + _channel(t2, column, inside)
        y += more
    if RELU:
        y = tl.where(y < 0.0, 0.0, y)  # and what is no number stays that
    stored = y.to(out.dtype.element_ty)
    tl.store(out + at, stored, mask=there)
    if KEEP:
        places, kept = _bytes(start, rows, channels, BLOCK_M, BLOCK_C)
        tl.store(bits + places, pack(stored > 0.0, BLOCK_M, BLOCK_C), mask=kept)


@triton.jit
def sums(
    g, more, z, mean, inv, s, t, bits, z2, mean2, inv2, u, partial, rows, channels, span,
    MORE: tl.constexpr, OPENED: tl.constexpr, SHORTCUT: tl.constexpr, KEEP: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """partial (2 or, with SHORTCUT, 3, programs, channels): dbeta, dgamma, that of the shortcut."""
    program = tl.program_id(0)
    column = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    inside = column < channels
    mean, inv = _channel(mean, column, inside), _channel(inv, column, inside)
    if OPENED == AFFINE:
        s, t = _channel(s, column, inside), _channel(t, column, inside)
    if SHORTCUT:
        mean2, inv2 = _channel(mean2, column, inside), _channel(inv2, column, inside)
    dbeta = tl.zeros([BLOCK_C], tl.float32)
    dgamma = tl.zeros([BLOCK_C], tl.float32)
    second = tl.zeros([BLOCK_C], tl.float32)
    end = tl.minimum(program * span + span, rows)
    for start in range(program * span, end, BLOCK_M):
        at, there, _, _, _ = _tile(start, rows, channels, BLOCK_M, BLOCK_C)
        value = _value(g, at, there)
        if MORE:
            value += _value(more, at, there)
        here = _value(z, at, there)
        if OPENED == AFFINE:
            value = tl.where(here * s + t > 0.0, value, 0.0)
        if OPENED == BITS:
            places, kept = _bytes(start, rows, channels, BLOCK_M, BLOCK_C)
            byte = tl.load(bits + places, mask=kept, other=0)
            value = tl.where(unpack(byte, BLOCK_M, BLOCK_C), value, 0.0)
        if KEEP:
            stored = value.to(u.dtype.element_ty)
            tl.store(u + at, stored, mask=there)
            value = stored.to(tl.float32)
        dbeta += tl.sum(value, 0)
        # Outside the tile the value is 0, but what it is multiplied with may be no number.
        dgamma += tl.sum(tl.where(there, value * ((here - mean) * inv), 0.0), 0)
        if SHORTCUT:
            other = (_value(z2, at, there) - mean2) * inv2
            second += tl.sum(tl.where(there, value * other, 0.0), 0)
    at = program * channels + column
    size = tl.num_programs(0) * channels
    tl.store(partial + at, dbeta, mask=inside)
    tl.store(partial + size + at, dgamma, mask=inside)
    if SHORTCUT:
        tl.store(partial + 2 * size + at, second, mask=inside)


@triton.jit
def merge_sums(
    partial, totals, programs, channels, LINES: tl.constexpr, BLOCK_C: tl.constexpr
):  # fmt: skip
    """totals (parts, channels), from partial (parts, programs, channels)."""
    part = tl.program_id(1)
    column = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    inside = column < channels
    partial += part * programs * channels
    total = tl.zeros([BLOCK_C], tl.float32)
    for begin in range(0, programs, LINES):
        line = begin + tl.arange(0, LINES)
        at = line[:, None] * channels + column[None, :]
        there = (line < programs)[:, None] & inside[None, :]
        total += tl.sum(tl.load(partial + at, mask=there, other=0.0), 0)
    tl.store(totals + part * channels + column, total, mask=inside)


@triton.jit
def input_gradient(
    g, z, mean, inv, s, k1, k2, t, dz, rows, channels,
    MASKED: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    start = tl.program_id(0) * BLOCK_M
    at, there, column, _, inside = _tile(start, rows, channels, BLOCK_M, BLOCK_C)
    value, here = _value(g, at, there), _value(z, at, there)
    scale = _channel(s, column, inside)
    if MASKED:
        value = tl.where(here * scale + _channel(t, column, inside) > 0.0, value, 0.0)
    x_hat = (here - _channel(mean, column, inside)) * _channel(inv, column, inside)
    value -= _channel(k1, column, inside) + x_hat * _channel(k2, column, inside)
    tl.store(dz + at, (scale * value).to(dz.dtype.element_ty), mask=there)
