"""One damaged run folder is one named failed run: it takes no other run and no table down."""

import json

import pytest
from stores import write_point, write_run

from gammabeta import InputError, RunError, RunSpec, train
from gammabeta.analysis import damage_of, sections
from gammabeta.cli import main
from gammabeta.cost import Costs
from gammabeta.engine import choose_device
from gammabeta.paper import experiments
from gammabeta.paper.points import views
from gammabeta.report.page import report_html
from gammabeta.reproduce import choose_experiments, plan
from gammabeta.run import waiting
from gammabeta.store import list_runs
from gammabeta.sweep import sweep

OUTPUT = RunSpec(model="cifar_resnet_14", trainable="output", data="synthetic", epochs=1,
                 subsample=128, test_subsample=64, batch_size=64)  # fmt: skip
SMOKE = ["reproduce", "depth", "--scale", "smoke", "--data", "synthetic", "--precision", "fp32",
         "--networks", "cifar_resnet_14", "--subsets", "output,none"]  # fmt: skip
GOOD = {"sha256": "ab" * 32, "source": "s", "train": 9, "test": 9, "num_classes": 2}
INPUTS = [
    "torn", "[]", "{}", '{"data": {}, "subset": {"trained": 1, "total": 2}, "tensors": []}',
    json.dumps({"data": GOOD, "subset": {"trained": "1", "total": 2}, "tensors": []}),
    json.dumps({"data": GOOD, "subset": {"trained": 1, "total": 2}, "tensors": [{"name": "a"}]}),
    json.dumps({"data": [GOOD], "subset": {"trained": 1, "total": 2}, "tensors": []}),
]  # fmt: skip


@pytest.mark.parametrize("inputs", INPUTS)
def test_damaged_inputs_leave_a_run_out_of_its_point(tmp_path, inputs):
    good, bad = (write_point(tmp_path, RunSpec(seed=seed), 0.5, gammas=(1.0,)) for seed in (0, 1))
    assert damage_of(bad) is None
    (bad.path / "inputs.json").write_text(inputs)
    assert str(bad.path / "inputs.json") in damage_of(bad)
    for name in ("depth", "gammas", "curves"):
        for view in views(experiments()[name], list_runs(tmp_path)):
            [point] = view.done
            assert (point.runs, point.others) == ((good,), (bad,))
    [section] = sections(list_runs(tmp_path))
    assert section.runs == (good,)


def test_the_page_is_written_and_tells_of_the_damaged_ones(tmp_path):
    runs = [
        write_point(tmp_path, RunSpec(seed=seed, model="cifar_resnet_14", lr=0.02), 0.5)
        for seed in range(3)
    ]
    (runs[0].path / "inputs.json").write_text("{}")
    (runs[1].path / "spec.json").write_text('{"format": 1}')
    page = report_html(list_runs(tmp_path))
    for run in runs:
        assert f"<code>{run.id}</code>" in page


def test_a_spec_of_almost_nothing_is_no_estimate(tmp_path):
    run = write_point(tmp_path, RunSpec(model="cifar_resnet_14", lr=0.02), 0.5, gammas=(1.0,))
    (run.path / "spec.json").write_text('{"format": 1}')
    assert Costs(list_runs(tmp_path), device=choose_device("cpu")).known == {}


def test_a_finished_run_that_cannot_be_read_is_named_and_the_rest_is_written(tmp_path, capsys):
    runs, out = tmp_path / "runs", tmp_path / "out"
    [todo] = plan(choose_experiments(["depth"]), runs, scale="smoke", data="synthetic",
                  precision="fp32", networks=["cifar_resnet_14"],
                  subsets=["output", "none"])  # fmt: skip
    bad, good = (write_run(runs, spec, 0.3) for spec in todo.left)
    (bad.path / "inputs.json").write_text("{}")
    assert main([*SMOKE, "--runs", str(runs), "--out", str(out)]) == 1
    shown = capsys.readouterr()
    assert f"run {bad.id}" in shown.err.splitlines()[-1]
    assert "inputs.json is damaged: remove the run folder" in shown.err.splitlines()[-1]
    assert "30.00%" in shown.out
    [row] = [row for row in json.loads(next(out.glob("*.json")).read_text())["points"] if row["n"]]
    assert row["trainable"] == good.spec["trainable"]


