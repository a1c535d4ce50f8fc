# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"
"""Device functions of the Triton kernels: what a channel's statistics and sums are made of.

Statistics and sums are fp32, taken from values as they are stored, and never added up by atomics.
Each program writes a partial for each of its columns; who needs the total merges all partials in a
fixed order, so that two runs agree to the last bit.

partial: (1 or M, parts, programs, PADDED columns), `lead` the first index. state: a member's six
rows below, `width` each. values, gradient: a member's, begin with gamma and beta of all layers,
`width` each. offset: a layer's place among them.
"""

import triton
import triton.language as tl

from gammabeta.passes.kernels import merge

# Arguments that differ from layer to layer and from subset to subset: a kernel compiled for each of
# their values' divisors would compile for minutes.
PLACES = ["offset", "offset_side", "offset_below", "offset_side_below", "width", "values_width"]
MEAN, INV, SCALE, SHIFT, RUNNING_MEAN, RUNNING_VAR = (tl.constexpr(row) for row in range(6))
ROWS_OF_STATE = 6


@triton.jit
def fetch(flat, column, CHANNELS: tl.constexpr):
    return tl.load(flat + column, mask=column < CHANNELS, other=0.0)


@triton.jit
def _keep(flat, column, value, CHANNELS: tl.constexpr):
    tl.store(flat + column, value, mask=column < CHANNELS)


@triton.jit
def keep_partial(partial, part, parts, lead, program, column, value, PADDED: tl.constexpr):
    partial += ((lead * parts + part) * tl.num_programs(0) + program) * PADDED
    tl.store(partial + column, value)


@triton.jit
def _lines(
    partial, part, parts, lead, line, column, PROGRAMS: tl.constexpr, PADDED: tl.constexpr
):  # fmt: skip
    """One part of the programs `line` (LINES, BLOCK); zero after the last program."""
    partial += (lead * parts + part) * PROGRAMS * PADDED
    at = line[:, None] * PADDED + column[None, :]
    return tl.load(partial + at, mask=line[:, None] < PROGRAMS, other=0.0)


@triton.jit
def _statistics(
    partial, lead, rows, span, column,
    PROGRAMS: tl.constexpr, PADDED: tl.constexpr, BLOCK: tl.constexpr, LINES: tl.constexpr,
):  # fmt: skip
    """Mean and M2 of each column over `rows` rows, of which a program had `span`."""
    n = 0.0
    mean = tl.zeros([BLOCK], tl.float32)
    m2 = tl.zeros([BLOCK], tl.float32)
    for begin in range(0, PROGRAMS, LINES):
        line = begin + tl.arange(0, LINES)
        count = tl.minimum(tl.maximum(rows - line * span, 0), span).to(tl.float32)
        means = _lines(partial, 0, 2, lead, line, column, PROGRAMS, PADDED)
        m2s = _lines(partial, 1, 2, lead, line, column, PROGRAMS, PADDED)
        more = tl.sum(count, 0)
        here = tl.sum(count[:, None] * means, 0) / more
        distance = means - here[None, :]
        m2s += count[:, None] * distance * distance
        n, mean, m2 = merge(n, mean, m2, more, here, tl.sum(m2s, 0))
    return mean, m2


@triton.jit
def total(
    partial, part, parts, lead, column,
    PROGRAMS: tl.constexpr, PADDED: tl.constexpr, BLOCK: tl.constexpr, LINES: tl.constexpr,
):  # fmt: skip
    """The sum over all programs."""
    sum_ = tl.zeros([BLOCK], tl.float32)
    for begin in range(0, PROGRAMS, LINES):
        line = begin + tl.arange(0, LINES)
        sum_ += tl.sum(_lines(partial, part, parts, lead, line, column, PROGRAMS, PADDED), 0)
    return sum_


