"""The sentence under each question: true of the points at hand, and silent where they are few."""

import pytest
from stores import write_point

from gammabeta import RunSpec
from gammabeta.paper import SCALES, experiments
from gammabeta.paper.points import views
from gammabeta.report.answers import answer
from gammabeta.report.settings import caption, missing, place, setting, table_rows
from gammabeta.store import list_runs

R14, R32, X2 = "cifar_resnet_14", "cifar_resnet_32", "cifar_resnet_14_32"


def view_of(root, name, runs, *, scale="short", source="Python batches", gammas=(), **fields):
    """The view of an experiment on runs given as (model, trainable, accuracies, fields, trained);
    one run a seed."""
    for model, trainable, accuracies, changes, trained in runs:
        spec = SCALES[scale].apply(RunSpec(model=model, trainable=trainable, **fields, **changes))
        for seed, accuracy in enumerate(accuracies):
            seeded = spec.replace(seed=seed)
            write_point(root, seeded, accuracy, trained=trained, source=source, gammas=gammas)
    found = views(experiments()[name], list_runs(root))
    assert len(found) <= 1
    return found[0] if found else None


def run(trainable, *accuracies, model=R14, trained=1120, **changes):
    return (model, trainable, accuracies, changes, trained)


def said(view):
    text = answer(view)
    return text and text.replace("\u202f", " ")


