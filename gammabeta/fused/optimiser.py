"""SGD over flat buffers, as torch.optim.SGD does it."""

import torch
from torch import Tensor


@torch.no_grad()
def sgd(
    values: Tensor,
    gradient: Tensor,
    velocity: Tensor,
    rate: Tensor,
    decay: Tensor,
    factor: Tensor | float,
    momentum: float,
    nesterov: bool,
) -> None:
    """One step, in place. values, gradient, velocity, rate, decay: (M, T), one row a member.

    velocity begins as zeros, which is what torch's first step amounts to. The learning rate of a
    value is `rate * factor`; gradient is left as it was.
    """
    direction = gradient + decay * values
    if momentum:
        velocity.mul_(momentum).add_(direction)
        direction = direction + momentum * velocity if nesterov else velocity
    values.sub_(rate * factor * direction)
