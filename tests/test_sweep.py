"""Sweeps: which runs there are, which of them train in step, and what comes of them."""

import importlib
import json
import re
from types import SimpleNamespace

import pytest
import torch
from few import ON, SPEC, assert_equal, few_images, stop_at

from gammabeta import InputError, RunError, grid, load_run, passes, sweep, train
from gammabeta.cli import main
from gammabeta.engine.fused import FusedEngine
from gammabeta.fused.plan import make_plan
from gammabeta.models import architecture
from gammabeta.run import Start
from gammabeta.spec import differing
from gammabeta.store import list_runs
from gammabeta.sweep import teams, why_alone

CPU = {"device": "cpu"}


@pytest.fixture(autouse=True)
def _quick(quick, monkeypatch):
    few_images(monkeypatch)
    monkeypatch.setattr(passes, "why_slow", lambda: None)  # auto is fused also without a compiler


def starts_of(events):
    return [event for event in events if isinstance(event, Start)]


def test_a_grid_is_the_product_in_order():
    specs = grid(SPEC, {"lr": [0.1, 0.01], "seed": range(3)})
    assert [(spec.lr, spec.seed) for spec in specs] == [
        (0.1, 0), (0.1, 1), (0.1, 2), (0.01, 0), (0.01, 1), (0.01, 2)
    ]  # fmt: skip
    assert specs[0] == SPEC
    assert specs == grid(SPEC, [("lr", [0.1, 0.01]), ("seed", [0, 1, 2, 1])])
    assert differing(specs) == ["seed", "lr"]
    assert grid(SPEC, {}) == [SPEC]


def test_what_follows_from_a_field_follows_in_a_grid():
    sgd, adam = grid(SPEC, {"optimizer": ["sgd", "adam"]})
    assert (sgd.lr, adam.lr, adam.momentum, adam.betas) == (0.1, 0.001, 0.0, (0.9, 0.999))
    assert [each.lr for each in grid(SPEC, {"lr": [0.5], "optimizer": ["sgd", "adam"]})] == [
        0.5
    ] * 2


@pytest.mark.parametrize(("axes", "message"), [
    ({"rate": [1]}, "no field 'rate'"), ({"lr": [0.1, -1]}, "lr is -1"),
    ({"lr": []}, "lr needs a list of values"), ({"trainable": "bn"}, "needs a list of values, not"),
    ([("lr", [1]), ("lr", [2])], "lr is given twice"),
], ids=str)  # fmt: skip
def test_grids_that_are_wrong(axes, message):
    with pytest.raises(InputError, match=message):
        grid(SPEC, axes)


def test_teams_are_what_can_train_in_step():
    fields = {"batch_size": [16, 32], "trainable": ["bn", "all"], "lr": [0.1, 0.2], "seed": [0, 1]}
    specs = grid(SPEC, fields)
    found = teams(specs, **CPU)
    assert sorted(spec.id for team in found for spec in team) == sorted(each.id for each in specs)
    together = [team for team in found if len(team) > 1]
    assert [(team[0].batch_size, len(team)) for team in together] == [(16, 4), (32, 4)]
    assert {spec.trainable for team in together for spec in team} == {"bn"}
    assert [team for team in found if team[0].trainable == "all"] == [
        [spec] for spec in specs if spec.trainable == "all"
    ]
    other = grid(SPEC, {"optimizer": ["sgd", "adam"], "seed": [0, 1], "norm_init": ["ones"]})
    assert [len(team) for team in teams(other, **CPU)] == [2, 1, 1]
    assert [len(team) for team in teams(specs[:2], engine="fused", **CPU)] == [2]


def test_engines_without_members_make_no_teams(monkeypatch):
    specs = grid(SPEC, {"seed": range(3)})
    for engine in ("eager", "lean"):
        assert teams(specs, engine=engine, **CPU) == [[spec] for spec in specs]
    monkeypatch.setattr(passes, "why_slow", lambda: "no compiler")
    assert teams(specs, **CPU) == [[spec] for spec in specs]
    with pytest.raises(InputError, match="the fused engine cannot run this") as caught:
        teams([*specs, SPEC.replace(trainable="all")], engine="fused", **CPU)
    assert caught.value.about == "engine"


