"""Figures, sentences and columns of what was measured on finished runs, from probe files."""

import json

import numpy as np
import pytest
from drawn import check_told
from stores import write_point, write_probe

from gammabeta import RunSpec
from gammabeta.analysis import Spread
from gammabeta.figures import NARROW, WIDE, drawings, write, write_figures
from gammabeta.figures.distributions import band_figure
from gammabeta.figures.lines import Line, over_names
from gammabeta.figures.looks import styles
from gammabeta.figures.measured import Bands, clamped, pools_by_network, quiet
from gammabeta.figures.probes import layer_figure
from gammabeta.paper import experiments
from gammabeta.paper.points import views
from gammabeta.report.answers import answer
from gammabeta.report.settings import caption, measured_columns, measured_values, missing, setting
from gammabeta.store import list_runs

THRESHOLDS = [0.0, 0.01, 0.1]


def clamp_probe(accuracies, random):
    points = [
        {"threshold": t, "share": share, "test_accuracy": accuracy, "random": row}
        for t, share, accuracy, row in zip(
            THRESHOLDS, (0.0, 0.25, 0.5), accuracies, random, strict=True
        )
    ]
    return {"points": points}


def activity_probe(*off):
    """Two ReLUs of four features, each looked at 200 times."""
    layers = [
        {"name": f"relu{n}", "inputs": 200, "off": list(counts), "low": [0.0] * 4,
         "high": [1.0] * 4, "mostly_off": sum(each > 198 for each in counts),
         "dead": sum(each == 200 for each in counts), "constant": 0}
        for n, counts in enumerate(off)
    ]  # fmt: skip
    return {"layers": layers}


