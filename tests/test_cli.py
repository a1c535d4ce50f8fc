"""The command line as a user meets it: train, runs, models, report, demo."""

import dataclasses
import json
import re
import subprocess
import sys

import pytest
from data_files import arrays, write_binary

import gammabeta
from gammabeta import RunSpec, demo
from gammabeta.cli import main
from gammabeta.engine import ENGINES
from gammabeta.errors import no_runs
from gammabeta.names import PAPER_NETWORKS
from gammabeta.spec import CHOICES
from gammabeta.store import RunFolder

TRAIN = [
    "train",
    "--data",
    "synthetic",
    "--model",
    "cifar_resnet_8_4",
    "--epochs",
    "2",
    "--subsample",
    "64",
    "--batch-size",
    "32",
]


def changed(**flags):
    """TRAIN with other values of some flags."""
    words = list(TRAIN)
    for name, value in flags.items():
        words[words.index("--" + name) + 1] = str(value)
    return words


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def call(capsys, *arguments):
    code = main([str(each) for each in arguments])
    out, err = capsys.readouterr()
    assert code == 0, err
    return out, err


def test_train_says_what_trains_and_how_it_ended(here, capsys):
    out, err = call(capsys, *TRAIN)
    for words in ("gamma", "trained", "statistics", "drifts", "frozen", "ms a step", "about"):
        assert words in err
    for words in ("test accuracy", "test loss", "|gamma| < 0.01", "training time"):
        assert words in out
    assert "top-5" not in out


def test_train_json_is_json_and_nothing_else(here, capsys):
    out, _ = call(capsys, *TRAIN, "--json")
    result = json.loads(out)
    assert result["status"] == "ok"
    assert result["epoch"] == 2
    assert result["spec"]["model"] == "cifar_resnet_8_4"
    assert 0 <= result["test_accuracy"] <= 1
    assert result["subset"]["trained"] == 168
    again, err = call(capsys, *TRAIN, "--json")
    assert json.loads(again) == result
    name = result["id"]
    assert err == (
        f"note: run {name} finished earlier, nothing was trained; to train it again: "
        f"gammabeta runs rm {name}\n"
    )
    call(capsys, *err.split(": gammabeta ")[1].split())
    assert json.loads(call(capsys, "runs", "--json")[0]) == []
    call(capsys, *TRAIN, "--runs", "my runs")
    assert f"runs rm {name} --runs 'my runs'" in call(capsys, *TRAIN, "--runs", "my runs")[1]


def test_print_spec_runs_nothing(here, capsys):
    out, _ = call(capsys, *TRAIN, "--print-spec", "--lr", "1/4")
    name, _, text = out.partition("\n")
    values = json.loads(text)
    assert name == f"id {gammabeta.RunSpec.from_dict(values).id}"
    assert values["lr"] == 0.25
    assert list(here.iterdir()) == []


def test_a_spec_file_is_overridden_by_flags(here, capsys):
    out, _ = call(capsys, *TRAIN, "--print-spec", "--json", "--norm-init", "ones", "--lr", "0.3")
    (here / "spec.json").write_text(out)
    out, _ = call(capsys, "train", "--spec", "spec.json", "--lr", "0.2", "--print-spec", "--json")
    values = json.loads(out)
    assert (values["lr"], values["norm_init"], values["epochs"]) == (0.2, "ones", 2)
    out, _ = call(
        capsys, "train", "--spec", "spec.json", "--optimizer", "adam", "--print-spec", "--json"
    )
    assert json.loads(out)["lr"] == 0.001


def test_every_field_of_a_spec_is_a_flag(here, capsys):
    flags = {
        "--model": "cifar_vgg_11", "--trainable": "output+bn", "--data": "digits",
        "--epochs": "3", "--batch-size": "64", "--seed": "4", "--optimizer": "sgd",
        "--lr": "0.2", "--momentum": "0.8", "--weight-decay": "0.001",
        "--lr-by-role": "output=0.01,beta=1/2", "--weight-decay-by-role": "gamma=0",
        "--schedule": "step", "--drops": "1/4,1/2", "--drop-factor": "0.2",
        "--warmup-epochs": "0.5", "--label-smoothing": "0.1", "--weight-init": "binary",
        "--norm-init": "symmetric", "--statistics": "batch", "--precision": "bf16",
        "--crop-padding": "3", "--subsample": "100", "--random-labels": "0.25",
        "--bias-init": "zeros", "--brightness": "0.5", "--normalisation": "none",
        "--test-subsample": "50", "--norm-shares": "2", "--validation": "0.1",
    }  # fmt: skip
    words = [word for pair in flags.items() for word in pair]
    out, _ = call(capsys, "train", *words, "--nesterov", "--flip", "--print-spec", "--json")
    values = json.loads(out)
    plain = json.loads(call(capsys, "train", "--print-spec", "--json")[0])
    left = {item.name for item in dataclasses.fields(RunSpec)} - values.keys()
    # Two belong to other choices, and weights have a test of their own.
    assert left == {"schedule_steps", "image_size", "weights"}
    same = {key for key in values if values[key] == plain.get(key)}
    assert same == {"format", "optimizer", "schedule", "betas", "flip"}
    words = ("--schedule", "cosine", "--schedule-steps", "1000")
    out, _ = call(capsys, "train", *words, "--print-spec", "--json")
    assert json.loads(out)["schedule_steps"] == 1000
    words = ("--data", "imagenet", "--image-size", "64")
    out, _ = call(capsys, "train", *words, "--print-spec", "--json")
    assert json.loads(out)["image_size"] == 64
    assert values["lr_by_role"] == {"beta": 0.5, "output": 0.01}