def test_a_team_has_so_many_members_at_most():
    specs = grid(SPEC, {"lr": [0.1, 0.2, 0.3], "seed": range(3)})
    sizes = {n: [len(team) for team in teams(specs, in_step=n, **CPU)] for n in (32, 9, 8, 4, 1)}
    assert sizes == {32: [9], 9: [9], 8: [4, 5], 4: [3, 3, 3], 1: [1] * 9}
    by_seed = teams(specs, in_step=4, **CPU)
    assert [{spec.seed for spec in team} for team in by_seed] == [{0}, {1}, {2}]  # one backbone
    with pytest.raises(InputError, match="in_step is 0"):
        teams(specs, in_step=0)


TWO = SPEC.replace(epochs=2)
ALL = SPEC.replace(trainable="all")


def test_who_trains_alone_and_why():
    specs = [*grid(SPEC, {"seed": [0, 1]}), SPEC.replace(batch_size=16), ALL]
    why = why_alone(teams(specs, **CPU), **CPU)
    assert list(why) == [specs[2].id, ALL.id]
    assert why[specs[2].id].startswith("no other run to train differs from it in nothing but seed,")
    assert "lean engine trains one run at a time (not fused: it trains bn" in why[ALL.id]
    crowded = teams(specs, in_step=1, **CPU)
    assert why_alone(crowded, **CPU)[specs[0].id].startswith("a team has no room for it")
    asked = why_alone(crowded, engine="eager", **CPU)
    assert set(asked.values()) == {"the eager engine trains one run at a time (as asked)"}


def test_on_a_gpu_a_team_is_no_larger_than_its_memory(monkeypatch):
    bytes_of_one = make_plan(architecture(SPEC.model)).saved_bytes(32, 4)
    card = SimpleNamespace(total_memory=10 * bytes_of_one)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: card)
    module = importlib.import_module("gammabeta.sweep")  # the name alone is the function
    monkeypatch.setattr(module, "choose_device", torch.device)
    monkeypatch.setattr(module, "choose_engine", lambda *_: (FusedEngine, "as asked"))
    for spec, sizes in ((SPEC, [4, 5]), (SPEC.replace(precision="bf16"), [9])):
        specs = grid(spec, {"seed": range(9)})
        assert [len(team) for team in teams(specs, device="cuda")] == sizes
    assert len(teams(grid(SPEC.replace(batch_size=512), {"seed": range(3)}), device="cuda")) == 3


MIXED = [*grid(TWO, {"seed": [0, 1], "lr": [0.1, 0.01]}), TWO.replace(trainable="all")]
WILD = SPEC.replace(lr=1e30, trainable="bn+output")
TAME = WILD.replace(lr=0.1)


def test_a_sweep_gives_ordinary_runs(tmp_path):
    events = []
    runs = sweep(MIXED, tmp_path / "runs", device="cpu", listen=events.append)
    assert [run.spec for run in runs] == MIXED
    assert [start.members for start in starts_of(events)] == [4, 4, 4, 4, 1]
    assert [start.engine for start in starts_of(events)] == ["fused"] * 4 + ["lean"]
    for run in runs:
        assert_equal(run, train(run.spec, tmp_path / "alone", **CPU))
    events.clear()
    more = [*MIXED, TWO.replace(seed=2), TWO.replace(seed=3)]
    again = sweep(more, tmp_path / "runs", device="cpu", listen=events.append)
    assert [start.run.spec for start in starts_of(events)] == more[-2:]  # the rest had finished
    assert [run.result for run in again[:5]] == [run.result for run in runs]


def test_subsets_that_are_not_fused_are_trained_one_after_another(tmp_path):
    events = []
    specs = grid(SPEC.replace(trainable="all", epochs=1), {"seed": [0, 1]})
    runs = sweep(specs, tmp_path, device="cpu", listen=events.append)
    assert [(start.run.id, start.members) for start in starts_of(events)] == [
        (run.id, 1) for run in runs
    ]
    assert [run.result["status"] for run in runs] == ["ok", "ok"]


