"""Every published number of a view has a source line, and no line tells of what is not shown."""

import re

import pytest
from stores import write_point, write_probe
from test_answers import run, view_of
from test_figures_measured import activity_probe, clamp_probe

from gammabeta import RunSpec
from gammabeta.paper import SCALES, experiments
from gammabeta.paper.points import views
from gammabeta.report.answers import answer
from gammabeta.report.origins import published_sources, quotes
from gammabeta.report.settings import setting
from gammabeta.store import list_runs

MAIN = "main figure"
NOTHING = "nothing that could be read was published for these points: ours stand alone"
# What an answer may quote, as it reads there, and what its source line must name. "3 times" is
# the quotient of two of them.
QUOTED = {
    "27 % and 9 %": "third party",
    "0.5 to 2 points on CIFAR-10": "introduction of version 3",
    " 2 points on ImageNet": "introduction of version 3",
    "about a third of the random features": "abstracts of versions 2 and 3; version 1 says",
    "a gamma below 0.01 in size": "third parties",
}


@pytest.fixture(scope="module", params=["paper", "short"])
def store(request, tmp_path_factory):
    """All that the answers that quote need, at one scale."""
    root = tmp_path_factory.mktemp(request.param)
    scale = SCALES[request.param]
    for subset, accuracy in (("bn", 0.48), ("all", 0.9), ("all-bn", 0.89)):
        spec = scale.apply(RunSpec(trainable=subset))
        folder = write_point(root, spec, accuracy, gammas=(0.0, 0.5))
        write_probe(folder, "activity", activity_probe((200, 199, 0, 0)), 10_000)
        write_probe(folder, "clamp", clamp_probe([0.5, 0.5, 0.2], [[0.5], [0.1], [0.1]]), 10_000)
    freezing = experiments()["frozen-bn-imagenet"].only(["imagenet_resnet_18"])
    for spec, accuracy in zip(freezing.points, (0.70, 0.69), strict=True):
        made = {"num_classes": 1000, "train": 1_281_167}
        write_point(root, scale.apply(spec), accuracy, **made)
    return list_runs(root)


def told(store, name):
    """The answer of the one view, and its sources as one text."""
    (view,) = views(experiments()[name], store)
    return view, *(text.replace("\u202f", " ") for text in
                   (answer(view) or "", "\n".join(published_sources(view))))  # fmt: skip


# Experiments of other networks, data or none, of which these runs are no part
UNTOUCHED = {"networks", "vgg", "curves", "cifar100", "report"}


def test_which_experiments_these_runs_are_part_of(store):
    assert {name for name, each in experiments().items() if not views(each, store)} == UNTOUCHED


@pytest.mark.parametrize("name", [each for each in experiments() if each not in UNTOUCHED])
def test_every_published_number_of_an_answer_has_its_source(store, name):
    _, text, sources = told(store, name)
    for number, origin in QUOTED.items():
        if number in text:
            (line,) = [each for each in sources.splitlines() if number.strip() in each]
            assert origin in line
    # and nothing else is quoted
    rest = text.partition(" Published")[2]
    for number in QUOTED:
        rest = rest.replace(number, "")
    assert re.findall(r"\d[\d.]*", rest.replace("3 times", "")) == []
    assert sources == NOTHING or sources.startswith("Training BatchNorm and Only BatchNorm")


@pytest.mark.parametrize(
    ("name", "count"),
    [("gammas", 2), ("activity", 1), ("frozen-bn", 1), ("frozen-bn-imagenet", 1), ("clamp", 0)],
)
def test_what_is_quoted_and_shown_and_nothing_else_has_a_source(store, name, count):
    view, text, sources = told(store, name)
    assert len(quotes(view)) == count
    assert (" Published" in text) is (count > 0)
    assert (sources == NOTHING) is (count == 0)
    # accuracies of the main figure stand in the table of frozen-bn alone
    assert (MAIN in sources) is (name == "frozen-bn")
    assert ("no target for these" in " ".join(setting(view))) is (
        view.scale.name == "short" and count > 0
    )
    assert text.count("no target") == (view.scale.name == "short" and count > 0)


def test_features_that_are_off_are_not_those_that_the_abstract_calls_disabled(store):
    _, text, _ = told(store, "activity")
    assert text.endswith(
        "that about a third of the random features are disabled, which is another measure: "
        "disabled, as third parties tell, is a gamma below 0.01 in size, not a ReLU that is off."
    )


def test_a_source_of_some_points_says_in_what_they_differ(tmp_path):
    """The same networks under bn, from another start, have another source."""
    view = view_of(tmp_path, "depth", [run("bn", 0.44)], scale="paper")
    main, hidden, alternate = published_sources(view)
    assert MAIN in main
    assert hidden.startswith("ResNet-866 under bn: the abstract")
    assert alternate.startswith("ResNet-14, ResNet-32, ResNet-56, ")
    assert "ResNet-866 under bn, norm init ones_ones: the line" in alternate
    (view,) = views(experiments()["norm-init"], list_runs(tmp_path))
    assert not any("under bn:" in line for line in published_sources(view))


def test_no_source_where_nothing_can_stand_beside(tmp_path):
    view = view_of(tmp_path, "gammas", [run("bn", 0.44)], gammas=(0.0, 0.5), data="digits")
    assert published_sources(view) == [NOTHING]
    freezing = experiments()["frozen-bn-imagenet"].only(["imagenet_resnet_18"])
    for spec in freezing.points:
        write_point(tmp_path, spec, 0.7, num_classes=10, train=9469)
    (view,) = views(freezing, list_runs(tmp_path))
    assert published_sources(view) == [NOTHING]
    assert "Published" not in answer(view)


@pytest.mark.parametrize(("size", "count"), [(224, 1), (64, 0)])
def test_what_was_published_of_other_sizes_is_not_quoted(tmp_path, size, count):
    """ImageNet itself, the full recipe, but for the size of its images."""
    freezing = experiments()["frozen-bn-imagenet"].only(["imagenet_resnet_18"])
    for spec, accuracy in zip(freezing.points, (0.70, 0.69), strict=True):
        made = {"num_classes": 1000, "train": 1_281_167}
        write_point(tmp_path, spec.replace(image_size=size), accuracy, **made)
    (view,) = views(freezing, list_runs(tmp_path))
    assert view.image_size == (None if size == 224 else size)
    assert len(quotes(view)) == count
    assert ("Published" in answer(view)) is bool(count)