def test_a_damaged_spec_is_one_run_left_of_a_plan(tmp_path, capsys):
    runs = tmp_path / "runs"
    for seed in (0, 1):
        write_point(runs, OUTPUT.replace(seed=seed), None)
    damaged = runs / OUTPUT.id / "spec.json"
    for text in ("", "[1]", '{"format": 1}', '{"format": 99}'):
        damaged.write_text(text)
        assert waiting([OUTPUT], runs) == [OUTPUT]
    [todo] = plan(choose_experiments(["depth"]), runs, scale="smoke", data="synthetic",
                  precision="fp32", networks=["cifar_resnet_14"], subsets=["none"])  # fmt: skip
    broken = write_run(runs, todo.left[0], 0.3)
    (broken.path / "spec.json").unlink()
    assert main([*SMOKE, "--runs", str(runs), "--dry-run", "--json"]) == 0
    [told] = json.loads(capsys.readouterr().out)
    assert (told["left"], told["runs"]) == (2, 2)
    with pytest.raises(InputError, match=r"is damaged|format"):  # alone it is refused, as ever
        train(OUTPUT, runs)


def test_a_damaged_folder_fails_alone_and_by_name(tmp_path):
    base = OUTPUT.replace(trainable="bn")
    specs = [base, base.replace(seed=1), base.replace(seed=2)]
    write_point(tmp_path, specs[0], None)
    (tmp_path / specs[0].id / "spec.json").write_text("{")
    write_point(tmp_path, specs[1], None)
    (tmp_path / specs[1].id / "inputs.json").write_text('{"data": {}}')
    with pytest.raises(RunError, match="2 of 3 runs failed") as raised:
        sweep(specs, tmp_path, in_step=3)
    for spec, why in zip(specs, ("spec.json is damaged", "other data"), strict=False):
        assert spec.id in str(raised.value)
        assert why in str(raised.value)
    assert [run.status for run in list_runs(tmp_path) if run.id == specs[2].id] == ["ok"]
    assert (tmp_path / specs[0].id / "spec.json").read_text() == "{"  # nothing was written over


def test_what_is_no_run_still_refuses_all_at_once(tmp_path):
    (tmp_path / OUTPUT.id).mkdir()
    (tmp_path / OUTPUT.id / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="is no run folder"):
        waiting([OUTPUT], tmp_path)


@pytest.mark.parametrize("inputs", [True, False])
def test_a_broken_spec_is_named_and_stops_no_other(tmp_path, monkeypatch, capsys, inputs):
    """inputs: whether inputs.json is left, beside a spec.json that is no JSON."""
    monkeypatch.chdir(tmp_path)
    bad, good = (write_point(tmp_path / "runs", RunSpec(seed=seed), 0.5) for seed in (0, 1))
    (bad.path / "spec.json").write_text("{broken")
    if not inputs:
        (bad.path / "inputs.json").unlink()
    why = f"runs/{bad.id}/spec.json is damaged (no JSON object): remove the run"
    assert main(["runs"]) == 0
    out, err = capsys.readouterr()
    assert f"{bad.id} damaged: {why}" in out
    assert f"\n{good.id}  ok " in out
    assert main(["report"]) == 0
    out, err = capsys.readouterr()
    assert (err.count("\n"), f"note: a run is left out: {why}" in err) == (1, True)
    assert main(["runs", "rm", good.id]) == 0
    capsys.readouterr()
    assert main(["report", "--out", "other.html"]) == 2
    out, err = capsys.readouterr()
    assert (err.count("\n"), f"no run in runs can be read: {why}" in err) == (1, True)
    assert not (tmp_path / "other.html").exists()
    assert main(["runs", "rm", bad.id]) == 0


def test_a_spec_that_was_edited_hides_no_other_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    bad, good = (write_point(tmp_path / "runs", RunSpec(seed=seed), 0.5) for seed in (0, 1))
    (bad.path / "spec.json").write_text('{"format": 1, "model": "cifar_resnet_15"}')
    assert main(["runs"]) == 0
    out = capsys.readouterr().out
    assert f"{bad.id}: runs/{bad.id}/spec.json: cifar_resnet_15: the depth must be 6D+2" in out
    assert f"\n{good.id}  ok " in out


def test_a_foreign_folder_is_no_damaged_run(tmp_path):
    for name, file in (("specs", "spec.json"), ("0123456789ab", "notes.txt")):
        (tmp_path / name).mkdir()
        (tmp_path / name / file).write_text("mine")
    assert list_runs(tmp_path, damaged=True) == []