def test_runs_that_fail_stop_no_others_and_are_told_at_the_end(tmp_path):
    alone = WILD.replace(trainable="all")
    specs = [WILD, TAME, alone, SPEC]
    with pytest.raises(RunError) as caught:
        sweep(specs, tmp_path / "runs", device="cpu")
    text = str(caught.value)
    assert text.startswith(f"2 of 4 runs failed: {WILD.id}")
    assert alone.id in text
    assert "try a smaller learning rate" in text
    assert "\n" not in text
    status = {run.id: run.status for run in list_runs(tmp_path / "runs")}
    assert status == {WILD.id: "failed", TAME.id: "ok", alone.id: "failed", SPEC.id: "ok"}
    assert_equal(load_run(TAME.id, tmp_path / "runs"), train(TAME, tmp_path / "alone", **ON))
    with pytest.raises(RunError, match="2 of 2 runs failed"):
        sweep(specs, tmp_path / "runs", device="cpu")


def test_a_team_that_cannot_begin_stops_no_others(tmp_path, monkeypatch):
    def broken(engines):
        raise MemoryError("no room")

    specs = [*grid(SPEC, {"seed": [0, 1]}), SPEC.replace(batch_size=16)]
    with monkeypatch.context() as patch:
        patch.setattr("gammabeta.run.make_members", broken)
        message = f"2 of 3 runs failed: {specs[0].id}, {specs[1].id} .MemoryError: no room."
        with pytest.raises(RunError, match=message):
            sweep(specs, tmp_path, device="cpu")
    status = {run.id: run.status for run in list_runs(tmp_path)}
    assert status == {specs[0].id: "stopped", specs[1].id: "stopped", specs[2].id: "ok"}
    assert [run.result["status"] for run in sweep(specs, tmp_path, device="cpu")] == ["ok"] * 3


@pytest.mark.parametrize("wrong", [
    {"batch_size": 71}, {"trainable": "name:x"}, {"lr_by_role": {"output": 1}}, {"subsample": 9999},
], ids=str)  # fmt: skip
def test_what_is_wrong_with_the_last_run_is_said_before_the_first(tmp_path, wrong):
    with pytest.raises(InputError) as caught:
        sweep([SPEC, SPEC.replace(seed=1), SPEC.replace(**wrong)], tmp_path / "runs", device="cpu")
    assert caught.value.about == next(iter(wrong))
    assert list(tmp_path.iterdir()) == []


def test_a_sweep_that_was_stopped_goes_on(tmp_path):
    specs = [SPEC.replace(batch_size=16), *grid(SPEC, {"seed": [0, 1]})]
    with pytest.raises(KeyboardInterrupt):  # in the second team, one member is ahead
        sweep(specs, tmp_path / "runs", device="cpu", listen=stop_at(2, place=1))
    assert [run.epochs_done for run in list_runs(tmp_path / "runs")] == [3, 2, 1]
    events = []
    runs = sweep(specs, tmp_path / "runs", device="cpu", listen=events.append)
    assert [start.epoch for start in starts_of(events)] == [2, 1]
    for run in runs:
        assert_equal(run, train(run.spec, tmp_path / "alone", **CPU))


# The command line.

FLAGS = [
    "--data", "synthetic", "--model", "cifar_resnet_8_4", "--epochs", "2", "--subsample", "70",
    "--batch-size", "32", "--crop-padding", "2", "--device", "cpu",
]  # fmt: skip


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def call(capsys, *arguments, code=0):
    assert main([*arguments]) == code
    return capsys.readouterr()


