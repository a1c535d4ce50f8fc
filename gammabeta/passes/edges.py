"""The far edge of a strided convolution's input, which a transposed convolution gives back."""


def output_padding(
    size: int, out: int, kernel: int, stride: int, padding: int, dilation: int = 1
) -> int:
    """What to add at the far edge of a transposed convolution, so that `out` values become the
    `size` values that the convolution was given: what its division by the stride left over."""
    return size - ((out - 1) * stride - 2 * padding + dilation * (kernel - 1) + 1)