@pytest.mark.parametrize(
    ("name", "runs", "expected"),
    [
        (
            "depth",
            [run("bn", 0.44, 0.46), run("random:2", 0.25), run("all", 0.8, trained=175_258)],
            "On ResNet-14 gamma and beta alone reach 45.0 %, as many random weights 25.0 %, "
            "everything 80.0 % (means over 1 to 2 seeds). How it grows with depth is open: no "
            "other depth has finished.",
        ),
        (
            "depth",
            [run("bn", 0.44), run("bn", 0.55, model=R32), run("all", 0.8)],
            "From ResNet-14 to ResNet-32 gamma and beta alone rise from 44.0 % to 55.0 % (one seed "
            "each, so no spread is known). On ResNet-14 they reach 44.0 %, everything "
            "80.0 % (one seed each).",
        ),
        (
            "depth",
            [run("bn", 0.44), run("bn", 0.40, model=R32), run("bn", 0.5, model="cifar_resnet_56")],
            "From ResNet-14 to ResNet-56 gamma and beta alone go from 44.0 % to 50.0 %, not higher "
            "at every step (one seed each, so no spread is known).",
        ),
        (
            "depth",
            [run("bn", 0.44, 0.46), run("bn", 0.45, 0.50, model=R32),
             run("bn", 0.6, 0.61, model="cifar_resnet_56")],
            "From ResNet-14 to ResNet-56 gamma and beta alone rise from 45.0 % to 60.5 %, higher "
            "at each of 2 steps (means over 2 seeds, which overlap in 1 of 2 comparisons).",
        ),
        (
            "depth",
            [run("bn", 0.44, 0.46), run("bn", 0.5, model=R32),
             run("bn", 0.6, model="cifar_resnet_56")],
            "From ResNet-14 to ResNet-56 gamma and beta alone rise from 45.0 % to 60.0 %, higher "
            "at each of 2 steps (means over 1 to 2 seeds; 2 of them have one seed, so no spread).",
        ),
        ("depth", [run("bn", 0.44)],
            "On ResNet-14 gamma and beta alone reach 44.0 % (one seed). How it grows with depth is "
            "open: no other depth has finished.",
        ),
        ("depth", [run("all", 0.8)], None),
        ("width", [run("bn", 0.44)], None),
        (
            "count",
            [run("bn", 0.44), run("bn", 0.55, model=R32, trained=2464),
             run("bn", 0.5, model=X2, trained=2240)],
            "Depth is ahead where both can be compared: ResNet-32 with 2,464 reaches 55.0 %, "
            "ResNet-14 \N{MULTIPLICATION SIGN}2 with 2,240 50.0 % (one seed each, so no "
            "spread is known).",
        ),
        (
            "count",
            [run("bn", 0.44), run("bn", 0.55, 0.57, model=R32, trained=2464),
             run("bn", 0.5, 0.51, model=X2, trained=2240)],
            "Depth is ahead where both can be compared: ResNet-32 with 2,464 reaches 56.0 %, "
            "ResNet-14 \N{MULTIPLICATION SIGN}2 with 2,240 50.5 % (means over 2 seeds, which do "
            "not overlap).",
        ),
        ("count", [run("bn", 0.44), run("bn", 0.55, model=R32, trained=2464)], None),
        ("frozen-bn", [run("all", 0.8)], None),
        (
            "frozen-bn",
            [run("all", 0.80, 0.82), run("all-bn", 0.78, 0.79)],
            "Freezing gamma and beta while everything else trains costs 2.5 points on ResNet-14, "
            "and their seeds do not overlap (means over 2 seeds). Published, with the full "
            "recipe, so no target for this one: it costs 0.5 to 2 points on CIFAR-10.",
        ),
        (
            "norm-init",
            [run("bn", 0.44, 0.47), run("bn", 0.46, 0.49, norm_init="ones")],
            "On ResNet-14 it makes 2.0 points between ones (47.5 %) and uniform (45.5 %), but "
            "their seeds overlap; means over 2 seeds.",
        ),
        ("norm-init", [run("bn", 0.44)], None),
        (  # 44.64 less 43.66 would be 1.0: as printed, 44.6 less 43.7
            "norm-init",
            [run("bn", 0.43, 0.45), run("bn", 0.4366, norm_init="ones"),
             run("bn", 0.4464, norm_init="symmetric")],
            "On ResNet-14 no difference shows beyond the 2.0 points between seeds of uniform: "
            "0.9 points between symmetric (44.6 %) and ones (43.7 %); means over 1 to 2 seeds.",
        ),
        (
            "norm-init",
            [run("bn", 0.427, 0.447), run("bn", 0.52, norm_init="ones")],
            "On ResNet-14 it makes 8.3 points between ones (52.0 %) and uniform (43.7 %), more "
            "than the 2.0 points between seeds of uniform; means over 1 to 2 seeds.",
        ),
        (
            "weight-init",
            [run("bn", 0.44), run("bn", 0.46, weight_init="orthogonal")],
            "On ResNet-14 it makes 2.0 points between orthogonal (46.0 %) and kaiming_normal "
            "(44.0 %), of which no spread is known; one seed each.",
        ),
        (
            "gamma-beta",
            [run("bn", 0.44), run("gamma", 0.3), run("beta", 0.35)],
            "On ResNet-14 gamma alone reaches 30.0 %, beta alone reaches 35.0 %, both reach 44.0 % "
            "(one seed each, so no spread is known).",
        ),
        (
            "gamma-beta",
            [run("bn", 0.44, 0.46), run("gamma", 0.3, 0.32), run("beta", 0.31)],
            "On ResNet-14 gamma alone reaches 31.0 %, beta alone reaches 31.0 %, both reach 45.0 % "
            "(means over 1 to 2 seeds, which do not overlap; where one seed is, no spread is "
            "known).",
        ),
        ("gamma-beta", [run("bn", 0.44)], None),
        (
            "vgg",
            [run("bn", 0.5, model="cifar_vgg_11"), run("all", 0.9, model="cifar_vgg_11")],
            "Under gamma and beta alone VGG-11 reaches 50.0 %, everything 90.0 % (one seed each).",
        ),
        (
            "vgg",
            [run("bn", 0.5, model="cifar_vgg_11")],
            "Under gamma and beta alone VGG-11 reaches 50.0 % (one seed).",
        ),
        (
            "curves",
            [run("bn", 0.64, model="cifar_resnet_110")],
            "Of 16 epochs, bn on ResNet-110 is at 36.0 % after 2 and 48.0 % after 8, where the "
            "learning rate drops, and ends at 64.0 % (one seed).",
        ),
        (
            "lr",
            [run("bn", 0.44), run("bn", 0.46, lr=0.3), run("all", 0.8)],
            "bn is best at 0.3 of 2 rates (46.0 %), the highest of them, so a higher one may be "
            "better still; one seed each, so no spread is known.",
        ),
        (  # in the middle, and ahead by more than its seeds are apart: nothing to add
            "lr",
            [run("bn", 0.44, 0.45, lr=0.01), run("bn", 0.50, 0.51), run("bn", 0.3, 0.4, lr=0.3)],
            "bn is best at 0.1 of 3 rates (50.5 %); means over 2 seeds.",
        ),
        (
            "lr",
            [run("bn", 0.44, 0.45), run("bn", 0.45, 0.48, lr=0.03), run("bn", 0.4, lr=0.3),
             run("all", 0.8, lr=0.003), run("all", 0.7)],
            "bn is best at 0.03 of 3 rates (46.5 %), the lowest of them, so a lower one may be "
            "better still, 2.0 points ahead of 0.1, which is no more than the 3.0 between seeds of "
            "0.03; all is best at 0.003 of 2 rates (80.0 %), the lowest of them, so a lower one "
            "may be better still; means over 1 to 2 seeds.",
        ),
        (  # the first two have one seed each: the seeds of the third tell what chance does
            "lr",
            [run("bn", 0.44), run("bn", 0.43, lr=0.03), run("bn", 0.40, 0.415, lr=0.3)],
            "bn is best at 0.1 of 3 rates (44.0 %), 1.0 points ahead of 0.03, which is no more "
            "than the 1.5 between seeds of 0.3; means over 1 to 2 seeds.",
        ),
        (  # neither is ahead, so nothing lies beyond the lower of them
            "lr",
            [run("bn", 0.4402, lr=0.03), run("bn", 0.4398), run("bn", 0.4, lr=0.3)],
            "bn is level at 0.03 and 0.1 of 3 rates (44.0 %); one seed each, so no spread is "
            "known.",
        ),
        (  # of several seeds too
            "lr",
            [run("bn", 0.43, 0.45, lr=0.03), run("bn", 0.44, 0.44), run("bn", 0.44, lr=0.3)],
            "bn is level at 0.03, 0.1 and 0.3 of 3 rates (44.0 %); means over 1 to 2 seeds.",
        ),
        (  # a higher one was tried
            "lr",
            [run("bn", 0.44), run("bn", 0.46, lr=0.3), run("bn", None, lr=1.0)],
            "bn is best at 0.3 of 3 rates (46.0 %; no result at 1); one seed each, so no spread is "
            "known.",
        ),
        ("lr", [run("bn", 0.44), run("all", 0.8)], None),
        ("clamp", [run("bn", 0.44)], None),
    ],
)  # fmt: skip
def test_an_answer_says_what_its_points_allow(tmp_path, name, runs, expected):
    assert said(view_of(tmp_path, name, runs)) == expected