def test_train_with_seeds(here, capsys):
    out, err = call(capsys, "train", *FLAGS, "--seeds", "0-1,4")
    lines = [line.split() for line in out.splitlines()]
    assert lines[0] == ["seed", "test", "accuracy", "seconds", "id"]
    assert [line[0] for line in lines[1:]] == ["0", "1", "4", "mean", "low", "high"]
    runs = [load_run(line[3], "runs") for line in lines[1:4]]
    assert [line[1] for line in lines[1:4]] == [f"{run.accuracy:.2%}" for run in runs]
    accuracies = [run.accuracy for run in runs]
    spread = [sum(accuracies) / 3, min(accuracies), max(accuracies)]
    assert [line[1] for line in lines[4:]] == [f"{each:.2%}" for each in spread]
    assert err.count("role ") == 1  # what trains is told once
    assert f"run {runs[0].id}: cifar_resnet_8_4, training bn, on synthetic, seed=0\n" in err
    assert "ms a step of all 3 in step" in err
    assert err.endswith(f"run {runs[1].id}: seed=1\nrun {runs[2].id}: seed=4\n")
    results = json.loads(call(capsys, "train", *FLAGS, "--seeds", "0-1,4", "--json")[0])
    assert [result["id"] for result in results] == [run.id for run in runs]
    assert results[2] == json.loads(call(capsys, "train", *FLAGS, "--seed", "4", "--json")[0])


def test_sweep_over_several_fields(here, capsys):
    axes = ["--members", "lr=1/10,0.01", "--members", "trainable=bn,all", "--members", "seed=0-1"]
    plan, err = call(capsys, "sweep", *FLAGS, *axes, "--dry-run")
    assert err == ""
    assert list(here.iterdir()) == []
    assert plan.splitlines()[0].split() == ["lr", "trainable", "seed", "id", "status", "trains"]
    *table, total, why = plan.splitlines()
    assert total == "8 of 8 runs to train: 4 in team 1, 4 alone"
    assert why.startswith("4 alone: the lean engine trains one run at a time (not fused: it trains")
    planned = json.loads(call(capsys, "sweep", *FLAGS, *axes, "--dry-run", "--json")[0])
    reason = why.removeprefix("4 alone: ")
    assert [row["alone"] for row in planned] == [None, None, reason, reason] * 2
    out, err = call(capsys, "sweep", *FLAGS, *axes)
    rows = [line.split() for line in out.splitlines()[1:]]
    assert [row[:3] for row in rows] == [
        [lr, part, seed] for lr in ("0.1", "0.01") for part in ("bn", "all") for seed in "01"
    ]
    assert [row[5] for row in rows] == [line.split()[3] for line in table[1:]]
    assert err.count("role ") == 2  # once for each subset
    assert f"run {rows[4][5]}: seed=0, lr=0.01\n" in err  # the order of RunSpec
    assert f"run {rows[5][5]}: seed=1, lr=0.01\n" in err  # in a team
    assert f"run {rows[7][5]}: seed=1, lr=0.01; about " in err  # alone
    done, _ = call(capsys, "sweep", *FLAGS, *axes, "--members", "flip=no,yes", "--dry-run")
    assert done.splitlines()[-2] == "8 of 16 runs to train: 4 in team 1, 4 alone"
    shown = json.loads(call(capsys, "sweep", *FLAGS, *axes, "--dry-run", "--json")[0])
    assert {(row["status"], row["team"]) for row in shown} == {("ok", None)}
    results = json.loads(call(capsys, "sweep", *FLAGS, *axes, "--json")[0])
    assert [result["id"] for result in results] == [row["id"] for row in shown]
    assert [result["spec"] for result in results] == [row["spec"] for row in shown]


def test_values_are_read_as_the_flags_read_them(here, capsys):
    axes = {
        "drops": ("1/2,3/4;1/2", [[0.5, 0.75], [0.5]]),
        "lr-by-role": ("beta=0.2;beta=1/2,gamma=1", [{"beta": 0.2}, {"beta": 0.5, "gamma": 1.0}]),
        "flip": ("yes,no", [True, False]),
        "trainable": ("name:.*[a,b]n1.*;bn", ["name:.*[a,b]n1.*", "bn"]),
    }
    for name, (text, values) in axes.items():
        plan = call(capsys, "sweep", *FLAGS, "--members", f"{name}={text}", "--dry-run", "--json")[
            0
        ]
        assert [row["spec"][name.replace("-", "_")] for row in json.loads(plan)] == values


