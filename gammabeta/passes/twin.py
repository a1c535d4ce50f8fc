"""The passes in plain torch, for every device and type: obvious, and the judge of the fast ones.

Tensors are (..., C), contiguous; what is per channel is (C,), fp32 (fp64 with fp64 tensors).
"""

import torch
from torch import Tensor


def exact(tensor: Tensor) -> Tensor:
    """In fp32, or fp64 if it is."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def pack(mask: Tensor) -> Tensor:
    """bool, any shape -> uint8 (ceil(n / 8),): value i is bit i % 8 of byte i // 8."""
    flat = mask.flatten().to(torch.uint8)
    flat = torch.nn.functional.pad(flat, (0, -len(flat) % 8)).view(-1, 8)
    places = torch.arange(8, device=mask.device, dtype=torch.uint8)
    return (flat << places).sum(1, dtype=torch.uint8)


def unpack(bits: Tensor, like: Tensor) -> Tensor:
    """The inverse of `pack`: bool in the shape of `like`."""
    places = torch.arange(8, device=bits.device, dtype=torch.uint8)
    values = (bits[:, None] >> places) & 1
    return values.view(-1)[: like.numel()].view(like.shape).bool()


def measure(z: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of each channel."""
    rows = exact(z).view(-1, z.shape[-1])
    # Around the first row: a mean far from zero costs no precision.
    var, mean = torch.var_mean(rows - rows[0], 0, correction=0)
    return mean + rows[0], var


def normalise(
    z: Tensor,
    s: Tensor,
    t: Tensor,
    skip: Tensor | None = None,
    s2: Tensor | None = None,
    t2: Tensor | None = None,
    *,
    relu: bool,
    keep: bool,
) -> tuple[Tensor, Tensor | None]:
    """s z + t (+ skip, or + s2 skip + t2 where s2 is given), then perhaps a ReLU, in z's type.
    keep: also the packed bits of [output > 0]."""
    y = exact(z) * s + t
    if skip is not None:
        y = y + (exact(skip) if s2 is None or t2 is None else exact(skip) * s2 + t2)
    if relu:
        y = torch.relu(y)
    y = y.to(z.dtype)
    return y, pack(y > 0) if keep else None


def sums(
    g: Tensor,
    z: Tensor,
    mean: Tensor,
    inv: Tensor,
    *,
    opened: tuple[Tensor, Tensor] | Tensor | None = None,
    more: Tensor | None = None,
    shortcut: tuple[Tensor, Tensor, Tensor] | None = None,
    keep: bool = False,
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    """dbeta = sum u, dgamma = sum u x_hat, dgamma of the shortcut, u.

    u = g (+ more) where the ReLU is open: `opened` holds packed bits, or (s, t) for where
    s z + t > 0, or None for everywhere. more: only with bits. shortcut: (z, mean, inv) of the
    BatchNorm on the shortcut, which sees the same u. keep: return u, in g's type; the sums are
    then of u as it is stored.
    """
    u = exact(g) if more is None else exact(g) + exact(more)
    if isinstance(opened, Tensor):
        u = torch.where(unpack(opened, u), u, 0)
    elif opened is not None:
        u = torch.where(exact(z) * opened[0] + opened[1] > 0, u, 0)
    u = u.to(g.dtype) if keep else u
    channels = z.shape[-1]
    rows = exact(u).reshape(-1, channels)

    def gamma(z: Tensor, mean: Tensor, inv: Tensor) -> Tensor:
        return (rows * ((exact(z).reshape(-1, channels) - mean) * inv)).sum(0)

    second = None if shortcut is None else gamma(*shortcut)
    return rows.sum(0), gamma(z, mean, inv), second, u if keep else None


def input_gradient(
    g: Tensor,
    z: Tensor,
    mean: Tensor,
    inv: Tensor,
    s: Tensor,
    k1: Tensor,
    k2: Tensor,
    t: Tensor | None = None,
) -> Tensor:
    """dz = s (u - k1 - x_hat k2), in z's type; u = g where s z + t > 0 if t is given, else g."""
    u = exact(g)
    if t is not None:
        u = torch.where(exact(z) * s + t > 0, u, 0)
    return (s * (u - k1 - (exact(z) - mean) * inv * k2)).to(z.dtype)
