"""The learning rate over a run, as a factor of each role's own rate."""

import math

from gammabeta.spec import RunSpec

RAMP_EPOCHS = 5
_RAMP_FLOOR, _RAMP_DECAY = 1 / 40, 0.8
_LINEAR_COSINE_FLOOR = 0.001


def learning_rate_factor(spec: RunSpec, step: int, steps_per_epoch: int) -> float:
    """Factor for step 0, 1, ...; a linear warm-up multiplies the schedule.

    step: `drop_factor` for every drop behind us, at its share of the run, rounded to a step.
    constant: 1.
    cosine: half a cosine from 1 at step 0 to 0 after `schedule_steps` (None: the whole run), where
    it stays. linear_cosine: that times a line from 1 to 0, plus 0.001, so it starts at 1.001.
    cosine_restarts: a cosine over `schedule_steps`, then one over twice as many, and so on.
    These three are Keras' CosineDecay, LinearCosineDecay and CosineDecayRestarts at their defaults.
    ramp: an epoch at a time, 5 equal rises from 1/40 to 1, then back towards 1/40, of which
    distance each epoch keeps 0.8. With lr 4e-4 the ramp of the non-author report.
    """
    total = spec.epochs * steps_per_epoch
    length = spec.schedule_steps or total
    factor = 1.0
    if spec.schedule == "step":
        factor = spec.drop_factor ** sum(step >= round(drop * total) for drop in spec.drops)
    elif spec.schedule == "cosine":
        factor = _cosine(step, length)
    elif spec.schedule == "linear_cosine":
        line = max(0.0, 1 - step / length)
        factor = line * _cosine(step, length) + _LINEAR_COSINE_FLOOR
    elif spec.schedule == "cosine_restarts":
        begun = 0
        while step >= begun + length:
            begun, length = begun + length, 2 * length
        factor = _cosine(step - begun, length)
    elif spec.schedule == "ramp":
        factor = _ramp(step // steps_per_epoch)
    warmup = spec.warmup_epochs * steps_per_epoch
    return factor * min(1.0, step / warmup) if warmup else factor


def _cosine(step: int, length: int) -> float:
    """From 1 at step 0 to 0 at step `length`, and 0 from there on."""
    return 0.5 * (1 + math.cos(math.pi * min(1.0, step / length)))


def _ramp(epoch: int) -> float:
    after = epoch - RAMP_EPOCHS
    height = _RAMP_DECAY**after if after >= 0 else epoch / RAMP_EPOCHS
    return _RAMP_FLOOR + (1 - _RAMP_FLOOR) * height
