"""`gammabeta reproduce`: the plan, the runs, what is never done twice, and the estimate."""

import json
from pathlib import Path

import pytest
import torch
from stores import write_point, write_probe, write_run

from gammabeta import InputError, RunError, RunSpec
from gammabeta.cli import main
from gammabeta.cost import Costs, operations
from gammabeta.fused.plan import make_plan
from gammabeta.models import architecture
from gammabeta.probe import clamp
from gammabeta.reproduce import choose_experiments, plan, reproduce, view
from gammabeta.run import Ended, Start
from gammabeta.sentences import percent
from gammabeta.store import list_runs
from gammabeta.sweep import sweep

SMOKE = ["--scale", "smoke", "--data", "synthetic", "--precision", "fp32"]
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def timed(monkeypatch):
    """A step takes 0.1 seconds, without trying, and none is kept; the list says of what."""
    steps = []
    monkeypatch.setattr("gammabeta.step_times.find", lambda key: None)
    monkeypatch.setattr("gammabeta.step_times.keep", lambda *given: None)
    monkeypatch.setattr(Costs, "_measure", lambda self, spec: steps.append(spec) or 0.1)
    return steps


def _plans(runs, names=("depth",), **options):
    given = {"scale": "smoke", "data": "synthetic", "precision": "fp32",
             "networks": ["cifar_resnet_14"]}  # fmt: skip
    return plan(choose_experiments(names), runs, **(given | options))


def test_what_is_done_is_not_planned_again(tmp_path):
    (first,) = _plans(tmp_path, subsets=["output", "none"])
    assert [spec.trainable for spec in first.left] == ["none", "output"]
    assert {(spec.epochs, spec.subsample, spec.data) for spec in first.runs} == {
        (1, 512, "synthetic")
    }
    write_run(tmp_path, first.left[0], 0.1)
    write_run(tmp_path, first.left[1], None)  # begun, not finished
    (again,) = _plans(tmp_path, subsets=["output", "none"])
    assert again.runs == first.runs
    assert again.left == first.left[1:]
    assert again.estimate.runs == 1
    assert [len(point.runs) for point in view(again, tmp_path).points] == [1, 0]


def test_a_table_shows_on_how_many_images_its_runs_were_trained_and_tested(tmp_path, capsys):
    (first,) = _plans(tmp_path, subsets=["none"])
    write_run(tmp_path, first.left[0], 0.1)
    words = ["--networks", "cifar_resnet_14", "--subsets", "none", "--runs", str(tmp_path)]
    assert main(["reproduce", "depth", *SMOKE, *words, "--out", str(tmp_path / "out")]) == 0
    out = capsys.readouterr().out
    assert "  subsample=512, test_subsample=512  " in out
    assert "of the first 512 images, tested on the first 512." in out


def test_what_is_not_measured_yet_is_planned_and_takes_time(tmp_path, capsys):
    (first,) = _plans(tmp_path, ["clamp"], subsets=["bn"])
    (spec,) = first.left
    epoch = 4 * 0.1  # 4 steps
    evaluation = epoch / 2  # forward only
    assert first.estimate.seconds == pytest.approx(epoch + evaluation + 41 * evaluation)
    run = write_point(tmp_path, spec, 0.4, gammas=(1.0,))
    (finished,) = _plans(tmp_path, ["clamp"], subsets=["bn"])
    assert (finished.left, finished.unmeasured) == ((), ((run.id, "clamp"),))
    assert finished.estimate.seconds == pytest.approx(41 * evaluation)
    command = ["reproduce", "clamp", "--dry-run", *SMOKE, "--runs", str(tmp_path), "--subsets",
               "bn", "--networks", "cifar_resnet_14"]  # fmt: skip
    assert main(command) == 0
    assert f"{run.id}  clamp is to be measured" in capsys.readouterr().out
    points = [{"threshold": 0.0, "share": 0.0, "test_accuracy": 0.4, "random": [0.4]}]
    write_probe(run, "clamp", {"asked": clamp.asked(), "summary": {}, "points": points}, 10_000)
    (measured,) = _plans(tmp_path, ["clamp"], subsets=["bn"])
    assert (measured.unmeasured, measured.estimate.seconds) == ((), 0.0)