def gammas_probe(first, second, beta):
    layers = [
        {"name": "bn", "gamma": {"values": first}, "beta": {"values": beta}},
        {"name": "blocks.0.bn1", "gamma": {"values": second}, "beta": None},
    ]
    return {"layers": layers, "asked": {"thresholds": [0.01]}, "shares": [0.5]}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Two seeds of bn, one of all, with probes; the gammas of `all` only in its checkpoint."""
    root = tmp_path_factory.mktemp("runs")
    for seed, shift in ((0, 0.0), (1, 0.02)):
        run = write_point(root, RunSpec(seed=seed), 0.48, gammas=(1.0,))
        accuracies = [0.5 + shift, 0.49 + shift, 0.2]
        write_probe(
            run, "clamp", clamp_probe(accuracies, [[0.5, 0.5], [0.1, 0.3], [0.1, 0.1]]), 1000
        )
        write_probe(run, "activity", activity_probe((200, 199, 0, 0), (0, 0, 0, 200 * seed)))
        write_probe(run, "gammas", gammas_probe([0.0, 0.5], [0.001, 0.002], [0.3, 0.4]))
    run = write_point(root, RunSpec(trainable="all"), 0.9, trained=175_258, gammas=(0.5, 0.0, 1.0))
    write_probe(
        run, "clamp", clamp_probe([0.9, 0.9, 0.8], [[0.9, 0.9], [0.7, 0.7], [0.5, 0.5]]), 1000
    )
    return root


def view_of(store, name):
    (view,) = views(experiments()[name], list_runs(store))
    return view


def lines_of(figure):
    return {line.get_label(): line.get_ydata() for line in figure.axes[0].lines}


def test_clamping_is_drawn_beside_random_clamping(store):
    (drawing,) = drawings(view_of(store, "clamp"))
    figure = drawing.draw(WIDE)
    lines = lines_of(figure)
    assert list(lines["bn, small gammas (n = 2)"]) == pytest.approx([0.51, 0.5, 0.2])
    assert list(lines["bn, as many random ones (n = 2, 2 draws each)"]) == pytest.approx(
        [0.5, 0.2, 0.1]
    )
    assert list(lines["all, small gammas (n = 1)"]) == pytest.approx([0.9, 0.9, 0.8])
    ticks = [text.get_text() for text in figure.axes[0].get_xticklabels()]
    assert ticks == ["0", "0.01", "0.1"]
    assert "ResNet-14" in drawing.title


def test_the_answer_on_clamping_is_at_the_papers_threshold(store):
    view = view_of(store, "clamp")
    text = answer(view).replace("\u202f", " ")
    assert text.startswith(
        "On ResNet-14 under bn, 25.0 % of gammas are below 0.01; without them accuracy goes from "
        "51.0 % to 50.0 %, without as many random ones to 20.0 % (n = 2, 1,000 test images)."
    )
    bn = view.done[0]
    assert clamped(bn).after == pytest.approx(0.5)
    texts = {name: column[bn.spec.id] for name, column in measured_columns(view)}
    assert texts == {
        "Test images": "1,000",  # "Ours" is of all of them: 48.0
        "Small gammas": "25.0\u202f%",
        "As trained, on these": "51.0\u202f%",
        "Without small gammas": "50.0\u202f%",
        "Without as many random ones": "20.0\u202f%",
    }


@pytest.mark.parametrize(
    ("recorded", "told"),
    [
        ((0.5003, 0.5197), "ResNet-14 under bn: 51.0 % and 51.1 %"),
        ((0.501, 0.521), ""),  # reads the same
        ((0.49, 0.51), ""),  # more than rounding explains
        ((0.4995, None), ""),  # of some images only
        ((0.5003, 0.5197, 0.52), ""),  # the third was not analysed: other means
    ],
)
def test_one_network_tested_twice_may_read_differently(tmp_path, recorded, told):
    """By its run, on whichever engine, and by plain torch, on the same images."""
    for seed, each in enumerate(recorded):
        run = write_point(tmp_path, RunSpec(seed=seed), each or 0.52)
        if seed == 2:
            break
        accuracies = [0.501 + 0.02 * seed, 0.49, 0.2]
        found = clamp_probe(accuracies, [[0.5, 0.5], [0.1, 0.3], [0.1, 0.1]])
        write_probe(run, "clamp", found | {"recorded": each}, 10_000)
    text = " ".join(setting(view_of(tmp_path, "clamp"))).replace("\u202f", " ")
    why = "by the run itself, and once more by plain torch when it was analysed; rounding differs"
    assert (why in text) is bool(told)
    assert told in text
    assert "rounding differs" not in " ".join(setting(view_of(tmp_path, "activity")))


def test_a_gamma_of_zero_leaves_its_beta(store):
    text = caption(view_of(store, "gammas"), "")
    assert "A peak at zero is made of channels of which little more than beta is left" in text
    assert "switched off" not in text


def test_columns_of_activity_are_of_what_they_are_called(store):
    """Of eight features one and two are off on all inputs, one more on 199 of 200; two seeds."""
    view = view_of(store, "activity")
    (spec,) = [point.spec for point in view.done if point.spec.trainable == "bn"]
    assert measured_values(view) == {
        "Mostly off": {spec.id: pytest.approx((2 / 8 + 3 / 8) / 2)},
        "Off on all inputs": {spec.id: pytest.approx((1 / 8 + 2 / 8) / 2)},
    }
    texts = {name: column[spec.id] for name, column in measured_columns(view)}
    assert texts == {"Mostly off": "31.3\u202f%", "Off on all inputs": "18.8\u202f%"}


def test_captions_say_how_many_images_a_probe_saw(store, tmp_path):
    assert "Measured on 1,000 test images." in caption(view_of(store, "clamp"), "")
    assert "Measured on" not in caption(view_of(store, "gammas"), "layers")
    for seed, images in ((0, 500), (1, 10_000)):
        run = write_point(tmp_path, RunSpec(seed=seed), 0.48)
        probe = clamp_probe([0.5, 0.5, 0.2], [[0.5], [0.1], [0.1]])
        write_probe(run, "clamp", probe, images)
    assert caption(view_of(tmp_path, "clamp"), "").endswith(
        "Measured on 10,000 test images. Left out: 1 run of ResNet-14 under bn measured on 500."
    )


def test_captions_say_what_is_drawn_and_what_the_bands_are(store, tmp_path):
    clamp = caption(view_of(store, "clamp"), "")
    assert "was drawn 2 times in each run. Lines are means over n runs, and over the draws" in clamp
    layers = caption(view_of(store, "activity"), "")
    assert "features that are off, that is zero, on more than 99 % of their inputs" in layers
    assert "Lines are means over n runs, bands" in layers
    assert "Lines are means over n runs, bands" in caption(view_of(store, "gammas"), "layers")
    run = write_point(tmp_path, RunSpec(), 0.48, gammas=(1.0,))
    write_probe(run, "clamp", clamp_probe([0.5, 0.5, 0.2], [[0.5] * 3, [0.1] * 3, [0.1] * 3]), 9)
    write_probe(run, "activity", activity_probe((200, 0, 0, 0)), 9)
    clamp = caption(view_of(tmp_path, "clamp"), "")
    assert "drawn 3 times in each run: their line is the mean over the draws, their band" in clamp
    assert "One run of each subset, so no spread between runs is known." in clamp
    assert "means over n runs" not in clamp
    for name, key in (("activity", ""), ("gammas", "layers")):
        alone = caption(view_of(tmp_path, name), key)
        assert "One run of each subset, so no spread is known." in alone
        assert "bands" not in alone


def test_features_that_are_off_are_told_by_layer(store):
    view = view_of(store, "activity")
    drawing, histogram = drawings(view)
    assert histogram.key == "histogram"
    (line,) = drawing.draw(WIDE).axes[0].lines
    assert line.get_label() == "bn (n = 2)"  # of `all` nothing was measured
    assert list(line.get_ydata()) == pytest.approx([0.5, 0.125])
    assert quiet(view.done[0]) == pytest.approx((5 / 16, 3 / 16, 0, 2))
    assert "on ResNet-14 31.3\u202f% under bn (n = 2)" in answer(view)


def test_gammas_come_from_the_probe_or_else_from_the_checkpoint(store):
    view = view_of(store, "gammas")
    pools = {pool.trainable: pool for pool in pools_by_network(view)["cifar_resnet_14"]}
    expected = [0.0, 0.0, 0.001, 0.001, 0.002, 0.002, 0.5, 0.5]
    assert sorted(pools["bn"].values.tolist()) == pytest.approx(expected)
    assert np.array_equal(np.sort(pools["all"].values), np.array([0.0, 0.5, 1.0], "f4"))
    found = {drawing.key: drawing for drawing in drawings(view)}
    assert list(found) == ["", "small", "layers", "bands", "beta", "beta-bands"]
    layers = lines_of(found["layers"].draw(WIDE))
    assert list(layers["bn (n = 2)"]) == [0.5, 1.0]
    assert list(layers["all (n = 1)"]) == pytest.approx([1 / 3])
    assert found["beta"].draw(WIDE).axes[0].get_xlabel() == "beta after training"
    assert "4 under bn" in caption(view, "beta")
    assert "layer by layer" in caption(view, "layers")


@pytest.mark.parametrize("name", ["gammas", "clamp", "activity"])
def test_a_figure_tells_all_that_is_drawn_in_it(store, name):
    for drawing in drawings(view_of(store, name)):
        check_told(drawing.draw(NARROW))


def test_files_hold_what_was_measured(store, tmp_path, monkeypatch):
    monkeypatch.setattr(write, "_pdf", lambda figure: b"")  # slow, and not what this is about
    monkeypatch.setattr(write, "svg_text", lambda figure: "")
    told = {}
    for name in ("gammas", "clamp", "activity"):
        (path, *_) = write_figures(view_of(store, name), tmp_path)
        for figure in json.loads(path.read_text())["figures"]:
            told[figure["file"]] = {each["label"]: each for each in figure["series"]}
    small, random = (
        told["clamp"][f"bn, {kind}"] for kind in ("small gammas", "as many random ones")
    )
    assert small["n"] == 2
    assert small["y"] == pytest.approx([0.51, 0.5, 0.2])
    assert small["high"] == pytest.approx([0.52, 0.51, 0.2])
    assert (random["low"], random["high"]) == ([0.5, 0.1, 0.1], [0.5, 0.3, 0.1])
    assert random["share"] == [0.0, 0.25, 0.5]
    assert random["draws"] == 2
    assert told["activity"]["bn"]["y"] == pytest.approx([0.5, 0.125])
    assert told["activity"]["bn"]["x"] == [1, 2]
    off = told["activity-histogram"]["bn"]
    assert len(off["x"]) == len(off["y"]) + 1 == 21
    assert off["y"][-1] == pytest.approx(5 / 16)  # 200, 199 and 200 of 200
    assert told["gammas-small"]["bn"]["y"][80] == 0.75  # six of eight below 0.01
    assert told["gammas-bands"]["bn"]["y"] == pytest.approx([0.25, 0.0015])
    assert told["gammas-bands"]["bn"]["quantile_75"] == pytest.approx([0.5, 0.002])
    density = told["gammas"]["all"]
    assert np.sum(np.diff(density["x"]) * density["y"]) == pytest.approx(1)


@pytest.mark.parametrize(("highest", "top"), [(0.0, 0.01), (0.051, 0.1), (0.99, 1), (1.0, 1)])
def test_an_axis_of_shares_ends_above_the_highest(highest, top):
    look = styles(["bn"])
    line = Line("bn", look["bn"], (0.0,), (Spread(highest / 2, 0, highest, 2),), (None,))
    by_layer = {"bn": np.array([[0.0], [highest]])}
    for figure in (
        over_names([line], ["14"], "depth", is_accuracy=False),
        layer_figure(by_layer, look, title="", axis=""),
    ):
        assert figure.axes[0].get_ylim() == (0, top)
        ticks = [each.get_text() for each in figure.axes[0].get_yticklabels()]
        assert (ticks[0], ticks[-1]) == ("0 %", f"{100 * top:g} %")
    assert over_names([line], ["14"], "depth").axes[0].get_ylim() == (0, 1)  # as accuracies are


@pytest.mark.parametrize("count", [1, 2, 14, 110, 866])
def test_layers_begin_at_one(count):
    values = np.full((1, count), 0.1)
    bands = {"bn": Bands(np.repeat(values, 5, axis=0), 1)}
    for figure in (
        layer_figure({"bn": values}, styles(["bn"]), title="", axis=""),
        band_figure(bands, styles(["bn"]), name="gamma", axis=""),
    ):
        ticks = figure.axes[0].get_xticks()
        assert ticks[0] == 1
        assert len(ticks) <= 12
        assert ticks[-1] <= count
        first, last = figure.axes[0].get_xlim()
        assert first < 1 <= count < last


def test_what_is_not_measured_yet_is_named(store):
    run = view_of(store, "activity").points[1].runs[0]
    said = f"Not measured yet: activity of {run.id} (gammabeta analyze ID)."
    assert said in missing(view_of(store, "activity"))
    for name in ("clamp", "gammas"):  # all are there, gammas of one in its checkpoint
        assert not any("Not measured" in line for line in missing(view_of(store, name)))


def test_without_probes_there_is_no_answer(store, tmp_path):
    write_point(tmp_path, RunSpec(), 0.48)
    for name in ("clamp", "activity", "gammas"):
        view = view_of(tmp_path, name)
        assert drawings(view) == []
        assert answer(view) is None