def test_ctrl_c_says_how_to_go_on(here, capsys, monkeypatch):
    def interrupted(*arguments, **keywords):
        raise KeyboardInterrupt

    monkeypatch.setattr("gammabeta.run.train_epochs", interrupted)
    assert main(TRAIN) == 130
    err = capsys.readouterr().err
    assert "no epoch had ended: the same command begins again" in err
    assert err.endswith("gammabeta: stopped\n")
    monkeypatch.undo()
    monkeypatch.chdir(here)
    assert json.loads(call(capsys, "runs", "--json")[0])[0]["status"] == "stopped"


def test_runs_are_listed_shown_and_removed(here, capsys):
    result = json.loads(call(capsys, *TRAIN, "--json")[0])
    rows = json.loads(call(capsys, "runs", "--json")[0])
    assert [row["id"] for row in rows] == [result["id"]]
    assert (rows[0]["status"], rows[0]["epochs_done"], rows[0]["epochs"]) == ("ok", 2, 2)
    assert rows[0]["recipe"]["batch_size"] == 32
    listed, _ = call(capsys, "runs")
    assert result["id"] in listed
    assert "bn" in listed
    shown = json.loads(call(capsys, "runs", "show", result["id"][:5], "--json")[0])
    assert len(shown["metrics"]) == 2
    assert shown["environment"]["sessions"][0]["engine"] in ENGINES
    assert shown["spec"] == result["spec"]
    assert "tensors" not in shown["inputs"]
    call(capsys, "runs", "rm", result["id"])
    assert json.loads(call(capsys, "runs", "--json")[0]) == []
    assert "there are no runs in runs: train one first" in call(capsys, "runs")[0]
    assert "there are no runs in runs: train one first" in call(capsys, "runs", "--runs", "runs")[0]


def test_a_run_is_shown_by_what_was_chosen_how_it_ended_and_what_trained(here, capsys):
    out, _ = call(capsys, *changed(epochs=1), "--lr-by-role", "beta=1/2")
    name, ended = out.split()[1].rstrip(":"), out.partition("\n")[2]
    text, _ = call(capsys, "runs", "show", "--runs", "runs", name)
    head, spec, result, table = text.split("\n\n")
    assert head == f"run {name}: ok, 1 of 1 epoch"
    assert [line.split() for line in spec.splitlines()[1:]] == [
        ["model", "cifar_resnet_8_4"],
        ["trainable", "bn"],
        ["data", "synthetic"],
        ["epochs", "1"],
        ["batch_size", "32"],
        ["lr_by_role", "beta=0.5"],
        ["subsample", "64"],
    ]
    assert len({line.index(line.split()[1]) for line in spec.splitlines()[1:]}) == 1  # aligned
    assert result == "result\n" + ended.rstrip()
    assert "gamma       trained        9" in table
    assert "blocks.0.bn1.weight" not in table
    text, _ = call(capsys, "runs", "show", name, "--tensors")
    assert text.startswith(f"{head}\n\n{spec}\n\n{result}\n\n")
    assert text.count(" gamma ") == 9
    assert "blocks.0.bn1.weight" in text
    tensors = json.loads(call(capsys, "runs", "show", name, "--json", "--tensors")[0])["inputs"]
    assert len(tensors["tensors"]) == 9 * 2 + 2 + 9 + 27  # affine, classifier, weights, statistics