def test_no_step_is_timed_where_no_estimate_is_shown(tmp_path, capsys, timed):
    where = ["--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "out")]
    command = ["reproduce", "depth", "--scale", "smoke", "--networks", "cifar_resnet_14", *where]
    assert main([*command, "--data-dir", str(tmp_path / "nothing")]) == 2
    assert "does not exist" in capsys.readouterr().err
    assert timed == []
    assert main([*command, "--dry-run", "--subsets", "bn"]) == 0
    assert [spec.trainable for spec in timed] == ["bn"]


@pytest.mark.slow
def test_the_size_of_images_changes_runs_on_imagenet_alone(tmp_path):
    chosen = {"data": None, "networks": (), "subsets": ["all"], "scale": "paper", "precision": None}
    plans = _plans(tmp_path, ["imagenet", "depth"], image_size=128, **chosen)
    imagenet, depth = plans
    assert {spec.image_size for spec in imagenet.runs} == {128}
    assert {spec.image_size for spec in depth.runs} == {0}
    assert (view(imagenet, tmp_path).image_size, view(depth, tmp_path).image_size) == (128, None)
    (usual,) = _plans(tmp_path, ["imagenet"], image_size=224, **chosen)
    assert view(usual, tmp_path).image_size is None
    assert usual.runs == _plans(tmp_path, ["imagenet"], **chosen)[0].runs
    assert usual.estimate.seconds > 2 * imagenet.estimate.seconds


def test_experiments_share_their_runs(tmp_path):
    plans = _plans(tmp_path, ["depth", "width", "count"], subsets=["bn"])
    assert len({spec.id for each in plans for spec in each.runs}) == 2  # bn, and its other start


@pytest.mark.parametrize(
    ("names", "options", "message"),
    [
        (["dept"], {}, "unknown experiment 'dept': did you mean depth"),
        (["depth"], {"scale": "tiny"}, "unknown scale 'tiny'"),
        (["depth"], {"replicates": 0}, "replicates is 0"),
        (["depth"], {"networks": ["cifar_vgg_11"]}, "depth has no 'cifar_vgg_11'"),
        (["depth"], {"device": "tpu"}, "unknown device 'tpu'"),
        (["depth"], {"precision": "fp16"}, "unknown precision 'fp16'"),
        (["depth"], {"data": "mnist"}, "data is mnist: .*write digits or synthetic"),
    ],
)
def test_wrong_wishes_are_refused(tmp_path, names, options, message):
    with pytest.raises(InputError, match=message):
        _plans(tmp_path, names, **options)
    assert list(tmp_path.iterdir()) == []


def test_the_command_trains_writes_and_does_nothing_twice(tmp_path, capsys):
    runs, out = tmp_path / "runs", tmp_path / "out"
    command = ["reproduce", "depth", *SMOKE, "--networks", "cifar_resnet_14", "--subsets",
               "output,none", "--runs", str(runs), "--out", str(out), "--json"]  # fmt: skip
    assert main(command) == 0
    (told,) = json.loads(capsys.readouterr().out)
    assert [(row["trainable"], row["n"]) for row in told["points"]] == [("none", 1), ("output", 1)]
    assert all(row["published"] is None for row in told["points"])  # these are no CIFAR images
    assert {Path(each).suffix for each in told["files"]} == {".json", ".svg", ".pdf"}
    assert all(Path(each).stat().st_size > 500 for each in told["files"])
    before = {run.id: run.metrics() for run in list_runs(runs)}
    assert main(command) == 0
    assert json.loads(capsys.readouterr().out) == [told]
    assert {run.id: run.metrics() for run in list_runs(runs)} == before


def test_probes_come_with_their_experiment(tmp_path, capsys):
    runs = tmp_path / "runs"
    command = ["reproduce", "gammas", *SMOKE, "--networks", "cifar_resnet_14", "--subsets", "bn",
               "--runs", str(runs), "--out", str(tmp_path / "out")]  # fmt: skip
    assert main(command) == 0
    (run,) = list_runs(runs)
    made = run.probe("gammas")
    assert made["made_from"]["epoch"] == 1
    shown = capsys.readouterr()
    assert f"{run.id}: gammas ..." in shown.err
    assert "What becomes of gamma and beta?" in shown.out
    share = run.result["small_gammas"]
    assert percent(share) in shown.out.partition("small gammas")[2]
    assert main([*command, "--json"]) == 0
    shown = capsys.readouterr()
    assert "gammas ..." not in shown.err
    assert json.loads(shown.out)[0]["points"][0]["measured"] == {"Small gammas": share}
    assert run.probe("gammas") == made


def test_list_and_dry_run_train_nothing(tmp_path, capsys):
    runs = tmp_path / "runs"
    assert main(["reproduce", "--list", "--scale", "smoke", "--runs", str(runs), "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert {"networks", "depth", "width", "frozen-bn", "clamp", "cifar100"} <= rows.keys()
    assert rows["depth"]["left"] == rows["depth"]["runs"] == 70
    assert rows["depth"]["seconds"] > rows["gammas"]["seconds"] > 0
    assert main(["reproduce", "gamma-beta", "--dry-run", *SMOKE, "--runs", str(runs)]) == 0
    shown = capsys.readouterr().out
    assert shown.count("trainable=beta") == 4
    assert not runs.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "which experiment"),
        (["depth", "--jobs", "0", *SMOKE], "jobs is 0"),
        (["depth", "--out", "FILE", *SMOKE], "is a file"),
        (["depth", "--subsets", "gama", *SMOKE], "gama"),
        (["depth", "--dry-run", "--out", "FILE", *SMOKE], "is a file"),
        (["cifar100", "--data", "cifar10"], "data is cifar10"),
        (
            ["networks", "--networks", "cifar_resnet_14"],
            "--networks: the experiment networks has no 'cifar_resnet_14': nothing trains in it",
        ),
        (
            ["depth", "--networks", ""],
            "--networks '' names none: write for example cifar_resnet_14",
        ),
        (["depth", "--networks", " , ", *SMOKE], "or leave it out"),
        (["depth", "--subsets", ","], "--subsets ',' names none: write for example bn,all, or"),
        (["--list", "--subsets", ""], "--subsets '' names none"),
        (["depth", "--image-size", "128"], "--image-size belongs to experiments on imagenet"),
        (["imagenet", "--image-size", "128", *SMOKE], "leave it out with synthetic"),
        (["imagenet", "--image-size", "7"], "--image-size is 7: write 8 or more"),
    ],
)
def test_wrong_use_is_one_line(tmp_path, capsys, arguments, message):
    (tmp_path / "FILE").write_text("")
    arguments = [str(tmp_path / each) if each == "FILE" else each for each in arguments]
    assert main(["reproduce", *arguments, "--runs", str(tmp_path / "runs")]) == 2
    error = capsys.readouterr().err.strip()
    assert "\n" not in error
    assert message in error
    assert not (tmp_path / "runs").exists()


