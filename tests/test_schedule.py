"""Learning-rate factors: values worked out by hand, and Keras' formulas as its pages state them."""

import math

import pytest

from gammabeta import RunSpec
from gammabeta.schedule import learning_rate_factor

FACTORS = [
    (RunSpec(), {0: 1, 31_279: 1, 31_280: 0.1, 46_919: 0.1, 46_920: 0.01, 62_559: 0.01}),
    (RunSpec(schedule="constant"), {0: 1, 62_559: 1}),
    (RunSpec(schedule="cosine"), {0: 1, 31_280: 0.5, 62_559: 0.0}),
    (RunSpec(schedule="cosine", schedule_steps=1000), {0: 1, 500: 0.5, 1000: 0, 62_559: 0}),
    (RunSpec(schedule="linear_cosine", schedule_steps=1000),
     {0: 1.001, 500: 0.251, 999: 0.001, 1000: 0.001, 62_559: 0.001}),
    (RunSpec(schedule="linear_cosine"), {0: 1.001, 31_280: 0.251, 62_559: 0.001}),
    # Restarts after 1000, 3000, 7000, ... steps.
    (RunSpec(schedule="cosine_restarts", schedule_steps=1000),
     {0: 1, 500: 0.5, 999: 0, 1000: 1, 2000: 0.5, 2999: 0, 3000: 1, 5000: 0.5, 7000: 1}),
    (RunSpec(warmup_epochs=2), {0: 0, 391: 0.5, 782: 1, 31_280: 0.1}),
    (RunSpec(warmup_epochs=2, schedule="cosine", schedule_steps=1564), {391: 0.5 * 0.853553391,
                                                                        782: 0.5, 1564: 0}),
    (RunSpec(epochs=90, drops=(1 / 3, 2 / 3, 8 / 9)), {30 * 391 - 1: 1, 30 * 391: 0.1,
                                                       60 * 391: 0.01, 80 * 391: 0.001}),
    (RunSpec(drops=(), drop_factor=1.0), {62_559: 1}),
]  # fmt: skip


@pytest.mark.parametrize(("spec", "expected"), FACTORS)
def test_learning_rate_factors(spec, expected):
    for step, factor in expected.items():
        assert learning_rate_factor(spec, step, 391) == pytest.approx(factor, abs=1e-5)
    assert math.ceil(50_000 / 128) == 391


def keras_cosine(step, decay_steps):
    step = min(step, decay_steps)
    return 0.5 * (1 + math.cos(math.pi * step / decay_steps))


def keras_linear_cosine(step, decay_steps, num_periods=0.5, alpha=0.0, beta=0.001):
    step = min(step, decay_steps)
    linear_decay = (decay_steps - step) / decay_steps
    cosine_decay = 0.5 * (1 + math.cos(math.pi * 2 * num_periods * step / decay_steps))
    return (alpha + linear_decay) * cosine_decay + beta


def keras_cosine_restarts(step, first_decay_steps, t_mul=2.0, m_mul=1.0, alpha=0.0):
    completed = step / first_decay_steps
    restart = math.floor(math.log(1 - completed * (1 - t_mul)) / math.log(t_mul))
    before = (1 - t_mul**restart) / (1 - t_mul)
    completed = (completed - before) / t_mul**restart
    cosine_decay = 0.5 * m_mul**restart * (1 + math.cos(math.pi * completed))
    return (1 - alpha) * cosine_decay + alpha


@pytest.mark.parametrize(
    ("schedule", "theirs"),
    [
        ("cosine", keras_cosine),
        ("linear_cosine", keras_linear_cosine),
        ("cosine_restarts", keras_cosine_restarts),
    ],
)
def test_the_cosines_are_those_of_keras(schedule, theirs):
    # Their logarithm may round to either side of a restart: lengths for which it does not.
    for length in (8, 64):
        spec = RunSpec(schedule=schedule, schedule_steps=length, epochs=100)
        for step in range(1000):
            ours = learning_rate_factor(spec, step, 10)
            assert ours == pytest.approx(theirs(step, length), abs=1e-9), (length, step)


def test_the_cosines_of_a_whole_run_are_those_of_keras():
    for schedule, theirs in (("cosine", keras_cosine), ("linear_cosine", keras_linear_cosine)):
        spec = RunSpec(schedule=schedule, epochs=7)
        for step in range(70):
            assert learning_rate_factor(spec, step, 10) == pytest.approx(theirs(step, 70), abs=1e-9)


def test_the_ramp_is_that_of_the_report():
    """Its code, with 8 replicas; it sets the rate at the start of an epoch."""
    start_lr, min_lr, max_lr, rampup_epochs, exp_decay = 1e-5, 1e-5, 5e-5 * 8, 5, 0.8
    spec = RunSpec(schedule="ramp", lr=4e-4, epochs=75, optimizer="adam")
    rates = [spec.lr * learning_rate_factor(spec, step, 49) for step in range(75 * 49)]
    for epoch in range(75):
        if epoch < rampup_epochs:
            expected = (max_lr - start_lr) / rampup_epochs * epoch + start_lr
        else:
            expected = (max_lr - min_lr) * exp_decay ** (epoch - rampup_epochs) + min_lr
        assert rates[49 * epoch : 49 * epoch + 49] == pytest.approx([expected] * 49, rel=1e-12)
    assert max(rates) == rates[5 * 49] == pytest.approx(4e-4)
    assert rates[9 * 49] == pytest.approx(0.000169744, rel=1e-6)  # what its notebook prints
