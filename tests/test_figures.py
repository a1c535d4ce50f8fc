"""Figures of experiments: what stands at which place, and the files that are written of them."""

import itertools
import json
import re

import numpy as np
import pytest
from drawn import check_told
from stores import write_point

from gammabeta import RunSpec
from gammabeta.errors import RunError
from gammabeta.figures import NARROW, WIDE, drawings, figure_for, svg_text, write, write_figures
from gammabeta.figures.house import NAME_GAP, PUBLISHED, apart
from gammabeta.figures.looks import dashes, styles
from gammabeta.figures.series import batchnorm_values, series
from gammabeta.paper import SCALES, experiments
from gammabeta.paper.networks import model_row
from gammabeta.paper.points import collect, views
from gammabeta.store import list_runs


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """The published recipe: bn on two depths and one width, all once, three random amounts."""
    root = tmp_path_factory.mktemp("runs")
    spec = RunSpec()
    for seed, accuracy in enumerate((0.46, 0.48, 0.50)):
        write_point(root, spec.replace(seed=seed), accuracy, gammas=(0.0, 0.5))
    write_point(root, spec.replace(model="cifar_resnet_56"), 0.63, trained=4256)
    write_point(root, spec.replace(model="cifar_resnet_14_32"), 0.53, trained=2240)
    write_point(root, spec.replace(trainable="all"), 0.9, trained=175_258, gammas=(0.5, 0.6))
    for amount, accuracy in ((1, 0.2), (4, 0.3), (64, 0.6)):
        subset = spec.replace(trainable=f"random:{amount}")
        write_point(root, subset, accuracy, trained=560 * amount)
    write_point(root, spec.replace(norm_init="ones"), 0.5)
    write_point(root, spec.replace(lr=0.3), 0.4)
    write_point(root, spec.replace(model="cifar_resnet_110"), 0.69, trained=8288)
    return root


def view_of(store, name):
    (view,) = views(experiments()[name], list_runs(store))
    return view


def lines_of(figure):
    """label -> (x, y) of the lines that have points."""
    found = {}
    for line in figure.axes[0].lines:
        x, y = (np.asarray(each, dtype=float) for each in line.get_data())
        if len(x) > 1 or line.get_marker() not in ("None", ""):
            found.setdefault(line.get_label(), (x, y))
    return found


def grey(figure):
    """The published lines, as (x, y), to four digits."""
    return [
        tuple([round(float(each), 4) for each in values] for values in line.get_data())
        for line in figure.axes[0].lines
        if line.get_color() == PUBLISHED and len(line.get_xdata())
    ]


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_depth_is_a_line_over_networks_beside_the_published_one(store, width):
    figure = figure_for(view_of(store, "depth"), width)
    x, y = lines_of(figure)["bn (n = 1 to 3)"]
    assert list(x) == [0, 1, 2, 3, 4, 5, 6]
    assert y[0] == pytest.approx(0.48)
    assert list(np.isnan(y)) == [False, True, False, False, True, True, True]
    ticks = [text.get_text() for text in figure.axes[0].get_xticklabels()]
    assert ticks == ["14", "32", "56", "110", "218", "434", "866"]
    assert figure.axes[0].get_xlabel() == "depth of the ResNet"
    published = [points for points in grey(figure) if points[1][0] == pytest.approx(0.481)]
    assert published[0][0] == [0, 1, 2, 3, 4, 5, 6]
    assert figure.axes[0].get_ylim() == (0, 1)
    (band, *_) = figure.axes[0].collections
    assert band.get_paths()[0].get_extents().ymin == pytest.approx(0.46)


def test_width_is_told_in_multiples(store):
    figure = figure_for(view_of(store, "width"))
    ticks = [text.get_text() for text in figure.axes[0].get_xticklabels()]
    assert ticks == [f"\N{MULTIPLICATION SIGN}{times}" for times in (1, 2, 4, 8, 16, 32)]


def test_count_sets_deep_against_wide(store):
    view = view_of(store, "count")
    figure = figure_for(view)
    lines = lines_of(figure)
    deeper, wider = lines["deeper (n = 1 to 3)"], lines["wider (n = 1 to 3)"]
    known = ~np.isnan(deeper[1])
    assert list(deeper[0][known]) == [1120, 4256, 8288]
    assert list(wider[0][~np.isnan(wider[1])]) == [1120, 2240]
    assert grey(figure)[0][0][-1] == 64_736  # of ResNet-866, which nobody has run here
    assert figure.axes[0].get_xscale() == "log"


@pytest.mark.parametrize("model", ["cifar_resnet_14", "cifar_resnet_32", "cifar_resnet_14_64"])
def test_batchnorm_values_are_those_of_the_network(model):
    assert batchnorm_values(model) == model_row(model)["bn"]
    assert batchnorm_values("cifar_vgg_11") is None


