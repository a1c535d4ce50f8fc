"""The chapter on the report and its feature maps, from a trained run to the page; and the networks
beside the paper's table."""

import dataclasses
import json
import re

import numpy as np
import pytest
from few import few_images
from stores import write_point, write_probe
from test_report import Page, plain

import gammabeta
from gammabeta.figures import NARROW, WIDE, drawings, inline_svg, write, write_figures
from gammabeta.figures.maps import maps_figure, mosaic
from gammabeta.paper import SCALES, experiments
from gammabeta.paper.networks import is_rounded, network_rows, printed_value
from gammabeta.paper.points import collect
from gammabeta.paper.report import report_runs
from gammabeta.probe import analyze
from gammabeta.probe.pack import unpack
from gammabeta.probe.read import feature_maps
from gammabeta.report import report_html
from gammabeta.sentences import NOTHING
from gammabeta.store import list_runs

ADAM = {run.name: run.published for run in report_runs()}
CHAPTER = "<h2>What did the report on the paper find, and does it hold?</h2>"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """One step of the report's network on eight images, with its maps."""
    with pytest.MonkeyPatch.context() as patch:
        few_images(patch)
        patch.setenv("GAMMABETA_OFFLINE", "1")
        spec = ADAM["bn-only-adam"].replace(data="synthetic", epochs=1, subsample=8, batch_size=8,
                                            test_subsample=4)  # fmt: skip
        run = gammabeta.train(spec, tmp_path_factory.mktemp("runs"), engine="eager", device="cpu")
        analyze(run, ["maps"], device="cpu")
    return run.folder


def view_of(run):
    """The experiment with this one point."""
    spec = gammabeta.load_run(run.path).spec.replace(seed=0)
    report = dataclasses.replace(experiments()["report"], points=(spec,))
    return collect(report, [run], SCALES["paper"], "fp32")