def test_runs_that_have_not_ended_well_are_shown_too(here, capsys, monkeypatch):
    def interrupted(*arguments, **keywords):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("gammabeta.run.train_epochs", interrupted)
        assert main(TRAIN) == 130
    capsys.readouterr()
    stopped = json.loads(call(capsys, "runs", "--json")[0])[0]["id"]
    text, _ = call(capsys, "runs", "show", stopped)
    assert text.startswith(f"run {stopped}: stopped, 0 of 2 epochs\n")
    assert "result" not in text
    assert main([*TRAIN, "--lr", "1e30", "--trainable", "all"]) == 1
    capsys.readouterr()
    failed = json.loads(call(capsys, "runs", "--json")[0])[1]["id"]
    text, _ = call(capsys, "runs", "show", failed)
    assert text.startswith(f"run {failed}: failed, 0 of 2 epochs\n")
    assert "error           the training loss became" in text


def test_one_epoch_is_no_epochs(here, capsys):
    arguments = changed(epochs=1, subsample=32)
    for each in (arguments, ["runs"], ["report"]):
        out, err = call(capsys, *each)
        assert not re.search(r"\b1 (epochs|steps)\b", out + err)
    assert "1 step an epoch, 1 epoch: about" in "".join(call(capsys, *arguments, "--seed", "1"))


@pytest.mark.filterwarnings("always")
def test_a_note_is_said_once(here, capsys):
    _, err = call(capsys, *TRAIN, "--trainable", "random:999", "--seeds", "0-1")
    assert err.count("gammabeta: note: random:999 is more than a filter has") == 1
    _, err = call(capsys, *TRAIN, "--trainable", "random:999", "--seed", "2")  # in each call
    assert err.count("gammabeta: note: random:999 is more than a filter has") == 1


def test_the_default_folder_may_be_missing(here, capsys):
    assert call(capsys, "runs")[0] == f"{no_runs('runs')}\n"
    assert json.loads(call(capsys, "runs", "--json")[0]) == []


def test_one_odd_folder_does_not_hide_the_others(here, capsys):
    result = json.loads(call(capsys, *TRAIN, "--json")[0])
    (here / "runs" / "zz").mkdir()
    (here / "runs" / "zz" / "spec.json").write_text('{"format": 1}')
    (here / "runs" / "zz" / "inputs.json").write_text("{}")
    call(capsys, *TRAIN, "--seed", "1")
    hurt = next(p for p in (here / "runs").glob("*/metrics.jsonl") if result["id"] not in str(p))
    hurt.write_text("garbage\n")
    rows = {row["id"]: row for row in json.loads(call(capsys, "runs", "--json")[0])}
    assert len(rows) == 3
    assert rows[result["id"]]["status"] == "ok"
    assert rows[hurt.parent.name]["status"] == "damaged"
    assert "line 1 is damaged" in call(capsys, "runs")[0]


def test_brackets_in_a_regular_expression_are_shown_as_they_are(here, capsys):
    _, err = call(capsys, *TRAIN, "--trainable", r"name:.*[0-9]\.weight|[/x].*|:smile:")
    assert r"name:.*[0-9]\.weight|[/x].*|:smile:" in err
    assert r"name:.*[0-9]\.weight|[/x].*|:smile:" in call(capsys, "runs")[0]