def test_random_weights_are_held_against_a_level(store):
    figure = figure_for(view_of(store, "random"))
    lines = lines_of(figure)
    x, y = lines["ResNet-14 (n = 1)"]
    known = ~np.isnan(y)
    assert (list(x[known]), list(y[known])) == ([560, 2240, 35_840], [0.2, 0.3, 0.6])
    assert set(lines["bn on ResNet-14 (n = 3)"][1]) == {0.48}
    assert [points[1] for points in grey(figure)] == [[0.481] * 2, [0.629] * 2]  # no 32


def test_starts_are_points_that_no_line_joins(store):
    figure = figure_for(view_of(store, "norm-init"))
    (line,) = (line for line in figure.axes[0].lines if "ResNet-14 " in line.get_label())
    assert line.get_linestyle() == "None"
    assert list(np.isnan(line.get_ydata())) == [False, False, True, True]
    ticks = [text.get_text() for text in figure.axes[0].get_xticklabels()]
    assert ticks[1].startswith("ones\n1, 0")


def test_rates_and_epochs(store):
    rates = lines_of(figure_for(view_of(store, "lr")))["bn (n = 1 to 3)"]
    assert [x for x, y in zip(*rates, strict=True) if not np.isnan(y)] == [0.1, 0.3]
    figure = figure_for(view_of(store, "curves"))
    x, y = lines_of(figure)["bn (n = 1)"]
    assert list(x) == [1, 20, 80, 160]
    assert y[-1] == pytest.approx(0.69)
    assert ([5, 20, 40, 82, 100, 122, 158], [0.49, 0.57, 0.61, 0.678, 0.689, 0.694, 0.695]) in grey(
        figure
    )


def test_gammas_are_drawn_from_the_checkpoints(store):
    found = drawings(view_of(store, "gammas"))
    assert [drawing.key for drawing in found] == ["", "small", "layers", "bands"]
    line = lines_of(found[1].draw(WIDE))["bn (n = 3)"]
    assert line[1][0] == 0.5  # one of two gammas is zero


@pytest.mark.parametrize("width", [WIDE, NARROW])
@pytest.mark.parametrize("name", ["depth", "random", "count", "norm-init", "lr", "curves"])
def test_a_figure_tells_all_that_is_drawn_in_it(store, name, width):
    for drawing in drawings(view_of(store, name)):
        check_told(drawing.draw(width))


def test_nothing_is_drawn_of_nothing(store):
    empty = collect(experiments()["vgg"], list_runs(store), SCALES["paper"], "fp32")
    assert figure_for(empty) is None
    assert drawings(empty) == []


def test_lines_of_an_experiment_look_different(store):
    for name in ("depth", "width"):
        names = list(series(view_of(store, name)))
        looks = styles(names)
        assert len(set(looks.values())) == len(names) == 10
        assert len({(look.color, look.marker) for look in looks.values()}) == 10


def test_files_are_written_with_the_numbers_behind_them(store, tmp_path, monkeypatch):
    view = view_of(store, "depth")
    folder = tmp_path / "new" / "figures"
    files = write_figures(view, folder)
    assert [file.name for file in files] == ["depth.json", "depth.svg", "depth.pdf"]
    assert (folder / "depth.pdf").read_bytes().startswith(b"%PDF")
    assert "bn (n = 1 to 3)" in (folder / "depth.svg").read_text()
    told = json.loads((folder / "depth.json").read_text())
    assert told["points"][0]["mean"] == pytest.approx(0.48)
    assert told["points"][0]["published"] == pytest.approx(0.481)
    (figure,) = told["figures"]
    assert (figure["file"], figure["x"], figure["y"]) == (
        "depth", "depth of the ResNet", "test accuracy"
    )  # fmt: skip
    assert figure["names"] == ["14", "32", "56", "110", "218", "434", "866"]
    bn = {each["published"]: each for each in figure["series"] if each["label"] == "bn"}
    assert bn[False]["x"] == [0, 1, 2, 3, 4, 5, 6]
    assert bn[False]["y"] == [pytest.approx(0.48), None, 0.63, 0.69, None, None, None]
    assert (bn[False]["low"][0], bn[False]["high"][0]) == (0.46, 0.5)
    assert bn[False]["n"] == [3, 0, 1, 1, 0, 0, 0]
    assert bn[True]["y"][0] == pytest.approx(0.481)
    assert max(map(len, (folder / "depth.json").read_text().split("\n"))) < 200
    before = [file.read_bytes() for file in files]
    assert [file.read_bytes() for file in write_figures(view, folder)] == before
    monkeypatch.setattr(write, "_pdf", lambda figure: b"")  # slow, and those of depth were made
    assert [file.name for file in write_figures(view_of(store, "gammas"), folder)][3::2] == [
        "gammas-small.svg", "gammas-layers.svg", "gammas-bands.svg"
    ]  # fmt: skip


