"""Quantile bands, off-share histograms and shares over networks, against twins that count one by
one; and probes of different numbers of images, which are never in one mean."""

import dataclasses
import math

import numpy as np
import pytest
from few import few_images
from probed import all_images, by_hand, trained
from stores import write_point, write_probe
from test_figures_measured import activity_probe, clamp_probe

from gammabeta import RunSpec
from gammabeta.figures import NARROW, WIDE, drawings
from gammabeta.figures.distributions import off_parts
from gammabeta.figures.measured import (
    clamped,
    feature_shares,
    off_shares,
    quantile_bands,
    quiet,
    small_shares,
)
from gammabeta.paper import SCALES, experiments
from gammabeta.paper.points import collect, views
from gammabeta.probe import analyze
from gammabeta.report.answers import answer
from gammabeta.report.captions import told_images
from gammabeta.report.settings import caption, measured_columns
from gammabeta.store import list_runs


def view_of(store, name):
    (view,) = views(experiments()[name], list_runs(store))
    return view


def quantile(values, share):
    """The value below which `share` of them lie, on the line between two neighbours."""
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


@pytest.fixture(scope="module")
def probed_runs(tmp_path_factory):
    """Two small trained runs with probes, made a view of `gammas` and of `activity`."""
    root = tmp_path_factory.mktemp("runs")
    runs = [trained(root, seed=seed) for seed in (0, 1)]
    for run in runs:
        with pytest.MonkeyPatch.context() as patch:
            few_images(patch)
            analyze(run, ["gammas", "activity"], device="cpu")
    return runs


def own_view(runs, name):
    """The experiment with one point: that of these runs."""
    spec = runs[0].spec.replace(seed=0)
    experiment = dataclasses.replace(experiments()[name], points=(spec,))
    return collect(experiment, [run.folder for run in runs], SCALES["paper"], "fp32")


@pytest.mark.parametrize(("kind", "key"), [("gamma", "weight"), ("beta", "bias")])
def test_bands_against_a_twin(probed_runs, kind, key):
    (point,) = own_view(probed_runs, "gammas").points
    bands = quantile_bands(point, kind)
    assert bands.n == 2
    networks = [run.network() for run in probed_runs]
    layers = [name for name, each in networks[0].named_modules() if "BatchNorm" in str(type(each))]
    assert bands.values.shape == (5, len(layers))
    for place, layer in enumerate(layers):
        values = [
            value
            for net in networks
            for value in getattr(net.get_submodule(layer), key).detach().tolist()
        ]
        for row, share in enumerate((0.05, 0.25, 0.5, 0.75, 0.95)):
            expected = quantile(values, share)
            assert bands.values[row, place] == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_without_a_probe_bands_come_from_the_checkpoint(probed_runs, tmp_path):
    run = trained(tmp_path)
    (bare,) = own_view([run], "gammas").points
    (measured,) = own_view(probed_runs[:1], "gammas").points  # the same spec and seed
    for kind in ("gamma", "beta"):
        assert np.allclose(quantile_bands(bare, kind).values, quantile_bands(measured, kind).values,
                           rtol=1e-4, atol=1e-6)  # fmt: skip


def test_off_shares_against_a_twin(probed_runs, monkeypatch):
    few_images(monkeypatch)
    (point,) = own_view(probed_runs, "activity").points
    found = off_shares(point)
    expected, mostly = [], []
    for run in probed_runs:
        relus = by_hand(run.network(), all_images(run)[0])[0]
        own = [float((c == 0).float().mean()) for out in relus.values() for c in out.unbind(1)]
        expected += own
        mostly.append(sum(each > 0.99 for each in own) / len(own))
    assert found.n == 2
    assert found.values.tolist() == pytest.approx(expected, abs=1e-6)
    spread = feature_shares(point)
    assert (spread.low, spread.high, spread.n) == (min(mostly), max(mostly), 2)