@pytest.mark.parametrize(
    ("failed", "told"),
    [
        ({1.0: 0}, "best at 0.3 of 3 rates (46.0 %; training failed at 1)"),
        ({0.01: 0, 1.0: 0},
         "best at 0.3 of 4 rates (46.0 %; training failed at 0.01; training failed at 1)"),
        ({0.3: 1}, "best at 0.3 of 2 rates (46.0 %; training failed at 0.3 with 1 of 2 seeds), the "
         "highest of them, so a higher one may be better still"),
        ({0.01: 0}, "best at 0.3 of 3 rates (46.0 %; training failed at 0.01), the highest of "
         "them, so a higher one may be better still"),
    ],
)  # fmt: skip
def test_a_rate_at_which_training_failed_was_tried(tmp_path, failed, told):
    for rate, seed in failed.items():
        spec = SCALES["short"].apply(RunSpec(model=R14, trainable="bn", lr=rate, seed=seed))
        folder = write_point(tmp_path, spec, None)
        folder.write_result({"status": "failed", "error": "the loss is not finite"})
    view = view_of(tmp_path, "lr", [run("bn", 0.44), run("bn", 0.46, lr=0.3)])
    assert said(view) == f"bn is {told}; one seed each, so no spread is known."


def test_small_gammas_are_counted(tmp_path):
    view = view_of(tmp_path, "gammas", [run("bn", 0.44)], gammas=(0.0, 0.001, 0.5, 1.0))
    assert said(view).startswith(
        "Of all gammas, these end below 0.01 in size: on ResNet-14 50.0 % under bn (n = 1), with "
        "no finished run of all to compare."
    )
    assert "4 under bn" in caption(view, "")


def test_small_gammas_of_bn_stand_against_those_of_all(tmp_path):
    view_of(tmp_path, "gammas", [run("bn", 0.44)], gammas=(0.0, 0.001, 0.5, 1.0))
    view = view_of(tmp_path, "gammas", [run("all", 0.8)], gammas=(0.0, 0.2, 0.3, 0.5, 1.0))
    assert said(view).startswith(
        "Of all gammas, these end below 0.01 in size: on ResNet-14 50.0 % under bn (n = 1) and "
        "20.0 % under all (n = 1), 2.5 times as many."
    )
    assert said(view).endswith(
        "Published, with the full recipe, so no target for this one: the paper\u2019s abstract "
        "says, of no network in particular, that about a third of the random features are "
        "disabled; a third party quotes 27 % and 9 %, 3 times as many, from the paper, "
        "naming no network."
    )


@pytest.mark.parametrize(("accuracy", "below"), [(0.07, True), (0.11, False)])
def test_a_network_in_which_nothing_trains_may_be_below_guessing(tmp_path, accuracy, below):
    view = view_of(tmp_path, "depth", [run("bn", 0.44), run("none", accuracy)])
    assert ("Where nothing trains it may be further below" in caption(view, "")) is below