def test_a_figure_that_is_not_as_published_says_so_and_has_a_file_of_its_own(tmp_path):
    source = "Parquet, JPEG"
    spec = RunSpec(epochs=16, precision="bf16")
    write_point(tmp_path / "runs", spec, 0.4, source=source)
    write_point(tmp_path / "runs", RunSpec(), 0.48)
    found = views(experiments()["depth"], list_runs(tmp_path / "runs"))
    written = [file for view in found for file in write_figures(view, tmp_path)]
    assert [file.name for file in written] == [
        "depth.json", "depth.svg", "depth.pdf",
        "depth-short-bf16.json", "depth-short-bf16.svg", "depth-short-bf16.pdf",
    ]  # fmt: skip
    assert "16 epochs instead of 160, bf16, JPEG" in written[4].read_text()
    assert "instead of" not in written[1].read_text()


def test_a_folder_that_cannot_be_made_is_one_line(store, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"could not write .*file"):
        write_figures(view_of(store, "depth"), tmp_path / "file" / "figures")


@pytest.mark.parametrize(("name", "count"), [("depth", 6), ("random", 2), ("curves", 3)])
def test_published_lines_have_dashes_of_their_own_and_a_name_at_their_end(store, name, count):
    figure = figure_for(view_of(store, name))
    told = {f"bn on {each.label}" if each.x is None and "bn on" not in each.label else each.label:
            each for each in figure.series if each.published}  # fmt: skip
    strokes = re.findall(rf'style="fill: none;([^"]*stroke: {PUBLISHED}[^"]*)"', svg_text(figure))
    lines = {stroke for stroke in strokes if "stroke-width: 0.5" not in stroke}  # no leader
    assert len(lines) == len(told) == count
    names = {text.get_text(): text for text in figure.axes[0].texts}
    assert set(names) == set(told)
    for label, text in names.items():
        assert text.xy[1] == told[label].y[-1]
        assert told[label].x is None or 0 <= text.xy[0] - told[label].x[-1] <= 2  # epoch 158
    places = {label: text.xyann[1] for label, text in names.items()}
    for label, place in places.items():  # none is nearer to its line but those it makes room for
        assert abs(place - told[label].y[-1]) < 2 * NAME_GAP
        assert (place == told[label].y[-1]) or names[label].arrow_patch is not None
    order = sorted(places, key=places.get)
    assert order == sorted(told, key=lambda label: told[label].y[-1])
    steps = [places[high] - places[low] for low, high in itertools.pairwise(order)]
    assert min(steps) > NAME_GAP - 1e-9


def test_names_move_apart_as_little_as_can_be():
    assert apart([0.2, 0.5], 0.1) == [0.2, 0.5]
    assert apart([0.5, 0.5], 0.1) == pytest.approx([0.45, 0.55])
    assert apart([0.0, 0.0, 1.0], 0.1) == pytest.approx([0.0, 0.1, 1.0])
    assert apart([1.0, 1.0], 0.1) == pytest.approx([0.9, 1.0])
    draw = np.random.default_rng(0)
    for _ in range(20):
        values = np.sort(draw.random(6))
        found = np.array(apart(list(values), 0.1))
        assert np.diff(found).min() > 0.1 - 1e-9
        assert found.min() > -1e-9
        assert found.max() < 1 + 1e-9
        best = ((found - values) ** 2).sum()
        other = np.cumsum(draw.random((5000, 6)) * 0.02, axis=1)  # places as far apart, at random
        other += found[:1] - 0.03 + 0.1 * np.arange(6)
        fair = (other[:, 0] >= 0) & (other[:, -1] <= 1)
        assert (((other - values) ** 2).sum(axis=1)[fair] > best - 1e-9).all()
        near = found + 1e-3 * draw.standard_normal((5000, 6))  # and those nearby that may stand
        fair = (
            (np.diff(near).min(axis=1) >= 0.1) & (near.min(axis=1) >= 0) & (near.max(axis=1) <= 1)
        )
        assert (((near - values) ** 2).sum(axis=1)[fair] > best - 1e-9).all()


def test_two_published_lines_of_one_look_differ():
    subsets = ["output+shortcut", "bn, norm init ones_ones", "bn", "random:2"]
    look = styles(subsets)
    assert look[subsets[0]].line == look[subsets[1]].line
    found = dashes(look)
    assert len(set(found.values())) == 4
    assert found["bn"] == look["bn"].line


def test_published_curves_are_told_apart(store):
    figure = figure_for(view_of(store, "curves"))
    lines = [line for line in figure.axes[0].lines
             if line.get_color() == PUBLISHED and len(line.get_xdata())]  # fmt: skip
    assert len({line.get_linestyle() for line in lines}) == len(lines) == 3
    names = {text.get_text(): text.xy[1] for text in figure.axes[0].texts}
    assert names == pytest.approx({"bn": 0.695, "bn+output+shortcut": 0.748, "all": 0.934})
    ours = next(line for line in figure.axes[0].lines if line.get_label() == "bn (n = 1)")
    assert ours.get_linestyle() in {line.get_linestyle() for line in lines}
    narrow = figure_for(view_of(store, "curves"), NARROW)  # no room for names: only beside ours
    assert len(grey(narrow)) == 1
    assert not narrow.axes[0].texts