def test_parts_of_a_histogram_against_a_twin():
    # every share of 7 x 20 inputs, so that all edges are met
    shares = [off / 140 for off in range(141)] + [1.0, 0.0, 0.15, 3 / 20, 0.35]
    expected = [0] * 20
    for share in shares:
        off = round(share * 140)  # whole numbers: off / 140 is in bin k where 7k <= off < 7k + 7
        expected[min(off // 7, 19)] += 1
    assert off_parts(np.array(shares)).tolist() == [each / len(shares) for each in expected]
    assert off_parts(np.array([])).tolist() == [0] * 20


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_bn_and_all_stand_beside_each_other_on_one_scale(tmp_path, width):
    write_point(tmp_path, RunSpec(), 0.48, gammas=(-1.0, 0.0, 4.0))
    write_point(tmp_path, RunSpec(trainable="all"), 0.9, gammas=(0.5, 0.0, 1.0))
    view = view_of(tmp_path, "gammas")
    found = {drawing.key: drawing for drawing in drawings(view)}
    assert list(found) == ["", "small", "layers", "bands"]  # no betas are known
    figure = found["bands"].draw(width)
    left, right = figure.axes
    assert (left.get_title(loc="left"), right.get_title(loc="left")) == (
        "gamma, bn (n = 1)", "gamma, all (n = 1)",
    )  # fmt: skip
    assert left.get_ylim() == right.get_ylim()
    medians = [axes.lines[1].get_ydata().tolist() for axes in (left, right)]
    assert medians == [[0.0], [0.5]]
    places = [axes.get_position() for axes in (left, right)]
    assert (places[0].x0 == places[1].x0) == (width == NARROW)
    text = caption(view, "bands")
    assert "median" in text
    assert "5 to 95 %" in text


def test_shares_over_networks_are_drawn_where_there_are_two(tmp_path):
    deep = RunSpec(model="cifar_resnet_32")
    for spec, gammas in ((RunSpec(), (0.0, 1.0)), (RunSpec(seed=1), (0.5, 1.0)),
                         (deep, (0.0, 0.001, 0.5, 2.0))):  # fmt: skip
        run = write_point(tmp_path, spec, 0.48, gammas=gammas)
        write_probe(run, "activity", activity_probe((200, 0, 0, 0), (0, 0, 0, 200)))
    view = view_of(tmp_path, "gammas")
    assert small_shares(view.done[0]).mean == 0.25
    (drawing,) = (each for each in drawings(view) if each.key == "depth")
    (line,) = drawing.draw(WIDE).axes[0].lines
    assert line.get_ydata().tolist() == [0.25, 0.5]
    axes = drawing.draw(WIDE).axes[0]
    assert [text.get_text() for text in axes.get_xticklabels()] == ["14", "32"]
    assert "whiskers" in caption(view, "depth")
    keys = [drawing.key for drawing in drawings(view_of(tmp_path, "activity"))]
    assert keys == ["", "histogram", "cifar_resnet_32", "cifar_resnet_32-histogram", "depth"]
    assert "bins of 5 %" in caption(view_of(tmp_path, "activity"), keys[3])


def test_runs_that_saw_other_images_are_told_apart(tmp_path):
    """Three seeds of bn, one of them measured on few images; one of all, on other ones."""
    for seed, images in ((0, 500), (1, 10_000), (2, 10_000)):
        run = write_point(tmp_path, RunSpec(seed=seed), 0.48)
        accuracy = 0.1 if images == 500 else 0.5
        clamp = clamp_probe([accuracy] * 3, [[0.5], [0.1], [0.1]])
        write_probe(run, "clamp", clamp, images)
        off = (200,) * 4 if images == 500 else (0,) * 4
        write_probe(run, "activity", activity_probe(off), images)
    run = write_point(tmp_path, RunSpec(trainable="all"), 0.9)
    clamp = clamp_probe([0.9] * 3, [[0.5], [0.1], [0.1]])
    write_probe(run, "clamp", clamp, 1000)
    write_probe(run, "activity", activity_probe((0,) * 4), 1000)

    view = view_of(tmp_path, "clamp")
    bn, everything = view.done
    assert clamped(bn)[1:6] == pytest.approx((0.5, 0.5, 0.1, 10_000, 2))
    assert dict(measured_columns(view))["Test images"] == {
        bn.spec.id: "10,000", everything.spec.id: "1,000",
    }  # fmt: skip
    assert told_images(view) == [
        "Measured on different numbers of test images: 1,000 (ResNet-14 under all), 10,000 "
        "(ResNet-14 under bn).",
        "Left out: 1 run of ResNet-14 under bn measured on 500.",
    ]
    lines = {line.get_label() for line in drawings(view)[0].draw(WIDE).axes[0].lines}
    assert "bn, small gammas (n = 2)" in lines

    view = view_of(tmp_path, "activity")
    assert quiet(view.done[0]) == (0.0, 0.0, 10_000, 2)
    assert "(n = 2, on 10,000 test images)" in answer(view)
    assert "(n = 1, on 1,000 test images)" in answer(view)