def test_a_failure_is_said_at_once_and_tried_again(tmp_path):
    plans = _plans(tmp_path, subsets=["output", "none"])
    bad, good = plans[0].left
    folder = write_run(tmp_path, bad, None)
    inputs = json.loads((folder.path / "inputs.json").read_text())
    right = json.dumps(inputs)
    next(row for row in inputs["tensors"] if row["sha256"])["sha256"] = "0" * 16  # another start
    (folder.path / "inputs.json").write_text(json.dumps(inputs))
    heard = []
    with pytest.raises(RunError, match=f"1 of 2 runs failed: {bad.id}"):
        reproduce(plans, tmp_path, listen=heard.append)
    ended = [event for event in heard if isinstance(event, Ended)]
    assert [(event.spec, event.error is None) for event in ended] == [(bad, False), (good, True)]
    first_start = next(place for place, event in enumerate(heard) if isinstance(event, Start))
    assert heard.index(ended[0]) < first_start  # before the other run even began
    (folder.path / "inputs.json").write_text(right)
    reproduce(_plans(tmp_path, subsets=["output", "none"]), tmp_path)
    assert all(run.status == "ok" for run in list_runs(tmp_path))


def test_jobs_give_the_same_runs_and_keep_the_reason_of_a_failure(tmp_path):
    base = RunSpec(model="cifar_resnet_8", trainable="bn", data="synthetic", epochs=1,
                   subsample=128, test_subsample=64, batch_size=64)  # fmt: skip
    specs = [base.replace(lr=rate) for rate in (0.1, 0.01)]
    bad = base.replace(lr=1e30)
    ended = []
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        alone = sweep(specs, tmp_path / "alone", in_step=1)
        with pytest.raises(RunError, match=f"1 of 3 runs failed: {bad.id}.*loss became"):
            sweep([*specs, bad], tmp_path / "beside", in_step=1, jobs=2, listen=ended.append)
    finally:
        torch.set_num_threads(threads)
    beside = {run.id: run for run in list_runs(tmp_path / "beside")}
    assert {run.id: run.result["test_loss"] for run in alone} == {
        spec.id: beside[spec.id].result["test_loss"] for spec in specs
    }
    assert beside[bad.id].status == "failed"
    assert {event.spec.id: event.error is None for event in ended} == {
        **{spec.id: True for spec in specs}, bad.id: False
    }  # fmt: skip