@pytest.mark.parametrize("data", [b"garbage", b"", None], ids=["garbage", "empty", "gone"])
def test_a_run_whose_spec_is_damaged_is_listed_and_can_be_removed(here, capsys, data):
    name = json.loads(call(capsys, *TRAIN, "--json")[0])["id"]
    hurt = here / "runs" / name / "spec.json"
    hurt.write_bytes(data) if data is not None else hurt.unlink()
    (row,) = json.loads(call(capsys, "runs", "--json")[0])
    assert (row["id"], row["status"]) == (name, "damaged")
    listed, _ = call(capsys, "runs")
    assert f"\n{name} damaged: runs/{name}" in listed
    assert main(["runs", "show", name]) == main(TRAIN) == main(["report"]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert [line.startswith("gammabeta: ") for line in errors] == [True] * 3
    assert name in errors[0]
    assert name in errors[1]
    call(capsys, "runs", "rm", name[:4])
    assert list((here / "runs").iterdir()) == []
    call(capsys, *TRAIN)


def test_several_runs_are_removed_all_or_none(here, capsys):
    names = [
        json.loads(call(capsys, *TRAIN, "--seed", seed, "--json")[0])["id"] for seed in range(3)
    ]
    assert main(["runs", "rm", names[0], names[1], "nosuch"]) == 2
    assert "no run 'nosuch'" in capsys.readouterr().err
    with RunFolder.open(here / "runs" / names[1]).lock():
        assert main(["runs", "rm", *names]) == 1
        assert f"run {names[1]} is being trained" in capsys.readouterr().err
    assert len(list((here / "runs").iterdir())) == 3
    out, _ = call(capsys, "runs", "rm", names[0], "--runs", "runs", names[1], names[0][:6])
    assert out == f"removed run {names[0]}\nremoved run {names[1]}\n"
    assert [each.name for each in (here / "runs").iterdir()] == names[2:]
    assert json.loads(call(capsys, "runs", "rm", names[2], "--json")[0]) == {"removed": names[2:]}


def test_a_link_that_leads_in_a_circle_hides_nothing(here, capsys):
    write_binary(here / "data", "cifar10", arrays(20, 10), arrays(10, 10))
    (here / "data" / "loop").symlink_to("loop")
    call(capsys, "train", "--data", "cifar10", "--data-dir", "data", "--model", "cifar_resnet_8_4",
         "--epochs", "1", "--batch-size", "20")  # fmt: skip


def test_models_lists_every_network_of_the_paper(here, capsys):
    rows = json.loads(call(capsys, "models", "--json")[0])
    assert [row["name"] for row in rows] == list(PAPER_NETWORKS)
    by_name = {row["name"]: row for row in rows}
    assert by_name["cifar_resnet_866"] == {
        "name": "cifar_resnet_866", "total": 13_979_930, "bn": 64_736, "shortcut_bn": 192,
        "output": 650, "shortcut": 2_560,
    }  # fmt: skip
    table, _ = call(capsys, "models")
    assert "13,979,930" in table
    assert max(len(line) for line in table.splitlines()) <= 120


def test_report_writes_one_page_about_all_runs(here, capsys):
    call(capsys, *TRAIN)
    call(capsys, "report", "--out", "page.html")
    page = (here / "page.html").read_text()
    assert page.startswith("<!DOCTYPE html>")
    assert "cifar_resnet_8_4" in page


def test_demo_trains_reports_and_does_nothing_the_second_time(here, capsys, monkeypatch):
    specs = [
        spec.replace(epochs=1, subsample=128, model="cifar_resnet_8_4")
        for spec in demo.demo_specs()
    ]
    monkeypatch.setattr(demo, "demo_specs", lambda: specs)
    table, _ = call(capsys, "demo")
    for subset in demo.SUBSETS:
        assert subset in table
    assert (here / "report.html").stat().st_size > 50_000
    rows = json.loads(call(capsys, "demo", "--json")[0])
    assert [row["trainable"] for row in rows] == list(demo.SUBSETS)
    assert rows[0]["trained"] == 0
    assert rows[-1]["trained"] == rows[-1]["total"]
    _, err = call(capsys, "demo")
    assert "left" not in err
    assert err.startswith("note: all 8 runs finished earlier and are not trained")
    assert len(list((here / "runs").iterdir())) == 8


def test_the_demos_specs_are_the_papers_network_and_eight_subsets():
    specs = demo.demo_specs()
    assert {spec.model for spec in specs} == {"cifar_resnet_14"}
    assert {spec.data for spec in specs} == {"digits"}
    assert [spec.trainable for spec in specs] == list(demo.SUBSETS)
    assert len({spec.id for spec in specs}) == 8


def test_the_program_starts_and_reports_its_errors(here):
    command = [sys.executable, "-m", "gammabeta"]
    good = subprocess.run([*command, "--version"], capture_output=True, text=True, check=False)
    assert (good.returncode, good.stdout.strip()) == (0, gammabeta.__version__)
    bad = subprocess.run(
        [*command, "train", "--model", "cifar_resnet_15"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (bad.returncode, bad.stdout, bad.stderr.count("\n")) == (2, "", 1)


def test_a_run_that_fails_exits_with_one_and_one_line(here, capsys):
    code = main([*TRAIN, "--lr", "1e30", "--trainable", "all"])
    err = capsys.readouterr().err
    assert code == 1
    assert "try a smaller learning rate" in err.splitlines()[-1]
    assert "Traceback" not in err
    rows = json.loads(call(capsys, "runs", "--json")[0])
    assert rows[0]["status"] == "failed"
    assert "try a smaller" in rows[0]["error"]
    assert "failed: the training loss became" in call(capsys, "runs")[0]


def test_help_names_every_command_and_flag(here, capsys):
    with pytest.raises(SystemExit) as done:
        main(["--help"])
    assert done.value.code == 0
    out = capsys.readouterr().out
    for name in ("demo", "train", "runs", "models", "report", "bench"):
        assert f" {name} " in out
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    out = capsys.readouterr().out
    for flag in (
        "--data-dir",
        "--engine",
        "--device",
        "--runs",
        "--json",
        "--print-spec",
        "--spec",
    ):
        assert flag in out
    assert "VALUE" not in out  # it says which values there are
    for values in CHOICES.values():
        assert "{" + ",".join(values) + "}" in out