def test_the_figure_shows_the_maps_of_the_run(run, tmp_path, monkeypatch):
    view = view_of(run)
    layers = feature_maps(run)
    assert [layer.place for layer in layers] == [1, 4, 10]
    figure = maps_figure({"bn": layers})
    pictures = [axes.images[0].get_array() for axes in figure.axes if axes.images]
    images, filters = [pictures[:4], pictures[4:8]], pictures[8:]
    for number, (image, *maps) in enumerate(images):
        assert np.array_equal(image[:, :, :3], layers[0].images[number])
        for layer, picture in zip(layers, maps, strict=True):
            side = layer.maps.shape[2]
            step = side + max(1, side // 16)  # with the line between two of them
            fifth = picture[step : step + side, step : step + side, 0]  # second row, second column
            exact = layer.maps[number, 4]
            low, high = exact.min(), exact.max()
            assert np.abs(low + fifth / 255.0 * (high - low) - exact).max() <= (high - low) / 500
    assert not np.array_equal(images[0][0], images[1][0])
    assert [picture.shape for picture in filters] == [(15, 15, 4), (31, 31, 4), (63, 63, 4)]
    second = filters[2][4:7, 8:11, 0]  # of the tenth convolution: its second filter, third input
    kernel = layers[2].filters[1, :16]
    low, high = kernel.min(), kernel.max()
    assert np.abs(low + second / 255.0 * (high - low) - kernel[2]).max() <= (high - low) / 500
    for width in (WIDE, NARROW):
        text = inline_svg(drawings(view)[0].draw(width), "maps", "Feature maps")
        assert len(re.findall(r"data:image/png;base64", text)) == 11
        assert len(text) < 200_000  # of one subset, so two stay below 400 kB
    monkeypatch.setattr(write, "_pdf", lambda figure: b"")
    files = {path.name.partition(".")[2]: path for path in write_figures(view, tmp_path)}
    assert set(files) == {"json", "svg", "pdf"}
    (told,) = json.loads(files["json"].read_text())["figures"]
    assert [each["title"] for each in told["pictures"]][-4:] == [
        "convolution 10", "filters of 1", "filters of 4", "filters of 10",
    ]  # fmt: skip
    for each, drawn in zip(told["pictures"], pictures, strict=True):
        assert np.array_equal(unpack(each), drawn)
    fifth = layers[0].maps[1, 4]
    ends = [told["pictures"][5][end][4] for end in ("low", "high")]
    assert ends == pytest.approx([fifth.min(), fifth.max()], rel=1e-5)


def test_a_mosaic_leaves_out_what_is_not_there():
    pictures = np.arange(3 * 4 * 4, dtype=float).reshape(3, 4, 4, 1)
    whole = mosaic(pictures)
    assert whole.shape == (9, 9, 4)
    assert whole[:4, :4, 0].min() == 0
    assert whole[:4, :4, 0].max() == 255
    assert np.array_equal(whole[:4, :4], whole[5:, :4])  # each on its own scale
    assert whole[4].max() == whole[5:, 5:].max() == 0  # transparent
    assert whole[:4, 5:, 3].min() == 255


def test_the_page_tells_of_the_report_once_with_its_maps(run, tmp_path):
    bn = write_point(tmp_path, ADAM["bn-only-adam"], 0.43)
    write_point(tmp_path, SCALES["short"].apply(ADAM["resnet-adam"]), 0.5)
    text = plain(report_html(list_runs(tmp_path)))
    assert text.count(CHAPTER) == text.count('id="report"') == 1
    assert "Questions still open" not in text
    assert "Other runs" not in text
    # one recipe was run twice, another three times: one run here is the counterpart of one setting
    assert "The report published 24 runs of 21 settings; 1 of these has a counterpart here" in text
    assert (
        "The report published 24 runs of 21 settings, as they are when shortened; 1 of these has a "
        "shortened counterpart here" in text
    )
    assert "<image" not in text
    write_probe(bn, "maps", run.probe("maps"))
    text = plain(report_html(list_runs(tmp_path)))
    page = Page(text)
    assert len(page.ids) == len(set(page.ids))
    assert "report-paper-fp32-cifar10-maps" in page.ids
    assert text.count("<image") == 2 * 11  # for a laptop and for a phone
    assert "bn in batches of 1,024, right on 43.0" in text
    # networks come with the experiments
    row = re.search(
        '<th scope="row">ResNet-14 \N{MULTIPLICATION SIGN}2</th>.*?</tr>', text, re.DOTALL
    )
    cells = re.findall(r"<td[^>]*>(.*?)</td>", row[0])
    assert cells == ["696,618", "696K", "+618", "2,240", "2.24K", "0", "0.32 %",
                     "1,290", NOTHING, NOTHING, "10,240", NOTHING, NOTHING]  # fmt: skip
    row = re.search('<th scope="row">ResNet-50 on ImageNet</th>.*?</tr>', text, re.DOTALL)
    cells = re.findall(r"<td[^>]*>(.*?)</td>", row[0])
    assert cells[7:] == ["2,049,000", "2.05M", "\N{MINUS SIGN}1,000",
                         "2,768,896", "2.77M", "\N{MINUS SIGN}1,104"]  # fmt: skip
    # the report's network has a larger share, and is none of the paper's table
    assert "from 0.02 % (ResNet-14 \N{MULTIPLICATION SIGN}32) to 0.64 % (ResNet-14) of all" in text
    assert "Of 44 numbers that were read in it, 42 are ours, rounded" in text
    assert (
        "for ResNet-14 \N{MULTIPLICATION SIGN}2 it prints 696K parameters, we count 696,618" in text
    )


def test_networks_json_has_what_was_published(tmp_path):
    view = collect(experiments()["networks"], [], SCALES["paper"], "fp32")
    (path,) = write_figures(view, tmp_path)
    rows = {row["name"]: row for row in json.loads(path.read_text())["networks"]}
    assert rows == {row["name"]: row for row in network_rows()}
    deep = rows["imagenet_resnet_101"]
    assert (deep["total"], deep["published_total"]) == (44_549_160, "44.6M")
    assert deep["difference_total"] == 44_549_160 - 44_600_000
    assert (deep["output"], deep["published_output"]) == (2_049_000, "2.05M")
    assert (deep["shortcut"], deep["difference_shortcut"]) == (2_768_896, 2_768_896 - 2_770_000)
    assert rows["cifar_vgg_11"]["difference_bn"] is None
    assert rows["cifar_resnet_14"]["difference_output"] is None  # not read
    apart = {
        (name, key)
        for name, row in rows.items()
        for key in ("total", "bn", "output", "shortcut")
        if row[f"published_{key}"] and not is_rounded(row[key], row[f"published_{key}"])
    }
    assert apart == {("cifar_resnet_14_32", "total"), ("imagenet_resnet_101", "total")}


def test_rounded_numbers():
    assert printed_value("14.0M") == (14_000_000, 100_000)
    assert printed_value("1.12K") == (1_120, 10)
    assert is_rounded(13_979_930, "14.0M")
    assert not is_rounded(13_979_930, "13.9M")