def test_an_estimate_prefers_what_was_measured_here(tmp_path, monkeypatch):
    monkeypatch.undo()  # here a step is timed
    spec = RunSpec(trainable="none", epochs=2)
    scaled = Costs([], device=CPU).estimate([spec])
    assert scaled.measured == 0
    assert scaled.seconds > 0
    folder = write_run(tmp_path, spec.replace(seed=5), 0.1)
    folder.append_metrics({"epoch": 3, "step": 100, "test_accuracy": 0.1})
    folder.write_result({"status": "ok", "seconds": 50.0})
    folder.record_session({"hardware": "another machine"})
    assert Costs([folder], device=CPU).estimate([spec]).measured == 0
    (folder.path / "env.json").unlink()
    folder.record_session({"hardware": Costs([], device=CPU).hardware})
    found = Costs([folder], device=CPU).estimate([spec, spec.replace(trainable="output")])
    assert found.measured == 1
    known = Costs([folder], device=CPU).estimate([spec]).seconds
    assert known == pytest.approx(0.5 * 2 * 391 * (1 + 10_000 / 50_000))  # forward only, both


def test_operations_are_those_of_the_plan():
    own = operations("cifar_resnet_32", "bn", 32)
    output = 2 * 64 * 10 * 2  # the classifier and its input's gradient, which a plan leaves out
    assert own == make_plan(architecture("cifar_resnet_32")).operations(1) + output
    forward = operations("cifar_resnet_32", "none", 32)
    assert operations("cifar_resnet_32", "all", 32) == own + forward
    assert operations("cifar_vgg_11", "output", 32) > operations("cifar_vgg_11", "none", 32)


def test_tested_images_and_epochs_behind_us_count_in_an_estimate(tmp_path):
    spec = RunSpec(trainable="none", epochs=4, subsample=1000, test_subsample=1000)
    folder = write_run(tmp_path, spec.replace(seed=5), 0.1)
    folder.append_metrics({"epoch": 3, "step": 100, "test_accuracy": 0.1})
    folder.write_result({"status": "ok", "seconds": 50.0})
    begun = write_run(tmp_path, spec, None)
    assert begun.epochs_done == 2
    whole = Costs([folder], device=CPU).estimate([spec]).seconds
    assert whole == pytest.approx(0.5 * 4 * 8 * (1 + 1))
    assert Costs([folder, begun], device=CPU).estimate([spec]).seconds == pytest.approx(whole / 2)
    other = Costs([folder], "eager", device=CPU)
    folder.record_session({"hardware": other.hardware, "engine": "lean"})
    assert Costs([folder], "eager", device=CPU).estimate([spec]).measured == 0


def test_the_papers_scale_is_fp32_unless_asked(tmp_path):
    options = {"scale": "paper", "data": None, "subsets": ["bn"]}
    (published,) = _plans(tmp_path, precision=None, **options)
    assert {spec.precision for spec in published.runs} == {"fp32"}
    (asked,) = _plans(tmp_path, precision="bf16", **options)
    assert {spec.precision for spec in asked.runs} == {"bf16"}


def test_a_run_that_cannot_be_measured_keeps_nothing_else_from_being_written(tmp_path, capsys):
    runs, out = tmp_path / "runs", tmp_path / "out"
    plans = _plans(runs, ["depth", "gammas"], subsets=["bn"])
    for spec in {spec.id: spec for each in plans for spec in each.left}.values():
        write_run(runs, spec, 0.3)  # as finished, but without a checkpoint
    command = ["reproduce", "depth", "gammas", *SMOKE, "--networks", "cifar_resnet_14",
               "--subsets", "bn", "--runs", str(runs), "--out", str(out)]  # fmt: skip
    assert main(command) == 1
    shown = capsys.readouterr()
    assert "not measured: " in shown.err.splitlines()[-1]
    assert "no good checkpoint" in shown.err.splitlines()[-1]
    assert "30.00%" in shown.out
    assert any(path.suffix == ".svg" for path in out.iterdir())


def test_a_call_for_one_subset_keeps_the_figure_of_all(tmp_path, capsys):
    runs, out = tmp_path / "runs", tmp_path / "out"
    (plan,) = _plans(runs, ["gamma-beta"])
    for spec in plan.left:
        write_run(runs, spec, 0.3)
    command = ["reproduce", "gamma-beta", *SMOKE, "--networks", "cifar_resnet_14", "--runs",
               str(runs), "--out", str(out), "--json"]  # fmt: skip
    assert main(command) == 0
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    numbers = next(path for path in out.iterdir() if path.suffix == ".json")
    assert sum(row["n"] for row in json.loads(numbers.read_text())["points"]) == 3
    capsys.readouterr()
    assert main([*command, "--subsets", "bn"]) == 0
    (told,) = json.loads(capsys.readouterr().out)
    assert [row["trainable"] for row in told["points"]] == ["bn"]  # what was asked for
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
