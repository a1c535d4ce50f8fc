"""The published numbers: under canonical names, shown beside the paper's own recipe only."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from stores import write_point, write_run

from gammabeta import InputError, RunSpec
from gammabeta.analysis import Spread
from gammabeta.language import parse
from gammabeta.names import PAPER_NETWORKS
from gammabeta.paper import PUBLISHED, SCALES, choose_scale, experiments, published_accuracy
from gammabeta.paper.points import collect, recipe, table, views
from gammabeta.paper.published import (
    PUBLISHED_ALTERNATE,
    PUBLISHED_CURVES,
    PUBLISHED_IMAGENET_TOP5,
    PUBLISHED_SMALL_GAMMAS,
)
from gammabeta.paper.report import report_accuracy
from gammabeta.report.settings import missing
from gammabeta.schedule import learning_rate_factor
from gammabeta.store import list_runs


def test_every_entry_can_be_asked_for():
    for (model, subset), accuracy in PUBLISHED.items():
        assert model in PAPER_NETWORKS
        assert str(parse(subset)) == subset
        assert 0.09 < accuracy < 0.96


@pytest.mark.parametrize(
    ("model", "subset", "percent"),
    [
        ("cifar_resnet_14", "bn", 48.1),
        ("cifar_resnet_110", "bn", 69.7),
        ("cifar_resnet_866", "bn", 82.0),
        ("cifar_resnet_14_512", "bn", 73.4),
        ("cifar_resnet_110", "shortcut + output", 19.4),
        ("cifar_resnet_866", "bn+shortcut+output", 82.1),
        ("cifar_resnet_14_128", "all", 94.9),
    ],
)
def test_published_accuracy(model, subset, percent):
    spec = RunSpec(model=model, trainable=subset)
    assert published_accuracy(spec) == pytest.approx(percent / 100)
    assert published_accuracy(spec.replace(seed=4, precision="bf16")) == published_accuracy(spec)


def test_every_published_number_is_that_of_the_paper():
    """Against a copy of the facts, cell by cell. On the axis of width the figure has 63.3 for what
    it has as 63.2 on the axis of depth, for one network and one subset: one reading was taken."""
    facts = json.loads((Path(__file__).parent / "published.json").read_text())
    twice = ("width", "bn+shortcut+output", "cifar_resnet_14")
    cells = {
        (axis, subset, model): percent
        for axis, lines in facts["axes"].items()
        for subset, line in lines.items()
        for model, percent in line.items()
    }
    assert cells.pop(twice) == 63.3
    plain, alternate = {}, {}
    for (_, subset, model), percent in cells.items():
        if subset == "bn_alternate_init":
            alternate[model] = pytest.approx(percent / 100, abs=1e-9)
        else:
            plain[model, str(parse(subset))] = pytest.approx(percent / 100, abs=1e-9)
    assert plain == PUBLISHED
    assert alternate == PUBLISHED_ALTERNATE
    curves = {
        str(parse(subset)): {int(epoch): pytest.approx(each / 100) for epoch, each in line.items()}
        for subset, line in facts["curves"].items()
    }
    assert curves == PUBLISHED_CURVES
    small = {subset: pytest.approx(each / 100) for subset, each in facts["small_gammas"].items()}
    assert small == PUBLISHED_SMALL_GAMMAS
    assert (
        facts["imagenet_resnet_200_top5"] / 100
        == PUBLISHED_IMAGENET_TOP5["imagenet_resnet_200", "bn"]
    )


@pytest.mark.parametrize(
    "change", [{"epochs": 16}, {"data": "digits"}, {"lr": 0.2}, {"norm_init": "ones"},
               {"trainable": "gamma"}, {"subsample": 1000},
               {"norm_init": "ones_ones", "trainable": "all"}]
)  # fmt: skip
def test_no_number_beside_another_recipe(change):
    assert published_accuracy(RunSpec().replace(**change)) is None


def test_the_alternate_initialisation_has_its_own_numbers():
    spec = RunSpec(model="cifar_resnet_56", norm_init="ones_ones")
    assert published_accuracy(spec) == pytest.approx(0.648)


@pytest.mark.parametrize("name", experiments())
def test_an_experiment_says_what_it_is(name):
    experiment = experiments()[name]
    assert experiment.name == name
    assert experiment.question.endswith("?")
    assert experiment.caption.endswith(".")
    assert len({point.id for point in experiment.points}) == len(experiment.points)
    assert all(point.seed == 0 for point in experiment.points)


def test_scales_shorten_the_published_recipe_and_nothing_else():
    depth = experiments()["depth"]
    paper, short = depth.at(SCALES["paper"]), depth.at(SCALES["short"])
    assert len(paper) == 5 * len(depth.points)
    assert len(short) == 3 * len(depth.points)
    assert {spec.epochs for spec in paper} == {160}
    assert {spec.epochs for spec in short} == {16}
    assert [spec.replace(epochs=160) for spec in short] == paper[: len(short)]
    assert [spec.seed for spec in short[: len(depth.points)]] == [0] * len(depth.points)
    assert {spec.seed for spec in depth.at(SCALES["smoke"], replicates=2)} == {0, 1}
    warm = SCALES["short"].apply(RunSpec(epochs=90, warmup_epochs=5))
    assert warm.warmup_epochs == pytest.approx(5 * 16 / 90)
    steps = RunSpec(schedule="cosine", epochs=80, schedule_steps=1000)
    assert SCALES["short"].apply(steps).schedule_steps == 200
    ramp = SCALES["short"].apply(RunSpec(schedule="ramp", epochs=75))
    factors = [learning_rate_factor(ramp, epoch, 1) for epoch in range(16)]
    assert factors.index(max(factors)) == 5  # of 16 as of 75
    (imagenet,) = experiments()["imagenet"].only(["imagenet_resnet_18"], ["bn"]).points
    short_rates = [
        learning_rate_factor(SCALES["short"].apply(imagenet), step, 90) for step in range(16 * 90)
    ]
    drops = [step / 90 for step in range(200, 16 * 90) if short_rates[step] < short_rates[step - 1]]
    assert drops == pytest.approx([30 * 16 / 90, 60 * 16 / 90, 80 * 16 / 90])  # the same shares


@pytest.mark.parametrize(
    ("name", "paper", "short"),
    [("depth", 5, 3), ("lr", 5, 3), ("imagenet", 3, 3), ("frozen-bn-imagenet", 3, 3),
     ("report", 1, 1)],
)  # fmt: skip
def test_what_is_run_is_what_the_page_wants(tmp_path, name, paper, short):
    """Seeds a point; a shorter recipe never has more. What is there with one seed less is named."""
    experiment = experiments()[name]
    experiment = replace(experiment, points=experiment.points[:2])
    for scale, count in (("paper", paper), ("short", short), ("smoke", 1)):
        found = experiment.at(SCALES[scale])
        assert [spec.seed for spec in found] == [seed for seed in range(count) for _ in range(2)]
        assert experiment.at(SCALES[scale], replicates=7)[-1].seed == 6
    for spec in experiment.at(SCALES["short"])[:-1]:
        write_point(tmp_path, spec, 0.4)
    (view,) = views(experiment, list_runs(tmp_path))
    told = [line for line in missing(view) if "Not measured" not in line]
    assert len(told) == 1
    assert ("Fewer than 3 seeds" in told[0]) is (short == 3)
    write_point(tmp_path, experiment.at(SCALES["short"])[-1], 0.4)
    (view,) = views(experiment, list_runs(tmp_path))
    assert [line for line in missing(view) if "Not measured" not in line] == []


def test_networks_and_subsets_are_chosen_by_name():
    depth = experiments()["depth"]
    some = depth.only(["cifar_resnet_56_16"], ["output+bn", "all"])
    assert [(p.model, p.trainable) for p in some.points] == [
        ("cifar_resnet_56", "all"), ("cifar_resnet_56", "bn+output")
    ]  # fmt: skip
    with pytest.raises(InputError, match=r"depth has no 'cifar_resnet_20'.*cifar_resnet_"):
        depth.only(["cifar_resnet_20"])
    with pytest.raises(InputError, match="depth has no 'gamma'"):
        depth.only(subsets=["gamma"])
    deep = depth.only(["cifar_resnet_866"], ["bn"])
    mixed = replace(deep, points=(*deep.points, *depth.only(["cifar_resnet_14"], ["all"]).points))
    with pytest.raises(InputError, match="depth has no point with all on cifar_resnet_866"):
        mixed.only(["cifar_resnet_866"], ["all"])
    with pytest.raises(InputError, match="unknown scale 'papr': did you mean paper"):
        choose_scale("papr")


def test_points_are_filled_in_from_a_store(tmp_path):
    depth = experiments()["depth"].only(["cifar_resnet_14"], ["bn", "all"])
    bn, everything = depth.points[0], depth.points[1]
    short = SCALES["short"]
    for seed, accuracy in ((0, 0.40), (7, 0.50)):  # 7 is no seed of the experiment: it counts
        write_run(tmp_path, short.apply(bn).replace(seed=seed, precision="bf16"), accuracy)
    write_run(tmp_path, short.apply(everything).replace(precision="bf16"), None)
    write_run(tmp_path, short.apply(bn).replace(precision="bf16", lr=0.3), 0.9)
    runs = list_runs(tmp_path)
    view = collect(depth, runs, short, "bf16")
    assert [point.spec.trainable for point in view.points] == ["bn", "all", "bn"]
    first, second, alternate = view.points
    assert first.accuracy == Spread(0.45, 0.40, 0.50, 2)
    assert first.published == pytest.approx(0.481)
    assert first.difference == pytest.approx(0.45 - 0.481)
    assert first.trained == 1120
    assert (second.accuracy, second.unfinished, second.published) == (None, 1, 0.905)
    assert alternate.spec.norm_init == "ones_ones"
    assert alternate.runs == ()
    assert [(v.scale.name, v.precision, v.data) for v in views(depth, runs)] == [
        ("short", "bf16", "cifar10")
    ]
    rows = table(view.points)
    assert rows[0]["n"] == 2
    assert rows[2]["norm_init"] == "ones_ones"


def test_a_stand_in_for_the_data_has_no_published_number(tmp_path):
    depth = experiments()["depth"].only(["cifar_resnet_14"], ["bn"])
    spec = SCALES["short"].apply(depth.points[0]).replace(data="digits")
    write_run(tmp_path, spec, 0.8)
    (view,) = views(depth, list_runs(tmp_path))
    assert view.data == "digits"
    assert view.points[0].accuracy is not None
    assert view.points[0].published is None


def test_the_settings_of_the_report_have_its_numbers(tmp_path):
    experiment = experiments()["report"]
    assert len(experiment.points) == 28  # 21 settings of 24 runs, and 7 as intended
    smoke = experiment.at(SCALES["smoke"])
    assert {spec.epochs for spec in smoke} == {1}
    view = collect(experiment, [], SCALES["paper"], "fp32")
    by = {
        (p.spec.trainable, p.spec.optimizer, p.spec.schedule, p.spec.batch_size, p.spec.subsample):
        p.published for p in view.points
    }  # fmt: skip
    assert by["bn", "adam", "constant", 256, None] == pytest.approx(0.4894)
    assert by["bn", "adam", "constant", 1024, None] == pytest.approx((0.4367 + 0.4255) / 2)
    assert by["all", "sgd", "constant", 1024, None] == pytest.approx((0.4380 + 0.4515 + 0.4500) / 3)
    assert by["bn", "sgd", "cosine_restarts", 128, 10_000] == pytest.approx(0.2795)
    assert None in {point.published for point in view.points}  # what was only intended


def test_points_that_become_one_run_make_one_point_without_a_published_number(tmp_path):
    experiment, smoke = experiments()["report"], SCALES["smoke"]
    whole = collect(experiment, [], SCALES["paper"], "fp32")
    assert len({point.spec.id for point in whole.points}) == len(whole.points) == 28
    view = collect(experiment, [], smoke, "fp32")
    specs = [point.spec for point in view.points]
    assert len(set(specs)) == len(specs) < 28
    for point in view.points:
        own = [
            each for each in experiment.points if recipe(smoke.apply(each), "fp32") == point.spec
        ]
        assert point.published == (report_accuracy(own[0]) if len(own) == 1 else None)
    assert None in {point.published for point in view.points if point.spec.optimizer == "adam"}