def test_flags_come_before_what_follows_from_a_member(here, capsys):
    words = ["--members", "optimizer=sgd,adam", "--dry-run", "--json"]
    for flags, rates in (([], [0.1, 0.001]), (["--lr", "0.05"], [0.05, 0.05])):
        rows = json.loads(call(capsys, "sweep", *FLAGS, *flags, *words)[0])
        assert [row["spec"]["lr"] for row in rows] == rates
        train_it = ["train", *FLAGS, *flags, "--optimizer", "adam", "--print-spec", "--json"]
        train_it = [word for word in train_it if word not in ("--device", "cpu")]
        assert json.loads(call(capsys, *train_it)[0]) == rows[1]["spec"]


def test_a_sweep_begins_with_a_spec_file(here, capsys):
    (here / "spec.json").write_text(json.dumps(SPEC.replace(trainable="beta").to_dict()))
    words = ["--spec", "spec.json", "--epochs", "1", "--seeds", "3,4", "--dry-run", "--json"]
    rows = json.loads(call(capsys, "sweep", *words)[0])
    assert [row["spec"] for row in rows] == [
        SPEC.replace(trainable="beta", epochs=1, seed=seed).to_dict() for seed in (3, 4)
    ]


def test_a_sweep_with_a_failure_shows_the_rest_and_exits_with_one(here, capsys):
    words = [*FLAGS, "--trainable", "bn+output", "--members", "lr=0.1,1e30"]
    out, err = call(capsys, "sweep", *words, code=1)
    good, bad = (line.split() for line in out.splitlines()[1:])
    assert (good[0], bad[:3]) == ("0.1", ["1e+30", "failed", "-"])
    assert err.splitlines()[-1].startswith(f"gammabeta: 1 of 2 runs failed: {bad[3]} (the training")
    out, _ = call(capsys, "sweep", *words, "--json", code=1)
    assert [result["status"] for result in json.loads(out)] == ["ok", "failed"]


def test_ctrl_c_in_a_sweep(here, capsys, monkeypatch):
    words = ["sweep", *FLAGS, "--seeds", "0-2"]
    with monkeypatch.context() as patch:
        stop = stop_at(1, place=1)
        patch.setattr("gammabeta.listen.TrainDisplay.__call__", lambda self, event: stop(event))
        out, err = call(capsys, *words, code=130)
    assert out == ""
    assert "goes on from the last whole epoch" in err  # two of three have one
    rows = json.loads(call(capsys, *words, "--dry-run", "--json")[0])
    assert [row["status"] for row in rows] == ["stopped"] * 3
    out, err = call(capsys, *words)
    assert "note: resuming after epoch 1" in err
    assert f"run {rows[1]['id']}: seed=1; resuming after epoch 1\n" in err
    assert re.search(r"2 in step, about|of all 2 in step \([\d.]+ ms a run\)", err)
    assert out.count("%") == 6


def test_progress_counts_all_runs_and_shows_a_range(here, capsys, monkeypatch):
    monkeypatch.setattr("gammabeta.listen.PLAIN_SECONDS", 0)
    words = [*FLAGS, "--members", "trainable=bn,all", "--seeds", "0-1"]
    _, err = call(capsys, "sweep", *words)
    lines = [line for line in err.splitlines() if " done, " in line]
    assert lines[0].startswith("runs 1-2 of 4, 8% done, ")  # a sixth of two of four
    assert lines[6].startswith("run 3 of 4, 54% done, ")
    assert lines[12].startswith("run 4 of 4, 79% done, ")
    two = [load_run(run.path) for run in list_runs(here / "runs") if run.spec["trainable"] == "bn"]
    low, high = sorted(run.metrics[0]["test_accuracy"] for run in two)
    shown = f"{low:.2%} to {high:.2%}" if low < high else f"{low:.2%}"
    assert f"runs 1-2 of 4, epoch 1, test {shown}, 33% done, " in lines[3]
