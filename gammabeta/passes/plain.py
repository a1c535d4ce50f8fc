"""Which tensors a fast pass takes."""

from collections.abc import Collection, Sequence

import torch
from torch import Tensor


def plain(
    tensors: Sequence[Tensor | None],
    channel: Sequence[Tensor | None],
    device: str,
    dtypes: Collection[torch.dtype],
    multiple: int,
) -> bool:
    """Whether `tensors` are contiguous, on a `device`, of one of `dtypes` and of one shape (..., C)
    with C a multiple of `multiple`; and what is per `channel` is (C,), contiguous and fp32."""
    first = tensors[0]
    assert first is not None
    channels = first.shape[-1]

    def good(tensor: Tensor | None, shape: Sequence[int], dtype: torch.dtype) -> bool:
        return tensor is None or (
            tensor.device.type == device
            and tensor.is_contiguous()
            and tensor.dtype == dtype
            and tensor.shape == shape
        )

    return (
        first.numel() > 0
        and channels % multiple == 0
        and first.dtype in dtypes
        and all(good(each, first.shape, first.dtype) for each in tensors)
        and all(good(each, (channels,), torch.float32) for each in channel)
    )
