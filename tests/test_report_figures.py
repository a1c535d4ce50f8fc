"""`gammabeta report --figures`: every figure and table of a store, from the store alone."""

import json

import pytest
from stores import write_point

from gammabeta import RunSpec, data, reproduce
from gammabeta.cli import main
from gammabeta.figures import write_figures
from gammabeta.paper import experiments
from gammabeta.paper.points import views
from gammabeta.store import list_runs

SOME = ("networks", "depth", "gammas", "vgg")


@pytest.fixture
def store(tmp_path, monkeypatch):
    """Runs of a few experiments; drawing those of all takes long."""
    few = {name: each for name, each in experiments().items() if name in SOME}
    monkeypatch.setattr(reproduce, "experiments", lambda: few)
    root = tmp_path / "runs"
    for spec, accuracy in ((RunSpec(), 0.48), (RunSpec(epochs=16, precision="bf16"), 0.44)):
        write_point(root, spec, accuracy, gammas=(0.0, 0.5))
    return root


def test_all_figures_and_tables_come_without_data(store, tmp_path, monkeypatch):
    def refuse(*arguments, **named):
        raise AssertionError("data was read")

    monkeypatch.setattr(data, "load_dataset", refuse)
    folder = tmp_path / "figures"
    files = reproduce.write_all(store, folder)
    names = {path.name for path in folder.iterdir()}
    assert names == {file.name for file in files}
    for stem in ("depth", "depth-short-bf16", "gammas", "gammas-short-bf16-layers"):
        assert {f"{stem}.svg", f"{stem}.pdf"} <= names, stem
    assert {"networks.json", "depth.json", "gammas-short-bf16.json"} <= names
    assert "vgg.json" not in names  # no run of it
    assert json.loads((folder / "depth-short-bf16.json").read_text())["points"][0]["mean"] == 0.44
    for view in views(experiments()["depth"], list_runs(store)):  # those that reproduce writes
        for file in write_figures(view, tmp_path / "one"):
            assert (folder / file.name).read_bytes() == file.read_bytes()


def test_the_command_writes_them_beside_the_page(tmp_path, monkeypatch, capsys):
    """A run of one experiment alone, and one damaged: it is left out."""
    runs, page, folder = tmp_path / "runs", tmp_path / "page.html", tmp_path / "figures"
    write_point(runs, RunSpec(model="cifar_vgg_11"), 0.5)
    damaged = write_point(runs, RunSpec(model="cifar_vgg_11", epochs=16), 0.4)
    (damaged.path / "inputs.json").unlink()
    assert main(["report", "--runs", str(runs), "--out", str(page), "--figures", str(folder)]) == 0
    names = {path.name for path in folder.iterdir()}
    assert names == {"networks.json", "vgg.json", "vgg.svg", "vgg.pdf"}
    assert page.exists()
    assert f"wrote 4 files into {folder}: networks.json, vgg.json" in capsys.readouterr().out


def test_a_folder_that_cannot_be_is_refused_before_the_work(tmp_path, capsys):
    runs, page = tmp_path / "runs", tmp_path / "page.html"
    write_point(runs, RunSpec(model="cifar_vgg_11"), 0.5)
    (tmp_path / "file").write_text("")
    for wrong in (tmp_path / "file", tmp_path / "no" / "folder"):
        command = ["report", "--runs", str(runs), "--out", str(page), "--figures", str(wrong)]
        assert main(command) == 2
        assert "figures" in capsys.readouterr().err
        assert not page.exists()
