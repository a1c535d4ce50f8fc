"""Runs on different data are never in one mean, and what is left out is named."""

import pytest
from stores import write_point

from gammabeta import RunSpec, analysis
from gammabeta.paper import experiments
from gammabeta.paper.points import left_out, table, views
from gammabeta.report.page import report_html
from gammabeta.report.settings import setting
from gammabeta.store import list_runs

OTHER = "cd" * 32
JPEG = "Parquet, JPEG copies"
FOLDER = {"num_classes": 10, "train": 9469, "test": 3925, "sha256": OTHER}
WHOLE = {"num_classes": 1000, "train": 1_281_167, "test": 50_000}


def imagenet(seed):
    points = [each for each in experiments()["imagenet"].points if each.trainable == "bn"]
    return points[-1].replace(seed=seed)


def point_of(root, name):
    [view] = views(experiments()[name], list_runs(root))
    [point] = view.done
    return view, point


def test_the_data_of_most_runs_makes_the_mean(tmp_path):
    for seed, accuracy in ((0, 0.6), (2, 0.5)):
        write_point(tmp_path, imagenet(seed), accuracy, top5=0.9, **FOLDER)
    left = write_point(tmp_path, imagenet(1), 0.12, top5=0.3, **WHOLE)
    view, point = point_of(tmp_path, "imagenet")
    assert (point.accuracy.mean, point.accuracy.n) == (pytest.approx(0.55), 2)
    assert [run.spec["seed"] for run in point.runs] == [0, 2]
    assert point.left == (left,)
    assert (point.published, point.published_top5) == (None, None)  # of another data set
    assert point.others == ()
    [line] = left_out(view.points)
    assert left.id in line
    assert "1 run on other data" in line
    assert line in setting(view)
    assert left.id not in {run.id for run in view.runs}
    [row] = [row for row in table(view.points) if row["n"]]
    assert row["left_out"] == [left.id]


def test_of_two_as_large_the_one_as_published_makes_the_mean(tmp_path):
    write_point(tmp_path / "a", imagenet(0), 0.6, top5=0.9, **FOLDER)
    write_point(tmp_path / "a", imagenet(1), 0.12, top5=0.3, **WHOLE)
    _, point = point_of(tmp_path / "a", "imagenet")
    assert (point.accuracy.mean, point.top5.mean) == (0.12, 0.3)
    assert point.published_top5 == 0.32
    first = write_point(tmp_path / "b", RunSpec(seed=0), 0.48, source=JPEG, sha256=OTHER)
    second = write_point(tmp_path / "b", RunSpec(seed=1), 0.10)
    _, point = point_of(tmp_path / "b", "depth")
    assert (point.runs, point.left) == ((second,), (first,))


def test_one_data_set_leaves_nothing_out(tmp_path):
    for seed in (0, 1):
        write_point(tmp_path, RunSpec(seed=seed), 0.48)
    view, point = point_of(tmp_path, "depth")
    assert (len(point.runs), point.left, left_out(view.points)) == (2, (), [])


def test_sections_are_of_one_data_set_each(tmp_path):
    same = {"model": "cifar_resnet_14", "lr": 0.02}  # of no experiment
    for seed in (0, 1):
        write_point(tmp_path, RunSpec(seed=seed, **same), 0.4 + seed / 10)
    other = write_point(tmp_path, RunSpec(seed=2, **same), 0.9, sha256=OTHER)
    stopped = write_point(tmp_path, RunSpec(seed=3, **same), None, sha256=OTHER)
    parts = analysis.sections(list_runs(tmp_path))
    assert [part.groups[0].n for part in parts] == [2, 1]
    assert parts[0].groups[0].test_accuracy.mean == pytest.approx(0.45)
    assert {row.id for row in parts[1].rows} == {other.id, stopped.id}
    assert [name.rpartition(", ")[2] for name in analysis.headings(parts)] == [
        "data abababab", "data cdcdcdcd"
    ]  # fmt: skip


def test_a_run_that_says_no_data_stays_with_its_recipe(tmp_path):
    same = {"model": "cifar_resnet_14", "lr": 0.02}
    write_point(tmp_path, RunSpec(seed=0, **same), 0.4)
    torn = write_point(tmp_path, RunSpec(seed=1, **same), 0.5)
    (torn.path / "inputs.json").write_text("torn")
    [part] = analysis.sections(list_runs(tmp_path))
    assert [row.status for row in part.rows] == ["ok", "damaged"]
    assert len(analysis.headings([part])) == 1


def test_the_page_shows_what_was_left_out(tmp_path):
    """In the chapter by name, and with its number in a section of its own."""
    for seed, accuracy in ((0, 0.48), (1, 0.5)):
        write_point(tmp_path, RunSpec(seed=seed), accuracy)
        write_point(tmp_path, RunSpec(seed=seed, trainable="all"), accuracy + 0.4)
    other = write_point(tmp_path, RunSpec(seed=2), 0.1, sha256=OTHER)
    page = report_html(list_runs(tmp_path))
    assert f"1 run on other data than the rest ({other.id})" in page
    assert "49.0" in page  # of the two, not of the three