def test_cifar100_has_a_chance_of_its_own(tmp_path):
    view = view_of(tmp_path, "cifar100", [run("bn", 0.2, data="cifar100")])
    assert said(view).startswith("On ResNet-14 gamma and beta alone reach 20.0 % (one seed).")
    assert "guessing, 1.0\u202f%" in caption(view, "")


@pytest.mark.parametrize(
    ("scale", "fields", "source", "expected"),
    [
        ("paper", {}, "Python batches", ["The published recipe, 160 epochs."]),
        (
            "short",
            {"precision": "bf16"},
            "Parquet, 50,000 train and 10,000 test images, JPEG",
            [
                "A shortened recipe: 16 epochs instead of 160, so the published numbers are no "
                "target for these.",
                "Computed in bf16, not in fp32.",
                "The data was JPEG copies of the images, whose pixels are not quite the original "
                "ones.",
            ],
        ),
        (
            "smoke",
            {"data": "digits"},
            "5,000 digits",
            [
                "A shortened recipe: 1 epoch instead of 160 of the first 512 images, tested on the "
                "first 512.",
                "Trained on digits instead of cifar10: nothing was published for that.",
            ],
        ),
    ],
)
def test_a_reader_is_told_what_was_changed(tmp_path, scale, fields, source, expected):
    view = view_of(tmp_path, "depth", [run("bn", 0.4)], scale=scale, source=source, **fields)
    assert setting(view) == expected


@pytest.mark.parametrize(
    ("name", "told"),
    [("lr", " but for the learning rate"), ("norm-init", " but for the norm init"), ("depth", "")],
)
def test_what_an_experiment_changes_is_no_part_of_the_published_recipe(tmp_path, name, told):
    view = view_of(tmp_path, name, [run("bn", 0.4)], scale="paper")
    assert setting(view) == [f"The published recipe{told}, 160 epochs."]


def test_what_is_missing_is_listed(tmp_path):
    runs = [run("bn", 0.44), run("all", 0.8, 0.8, 0.8), run("none", None)]
    lines = missing(view_of(tmp_path, "gamma-beta", runs))
    assert "Fewer than 3 seeds of bn: ResNet-14 (1)." in lines
    assert "No run yet of bn: ResNet-32, ResNet-56, ResNet-110." in lines
    lines = missing(view_of(tmp_path, "depth", []))
    assert not any("seeds of all" in line for line in lines)
    assert any("none, seed 0): stopped after 16 of 16 epochs" in line for line in lines)


@pytest.mark.parametrize(("classes", "published"), [(1000, True), (10, False)])
def test_freezing_on_imagenet_has_a_published_cost_of_its_own(tmp_path, classes, published):
    experiment = experiments()["frozen-bn-imagenet"].only(["imagenet_resnet_18"])
    for spec, accuracy in zip(experiment.points, (0.70, 0.69), strict=True):
        write_point(tmp_path, spec, accuracy, num_classes=classes, train=1_281_167)
    (view,) = views(experiment, list_runs(tmp_path))
    assert "costs 1.0 points on ResNet-18 (one seed each)." in said(view)
    assert said(view).endswith("Published: it costs 2 points on ImageNet.") is published


def test_a_row_has_its_place_on_the_axis(tmp_path):
    view = view_of(tmp_path, "random", [run("bn", 0.44), run("random:2", 0.25)])
    assert [place(view, row["point"]) for row in table_rows(view)] == ["bn", "random:2"]
    view = view_of(tmp_path, "lr", [run("bn", 0.4, lr=0.3)])
    assert [(row["line"], row["place"]) for row in table_rows(view)] == [
        ("bn", "0.1"), ("bn", "0.3"), ("random:2", "0.1")
    ]  # fmt: skip


@pytest.mark.parametrize(("scale", "no_target"), [("short", True), ("paper", False)])
@pytest.mark.parametrize("name", ["gammas", "frozen-bn"])
def test_what_was_published_is_said_to_be_of_the_full_recipe(tmp_path, name, scale, no_target):
    runs = [run("bn", 0.44), run("all", 0.8), run("all-bn", 0.79)]
    text = said(view_of(tmp_path, name, runs, scale=scale, gammas=(0.0, 0.5)))
    assert ("with the full recipe, so no target for this one" in text) is no_target
    if name == "gammas":
        assert "about a third of the random features are disabled" in text
        assert "quotes 27 % and 9 %, 3 times as many, from the paper" in text


def test_nothing_published_stands_beside_other_data(tmp_path):
    text = said(view_of(tmp_path, "gammas", [run("bn", 0.44)], gammas=(0.0, 0.5), data="digits"))
    assert text.startswith("Of all gammas, these end below 0.01 in size: on ResNet-14 50.0 % under")
    assert "paper" not in text
