"""The memory passes of BatchNorm + ReLU (+ add), forward and backward: the work that is left when
convolutions are frozen. What each computes is said, and done slowly, in twin.py."""

from gammabeta.passes.native import (
    input_gradient,
    keep_freed_memory,
    measure,
    normalise,
    sums,
    why_slow,
    will_compile,
)

__all__ = [
    "input_gradient", "keep_freed_memory", "measure", "normalise", "sums", "why_slow",
    "will_compile",
]  # fmt: skip
