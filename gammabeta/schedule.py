"""The learning rate over a run, as a factor of each role's own rate."""

import math

from gammabeta.spec import RunSpec


def learning_rate_factor(spec: RunSpec, step: int, steps_per_epoch: int) -> float:
    """Factor in [0, 1] for step 0, 1, ...; a linear warm-up multiplies the schedule.

    step: `drop_factor` for every drop behind us, at its share of the run, rounded to a step.
    cosine: half a cosine from 1 at step 0 towards 0 at the end. constant: 1.
    """
    total = spec.epochs * steps_per_epoch
    factor = 1.0
    if spec.schedule == "step":
        factor = spec.drop_factor ** sum(step >= round(drop * total) for drop in spec.drops)
    elif spec.schedule == "cosine":
        factor = 0.5 * (1 + math.cos(math.pi * step / total))
    warmup = spec.warmup_epochs * steps_per_epoch
    return factor * min(1.0, step / warmup) if warmup else factor