@triton.jit
def scales(
    state, values, offset, width, partial, lead, rows, span, column, record,
    SETTLE: tl.constexpr, CHANNELS: tl.constexpr, PROGRAMS: tl.constexpr, PADDED: tl.constexpr,
    BLOCK: tl.constexpr, LINES: tl.constexpr, EPS: tl.constexpr, MOMENTUM: tl.constexpr,
):  # fmt: skip
    """s and t of a BatchNorm. SETTLE: from the partials of its input; the program that is to
    `record` keeps them and the statistics, and moves the running ones."""
    at = state + offset
    if SETTLE:
        mean, m2 = _statistics(partial, lead, rows, span, column, PROGRAMS, PADDED, BLOCK, LINES)
        inv = 1.0 / tl.sqrt_rn(m2 / rows + EPS)
        scale = fetch(values + offset, column, CHANNELS) * inv
        shift = fetch(values + width + offset, column, CHANNELS) - mean * scale
        if record:
            _keep(at + MEAN * width, column, mean, CHANNELS)
            _keep(at + INV * width, column, inv, CHANNELS)
            _keep(at + SCALE * width, column, scale, CHANNELS)
            _keep(at + SHIFT * width, column, shift, CHANNELS)
            old = fetch(at + RUNNING_MEAN * width, column, CHANNELS)
            _keep(at + RUNNING_MEAN * width, column, old + MOMENTUM * (mean - old), CHANNELS)
            old = fetch(at + RUNNING_VAR * width, column, CHANNELS)
            unbiased = m2 / tl.maximum(rows - 1, 1)
            _keep(at + RUNNING_VAR * width, column, old + MOMENTUM * (unbiased - old), CHANNELS)
    else:
        scale = fetch(at + SCALE * width, column, CHANNELS)
        shift = fetch(at + SHIFT * width, column, CHANNELS)
    return scale, shift


@triton.jit
def slopes(
    state, gradient, offset, width, partial, part, parts, lead, rows, column, record,
    SETTLE: tl.constexpr, CHANNELS: tl.constexpr, PROGRAMS: tl.constexpr, PADDED: tl.constexpr,
    BLOCK: tl.constexpr, LINES: tl.constexpr,
):  # fmt: skip
    """A, B and D of dz = A u + B z + D, which is s (u - sum(u)/n - x_hat sum(u x_hat)/n). SETTLE:
    the sums come from part 0 and `part` of the partials; the program that is to `record` keeps
    them as dbeta and dgamma."""
    at, to = state + offset, gradient + offset
    if SETTLE:
        dbeta = total(partial, 0, parts, lead, column, PROGRAMS, PADDED, BLOCK, LINES)
        dgamma = total(partial, part, parts, lead, column, PROGRAMS, PADDED, BLOCK, LINES)
        if record:
            _keep(to, column, dgamma, CHANNELS)
            _keep(to + width, column, dbeta, CHANNELS)
    else:
        dgamma = fetch(to, column, CHANNELS)
        dbeta = fetch(to + width, column, CHANNELS)
    mean, inv = normals(state, offset, width, column, CHANNELS)
    scale = fetch(at + SCALE * width, column, CHANNELS)
    slope = -scale * inv * (dgamma / rows)
    return scale, slope, -slope * mean - scale * (dbeta / rows)


@triton.jit
def normals(state, offset, width, column, CHANNELS: tl.constexpr):
    """mu and inv, which make x_hat."""
    mean = fetch(state + MEAN * width + offset, column, CHANNELS)
    return mean, fetch(state + INV * width + offset, column, CHANNELS)


@triton.jit
def spread(column, TIMES: tl.constexpr, BLOCK: tl.constexpr):
    """(BLOCK) -> (TIMES BLOCK), over and over again."""
    if TIMES > 1:
        column = tl.reshape(tl.broadcast_to(column[None, :], (TIMES, BLOCK)), (TIMES * BLOCK,))
    return column


@triton.jit
def fold(column, TIMES: tl.constexpr, BLOCK: tl.constexpr):
    """(TIMES BLOCK) -> (BLOCK), the sum."""
    if TIMES > 1:
        column = tl.sum(tl.reshape(column, (TIMES, BLOCK)), 0)
    return column


@triton.jit
def fold_statistics(n, mean, m2, TIMES: tl.constexpr, BLOCK: tl.constexpr):
    """The same for mean and M2 of sets of n."""
    if TIMES > 1:
        whole = fold(mean, TIMES, BLOCK) / TIMES
        distance = mean - spread(whole, TIMES, BLOCK)
        mean, m2 = whole, fold(m2 + n * distance * distance, TIMES, BLOCK)
    return mean, m2
