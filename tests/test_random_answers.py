"""What is said of random weights beside gamma and beta: where they stand, and of how many each."""

import pytest
from test_answers import R14, R32, run, said, view_of

from gammabeta import RunSpec
from gammabeta.build import make_network
from gammabeta.report.settings import caption


@pytest.mark.parametrize(
    ("runs", "expected"),
    [
        (
            [run("bn", 0.44), run("random:2", 0.25), run("random:8", 0.43, trained=4480),
             run("random:32", 0.5, trained=17_328)],
            "On ResNet-14 gamma and beta, 1,120 values, reach 44.0 % (one seed). Random weights "
            "are below with 2 to 8 a channel, 4,480 in all (25.0 % to 43.0 %, one seed each); "
            "above with 32 a channel, or all of a filter that has fewer, 17,328 in all (50.0 %, "
            "one seed). Of what has one seed no spread is known: it is sorted by that seed alone.",
        ),
        (  # a range that ends where filters have fewer
            [run("bn", 0.44), run("random:16", 0.48, trained=8960),
             run("random:576", 0.6, trained=173_488)],
            "On ResNet-14 gamma and beta, 1,120 values, reach 44.0 % (one seed). Random weights "
            "are above with 16 to 576 a channel, or all of a filter that has fewer, 173,488 in all "
            "(48.0 % to 60.0 %, one seed each). Of what has one seed no spread is known: it is "
            "sorted by that seed alone.",
        ),
        (  # the one seed of random:8 is below the mean of bn, but not below its seeds
            [run("bn", 0.42, 0.45), run("random:2", 0.25), run("random:8", 0.43, trained=4480)],
            "On ResNet-14 gamma and beta, 1,120 values, reach 43.5 % (means over 2 seeds, 42.0 % "
            "to 45.0 %). Random weights are below with 2 a channel, 1,120 in all (25.0 %, one "
            "seed); among those seeds with 8 a channel, 4,480 in all (43.0 %, one seed). Of what "
            "has one seed no spread is known: it is sorted by that seed alone.",
        ),
        (  # and as far above it
            [run("bn", 0.42, 0.45), run("random:8", 0.44, trained=4480)],
            "On ResNet-14 gamma and beta, 1,120 values, reach 43.5 % (means over 2 seeds, 42.0 % "
            "to 45.0 %). Random weights are among those seeds with 8 a channel, 4,480 in "
            "all (44.0 %, one seed). Of what has one seed no spread is known: it is sorted by that "
            "seed alone.",
        ),
        (  # several seeds of both: nothing to add; said once for two networks
            [run("bn", 0.42, 0.45), run("random:8", 0.41, 0.44, trained=4480),
             run("random:16", 0.5, 0.51, trained=8960)],
            "On ResNet-14 gamma and beta, 1,120 values, reach 43.5 % (means over 2 seeds, 42.0 % "
            "to 45.0 %). Random weights are level within their seeds with 8 a channel, 4,480 in "
            "all (42.5 %, means over 2 seeds); above with 16 a channel, 8,960 in all (50.5 %, "
            "means over 2 seeds).",
        ),
        (
            [run("bn", 0.43), run("random:8", 0.42, 0.44, trained=4480),
             run("bn", 0.5, model=R32, trained=2464),
             run("random:2", 0.3, model=R32, trained=2464)],
            "On ResNet-14 gamma and beta, 1,120 values, reach 43.0 % (one seed). Random weights "
            "are at both sides of it, seed by seed, with 8 a channel, 4,480 in all (43.0 %, means "
            "over 2 seeds). On ResNet-32 gamma and beta, 2,464 values, reach 50.0 % (one seed). "
            "Random weights are below with 2 a channel, 2,464 in all (30.0 %, one seed). Of what "
            "has one seed no spread is known: it is sorted by that seed alone.",
        ),
    ],
)  # fmt: skip
def test_an_answer_says_where_random_weights_stand(tmp_path, runs, expected):
    assert said(view_of(tmp_path, "random", runs)) == expected


@pytest.mark.filterwarnings("ignore:random.* is more than a filter has")
def test_small_filters_have_fewer_weights_than_are_asked_for(tmp_path):
    """What the caption and the answer of `random` say of the counts is true of the network."""
    text = caption(view_of(tmp_path, "random", [run("bn", 0.44)]), "")
    assert "up to K randomly chosen weights" in text
    assert "(all of a filter that has fewer)" in text
    for amount, count in ((16, 16 * 560), (32, 17_328), (576, 173_488)):  # of 560 channels
        _, subset = make_network(RunSpec(model=R14, trainable=f"random:{amount}"), 10)
        assert subset.count == count  # as in the answers above
