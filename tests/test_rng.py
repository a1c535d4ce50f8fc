"""The generator: a function of (seed, stream, index), stable for ever."""

import numpy as np

from gammabeta import rng

GOLDEN_NORMAL = [0.09963632926266776, -3.00833885777081, -0.2574079528702522]
GOLDEN_UNIFORM = [0.22011262355183758, 0.5863252574027196]
GOLDEN_PERMUTATION = [1, 0, 3, 6, 4, 2, 7, 5]


def test_the_draws_are_fixed_for_ever():
    # NumPy may change its algorithms (NEP 19): then stored runs cannot be rebuilt, so say it here.
    draw = rng.generator(0, "golden", 3)
    assert draw.standard_normal(3).tolist() == GOLDEN_NORMAL
    assert draw.random(2).tolist() == GOLDEN_UNIFORM
    assert draw.permutation(8).tolist() == GOLDEN_PERMUTATION


def test_the_same_key_gives_the_same_draws():
    first, again = (rng.generator(7, "order", 2).random(5) for _ in range(2))
    assert np.array_equal(first, again)


def test_streams_differ_by_each_part_of_the_key():
    keys = [(0, "a", 0), (1, "a", 0), (0, "b", 0), (0, "a", 1), (10, "a", 0), (1, "0/a", 0)]
    draws = {rng.generator(*key).random() for key in keys}
    assert len(draws) == len(keys)
