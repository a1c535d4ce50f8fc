"""What is only recalled of the paper is shown with that caveat and never as a check."""

import json

import pytest
from stores import write_point
from test_benchmarks import script
from test_report import plain

from gammabeta import RunSpec
from gammabeta.cli import main
from gammabeta.figures import write_figures
from gammabeta.paper import experiments
from gammabeta.paper.beside import checked_table
from gammabeta.paper.points import table, views
from gammabeta.report import report_html
from gammabeta.report.origins import published_sources
from gammabeta.report.settings import caption
from gammabeta.store import list_runs

ALTERNATE = RunSpec(norm_init="ones_ones")


@pytest.fixture
def store(tmp_path):
    root = tmp_path / "runs"
    write_point(root, RunSpec(), 0.477)
    write_point(root, ALTERNATE, 0.5)
    return root


@pytest.mark.parametrize("name", ["depth", "width", "norm-init"])
def test_the_alternate_start_has_a_caveat_and_no_difference(store, name):
    (view,) = views(experiments()[name], list_runs(store))
    points = {point.spec.norm_init: point for point in view.done}
    assert points["ones_ones"].published == pytest.approx(0.506)
    assert points["ones_ones"].accuracy is not None
    assert points["ones_ones"].difference is None
    assert [row["difference"] for row in table([points["ones_ones"]])] == [None]
    assert points["uniform"].difference == pytest.approx(0.477 - 0.481)
    assert "is recalled, not confirmed" in caption(view, "")
    (source,) = [each for each in published_sources(view) if "recalled, not confirmed" in each]
    assert source.startswith("ResNet-14, ")
    assert "under bn, norm init ones_ones: the line" in source


def test_a_view_without_it_has_no_caveat(store):
    (view,) = views(experiments()["gamma-beta"], list_runs(store))
    assert "recalled" not in caption(view, "") + " ".join(published_sources(view))
    assert not any("recalled" in row for row in checked_table(view.points))


def test_files_and_page_give_no_difference_from_it(store, tmp_path):
    (view,) = views(experiments()["norm-init"], list_runs(store))
    numbers, drawing, _ = write_figures(view, tmp_path / "out")
    points = json.loads(numbers.read_text())["points"]
    rows = {row.get("norm_init", "uniform"): row for row in points if row["n"]}
    assert (rows["ones_ones"]["published"], rows["ones_ones"]["difference"]) == (0.506, None)
    assert rows["ones_ones"]["recalled"]
    assert rows["uniform"]["difference"] == pytest.approx(0.477 - 0.481)
    assert "is recalled" in drawing.read_text()
    page = plain(report_html(list_runs(store)))
    assert "<td>50.6 %</td><td>\N{EN DASH}</td>" in page
    assert "<td>48.1 %</td><td>\N{MINUS SIGN}0.4</td>" in page


def test_the_readme_marks_it(store, tmp_path):
    runs = [{"spec": run.spec, "result": {"test_accuracy": 0.5, "small_gammas": 0.0}}
            for run in list_runs(store)]  # fmt: skip
    (tmp_path / "cifar10.json").write_text(json.dumps(runs))
    text = script("tables").cifar10(tmp_path)
    assert "| 50.6 * |" in text
    assert "| 48.1 |" in text
    assert text.splitlines()[-1].startswith(r"\* The published numbers beside gamma = 1, beta = 1")
    (tmp_path / "cifar10.json").write_text(json.dumps([r for r in runs if r["spec"]["norm_init"]
                                                       == "uniform"]))  # fmt: skip
    assert "*" not in script("tables").cifar10(tmp_path)


def test_the_terminal_says_what_is_no_target(tmp_path, capsys):
    """The runs are in the store, so nothing trains."""
    runs = tmp_path / "runs"
    for norm_init in ("uniform", "ones", "ones_ones", "symmetric"):
        write_point(runs, RunSpec(norm_init=norm_init, epochs=16), 0.4)
    command = ["reproduce", "norm-init", "--scale", "short", "--precision", "fp32", "--replicates",
               "1", "--networks", "cifar_resnet_14", "--runs", str(runs),
               "--out", str(tmp_path / "out")]  # fmt: skip
    assert main(command) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "so the published numbers are no target for these" in shown
    assert "is recalled, not confirmed" in shown
    assert "-8.1" in shown  # 40 less 48.1
    assert "-10.6" not in shown  # 40 less 50.6
    assert main([*command, "--json"]) == 0
    (told,) = json.loads(capsys.readouterr().out)
    assert "no target" in told["setting"][0]
