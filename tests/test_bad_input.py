"""Wrong uses of the command line: exit code 2, one clear line, no traceback, nothing created."""

import json
import os
from pathlib import Path

import pytest
import torch
from one_line import check, run

from gammabeta.cli import main

SMALL = ["--data", "synthetic", "--model", "cifar_resnet_8_4", "--epochs", "1"]


# arguments after `gammabeta`, and what the one line must say
WORDS = [
    ("trian", "unknown command 'trian': did you mean train?"),
    ("frobnicate", "unknown command 'frobnicate': known: "),
    ("train --model resnet_14", "did you mean"),
    ("train --model cifar_resnet_15", "did you mean cifar_resnet_14 or cifar_resnet_20?"),
    ("train --model cifar_vgg_12", "did you mean cifar_vgg_11 or cifar_vgg_13?"),
    ("train --model imagenet_resnet_19", "did you mean imagenet_resnet_18"),
    ("train --model cifar_resnet_14_0", "between 1 and 4096 filters"),
    ("train --trainable bm", "did you mean bn"),
    ("train --trainable bn+outptu", "did you mean output"),
    ("train --trainable random:0", "K = 1 or more"),
    ("train --trainable random", "did you mean random:2"),
    ("train --trainable random:two", "random:K"),
    ("train --trainable bn-bn", "write none"),
    ("train --trainable all-random:2", "cannot be taken away"),
    ("train --trainable name:(", "no regular expression"),
    ("train --trainable name:nothing", "selects nothing here; the network has"),
    ("train --trainable=", "the subset is empty"),
    ("train --model cifar_vgg_11 --trainable shortcut", "selects nothing here"),
    ("train --epochs -3", "--epochs is -3: write a value of at least 1"),
    ("train --epochs 0", "at least 1"),
    ("train --epochs ten", "'ten' is not a whole number"),
    ("train --epochs 1.5", "'1.5' is not a whole number"),
    ("train --epochs 1000001", "is 1000001: write a value of at least 1 and at most 1000000"),
    ("train --batch-size 0", "at least 1"),
    ("train --batch-size 10000001", "--batch-size is 10000001: write a value of at least 1 and at"),
    ("train --momentum 1.0000001", "is 1.0000001: write a value of at least 0 and below 1"),
    ("train --weight-decay-by-role gamma=-0.1234567", "gamma=-0.1234567 is below 0"),
    ("train --validation 0.00001234567", "--validation is 0.00001234567, 0 of the 2,048"),
    ("compact 01 --threshold -1234567.5", "--threshold is -1234567.5: write 0 or more"),
    ("train --batch-size 4096", "--batch-size 4096 is larger than the 2048 training images"),
    ("train --seed -1", "at least 0"),
    ("train --seed 1e3", "not a whole number"),
    ("train --lr nan", "gammabeta: --lr must be a finite number"),
    ("train --lr inf", "lr must be a finite number"),
    ("train --lr fast", "'fast' is not a number"),
    ("train --lr 1/0", "'1/0' is not a number"),
    ("train --lr -1", "lr is -1"),
    ("train --momentum 1", "below 1"),
    ("train --weight-decay -0.1", "at least 0"),
    ("train --optimizer adma", "did you mean adam"),
    ("train --optimizer adam --momentum 0.9", "--momentum belongs to sgd: leave it out with adam"),
    ("train --optimizer adam --betas 0.9", "two numbers"),
    ("train --betas 0.9,0.99", "--betas belongs to adam"),
    ("train --nesterov --momentum 0", "momentum above 0"),
    ("train --optimizer adam --nesterov", "--nesterov belongs to sgd"),
    ("train --schedule cosine --drop-factor 0.5", "--drop-factor belongs to the step schedule"),
    ("train --schedule-steps 9", "--schedule-steps belongs to the cosines: leave it out with step"),
    ("train --brightness 2", "--brightness is 2: write a value of at least 0 and at most 1"),
    ("train --normalisation imagnet", "did you mean imagenet"),
    ("train --data digits --test-subsample 1001", "--test-subsample is 1001, but digits has 1,000"),
    ("train --schedule cosin", "did you mean cosine"),
    ("train --drops 80,120", "between 0 and 1"),
    ("train --drops 3/4,1/2", "must rise"),
    ("train --drops half", "not a list of numbers"),
    ("train --drops=", "'' is not a list of numbers such as 1/2,3/4"),
    ("train --optimizer adam --betas=,", "',' is not a list of numbers"),
    ("sweep --members drops=;1/2", "drops: '' is not a list of numbers"),
    ("train --schedule cosine --drops 1/2", "--drops belongs to the step schedule"),
    ("train --warmup-epochs 5", "below 1"),
    ("train --label-smoothing 1", "below 1"),
    ("train --weight-init kaiming", "did you mean kaiming_"),
    ("train --norm-init one", "did you mean ones"),
    ("train --statistics freeze", "did you mean frozen"),
    ("train --precision fp16", "did you mean"),
    ("train --lr-by-role output", "not a list such as output=0.01"),
    ("train --lr-by-role head=0.1", "unknown role 'head'"),
    ("train --weight-decay-by-role gamma=-1", "write 0 or more"),
    ("train --subsample 0", "1 or more"),
    ("train --subsample 3000", "2048"),
    ("train --random-labels 2", "at most 1"),
    ("train --data cifar11", "did you mean cifar10"),
    ("train --engine fast", "unknown engine 'fast'"),
    ("train --device gpu", "write auto, cpu"),
    ("train --device meta", "not supported"),
    ("train --epocs 3", "did you mean --epochs"),
    ("train --lr", "expected one argument"),
    ("train extra", "unknown argument 'extra': leave it out"),
    ("train bn", "unknown argument 'bn': write --trainable bn"),
    ("train all-bn", "write --trainable all-bn"),
    ("train cifar_vgg_11", "write --model cifar_vgg_11"),
    ("demo bn", "unknown argument 'bn': leave it out"),
    ("train --spec missing.json", "--spec: cannot read missing.json (No such file or directory)"),
    ("train --data cifar10 --data-dir missing", "--data-dir missing does not exist"),
    ("runs show", "which run?"),
    ("runs show 0123", "no run"),
    ("runs rm 0123", "no run"),
    ("runs list 0123", "runs show 0123"),
    ("runs stop", "unknown action 'stop': did you mean show or list?"),
    ("runs shwo 0123", "unknown action 'shwo': did you mean show?"),
    ("runs --runs nosuch", "--runs: there are no runs in nosuch, for there is no such folder"),
    ("runs --runs nosuch --json", "--runs: there are no runs in nosuch"),
    ("runs show 0123 --runs nosuch", "--runs: there are no runs in nosuch"),
    ("runs --runs=", "has no name"),
    ("runs --tensors", "--tensors belongs to gammabeta runs show"),
    ("runs rm 0123 --tensors", "--tensors belongs to gammabeta runs show"),
    ("runs show 0123 4567", "runs show takes one id: write gammabeta runs show 0123"),
    ("runs rm 0123 4567", "no runs in runs"),
    ("models --jsno", "did you mean --json"),
    ("report", "gammabeta: there are no runs in runs"),
    ("bench --model cifar_resnet_15", "--model: cifar_resnet_15: the depth must be 6D+2"),
    ("bench --trainable bm", "--trainable: unknown subset part 'bm'"),
    ("bench --trainable none", "--trainable: nothing trains"),
    ("bench --precision fp16", "did you mean bf16 or fp32"),
    ("bench --contenders foo", "--contenders: unknown contender 'foo': write some of torch"),
    ("bench --contenders ,", "no contender is named"),
    ("bench --contenders torch-graph --device cpu", "a CUDA graph needs a GPU; leave it out"),
    ("bench --trainable all --contenders fused", "fused cannot take part: it trains bn"),
    ("bench --repeats 4", "--repeats is 4: write 5 or more"),
    ("bench --batch-size 0", "--batch-size is 0"),
    ("bench --batch-size 1", "--batch-size is 1, too few for BatchNorm"),
    ("bench --device gpu", "--device: unknown device 'gpu'"),
    ("bench --out nowhere/bench.json", "--out: there is no folder nowhere: make it"),
    ("report --runs nosuch", "--runs: there are no runs in nosuch"),
    ("demo --epochs 3", "unknown argument '--epochs'"),
    ("--jsno", "unknown argument '--jsno'"),
    ("report --out missing/page.html", "--out: there is no folder missing"),
    ("report --out .", "is a folder"),
    ("demo --out missing/page.html", "there is no folder missing"),
    ("demo --out .", "is a folder"),
    ("train --trainable name:a{99999999999999999999}", "no regular expression"),
    ("train --trainable random:" + "9" * 5000, "random:K"),
    ("train --model cifar_resnet_" + "9" * 5000, "unknown network"),
    ("train --model cifar_resnet_14_" + "9" * 5000, "unknown network"),
    ("train --lr " + "9" * 400 + "/3", "is not a number"),
    ("train --drops " + "9" * 400 + "/3", "not a list of numbers"),
    ("train --seed " + "9" * 400, "seed must be a whole number"),
    ("train --lr-by-role beta=0.1,beta=0.2", "names a role twice"),
    ("train --lr-by-role output=0.1", "of which nothing trains under 'bn'"),
    ("train --data-dir somewhere", "needs no files"),
    ("train --runs=", "has no name"),
    ("train --runs " + "r" * 300, "choose another"),
    ("train --print-spec --model nonsense", "unknown network"),
    ("train --print-spec --trainable name:nothing", "selects nothing here"),
    ("train --print-spec --lr-by-role output=1", "--lr-by-role names 'output'"),
    ("train --print-spec --data-dir x", "--print-spec runs nothing: leave out --data-dir"),
    ("train --print-spec --engine eager --device cpu", "leave out --engine, --device"),
    ("train --print-spec --runs runs", "leave out --runs"),
    ("train --seeds x", "'x' is no seed and no range of seeds: write for example 0-4 or 0,3,7"),
    ("train --seeds 0,,1", "'' is no seed"),
    ("train --seeds 0--2", "'0--2' is no seed"),
    ("train --seeds -1", "'-1' is no seed"),
    ("train --seeds=", "write for example 0-4"),
    ("train --seeds 4-0", "'4-0' runs backwards: write 0-4"),
    ("train --seeds 0-99999999999999999", "more than 10,000 seeds"),
    ("train --seeds " + "9" * 19, "--seeds: seed is 9999999999999999999: write "),
    ("train --seeds 0-2 --seed 1", "seed is given twice, by --seeds and --seed: write one"),
    ("train --seeds 0-2 --print-spec", "--print-spec prints one spec: leave out --seeds"),
    ("train --seeds 0-2 --lr -1", "--lr is -1"),
    ("train --seeds 0-2 --in-step 0", "--in-step is 0: write 1 or more"),
    ("train --seeds 0-2 --in-step x", "'x'"),
    ("train --seeds 0-2 --device gpu", "--device: unknown device"),
    ("train --seeds 0-2 --runs=", "has no name"),
    ("train --in-step 2", "--in-step belongs to several runs: leave it out, or write --seeds"),
    ("train --members lr=1", "unknown argument '--members'"),
    ("sweep", "a sweep of what? write for example --members lr=0.01,0.1"),
    ("sweep --members", "expected one argument"),
    ("sweep --members lr", "'lr' has no values: write for example lr=0.01,0.1"),
    ("sweep --members lr=", "'lr=' has no values: write at least one"),
    ("sweep --members weight_dekay=0", "unknown field 'weight_dekay': did you mean weight_decay "),
    ("sweep --members lr=0.1,fast", "lr: 'fast' is not a number"),
    ("sweep --members lr=0.1,-1", "--members: lr is -1: write a value of at least 0"),
    ("sweep --members flip=yes,maybe", "flip: 'maybe' is not yes or no"),
    ("sweep --members seed=2-1", "'2-1' runs backwards: write 1-2"),
    ("sweep --members drops=1/2,3/4;3/4,1/2", "--members: drops must rise"),
    ("sweep --members lr-by-role=output=1;beta=1", "names 'output', of which nothing trains"),
    ("sweep --members engine=eager,lean", "write --engine"),
    ("sweep --members data-dir=a,b", "of how it is executed: write --data-dir"),
    ("train --lr 0.1 --lr 0.2", "--lr is given twice: write it once"),
    ("train --flip --no-flip", "--flip is given twice"),
    ("train --engine eager --engine eager", "--engine is given twice"),
    ("bench --model cifar_resnet_8 --model cifar_resnet_14", "--model is given twice"),
    ("train --seeds 0-1 --dry-run", "--dry-run belongs to gammabeta sweep: write gammabeta sweep"),
    ("train --dry-run", "--dry-run belongs to gammabeta sweep: write --print-spec instead"),
    ("sweep --members trainable=bn,bm", "did you mean bn"),
    ("sweep --members trainable=bn,name:x", "--members: 'name:x' selects nothing here"),
    ("sweep --members trainable=bn,name:x --dry-run", "--members: 'name:x' selects nothing here"),
    ("sweep --members batch-size=32,4096", "--members: batch_size 4096 is larger than the 2048"),
    ("sweep --members lr=1 --members lr=2", "and --members lr: write --members lr=A,B"),
    ("sweep --members lr=1 --lr 2", "lr is given twice, by --members lr and --lr: write one"),
    ("sweep --seeds 0-1 --members seed=2", "seed is given twice, by --members seed and --seeds"),
    ("sweep --seeds 0-999 --members lr=1,2,3,4,5,6,7,8,9,10,11", "make over 10,000 runs"),
    ("sweep --seeds 0-1 --engine fused --trainable all", "the fused engine cannot run this"),
    ("sweep --seeds 0-1 --print-spec", "unknown argument '--print-spec'"),
    ("sweep --seeds 0-1 --spec missing.json", "--spec: cannot read missing.json"),
    ("sweep --members lr=0.1 --data-dir somewhere", "needs no files"),
    ("reproduce random --seeds 0-2", "unknown argument '--seeds': write --replicates N, how many"),
    ("reproduce random --seed=1", "'--seed': write --replicates N"),
    ("reproduce random --model cifar_resnet_14", "'--model': write --networks A,B"),
    ("tune --trainable bn", "'--trainable': write --subsets A,B"),
    ("sweep --replicates 3", "'--replicates': write --seeds 0-4 for five"),
    ("analyze 0123 --seeds 3", "'--seeds': it belongs to gammabeta train and sweep: leave it out"),
    ("models --seeds=3", "'--seeds': it belongs to gammabeta train and sweep: leave it out"),
    ("tune --print-spec", "'--print-spec': it belongs to gammabeta train: leave it out"),
]  # fmt: skip


@pytest.mark.parametrize(("line", "message"), WORDS, ids=[line for line, _ in WORDS])
def test_wrong_words(line, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = line.split()
    defaults = list(SMALL) if words[0] in ("train", "sweep") else []
    for flag in ("--data", "--model", "--epochs"):
        if flag in words and flag in defaults:  # the wrong value replaces the good one
            del defaults[defaults.index(flag) : defaults.index(flag) + 2]
    code, out, err = run(capsys, *words, *defaults)
    check(code, out, err, message, tmp_path)
    flags = [word.split("=")[0] for word in words if word.startswith("--")]
    assert not flags or any(flag in err for flag in flags), err


@pytest.mark.parametrize("there", [True, False])
@pytest.mark.parametrize(
    "line", ["runs show 01", "runs rm 01", "report", "analyze 01", "compact 01",
             "export 01 a.pt2", "delta 01 a.delta"],
)  # fmt: skip
def test_one_wording_where_there_are_no_runs(line, there, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    if there:
        Path("mine").mkdir()
    code, out, err = run(capsys, *line.split(), "--runs", "mine")
    missing = "" if there else ", for there is no such folder"
    wanted = (
        f"gammabeta: --runs: there are no runs in mine{missing}: train one first, for example "
        "gammabeta demo, or name the folder that has yours\n"
    )
    assert (code, out, err) == (2, "", wanted)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"] * there


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_gpu_that_is_absent(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    check(*run(capsys, "train", *SMALL, "--device", "cuda"), "0 GPUs found", tmp_path)


SPECS = [
    (
        "{",
        '(char 1)): write for example {"epochs": 2}, or start from what gammabeta train --print-',
    ),
    ('{"lr": 0.1, "lr": 0.2}', "'lr' is there twice: write it once"),
    ('{"lr_by_role": {"beta": 1, "beta": 2}}', "'beta' is there twice"),
    ("[]", "a spec is a JSON object"),
    ('{"learning_rate": 0.1}', "no field 'learning_rate'"),
    ('{"lr": "fast"}', "lr must be a finite number"),
    ('{"lr": true}', "lr must be a finite number"),
    ('{"epochs": 1.5}', "epochs must be a whole number"),
    ('{"flip": 1}', "flip must be true or false"),
    ('{"drops": "1/2"}', "drops must be a list of numbers"),
    ('{"format": 99}', "format 99"),
    ('{"model": null}', "model needs a value"),
    ('{"lr_by_role": {"head": 1}}', "lr_by_role: unknown role 'head'"),
    ('{"data": "synthetic", "batch_size": 4096}', "batch_size 4096 is larger than the 2048"),
    ('{"data": "synthetic", "subsample": 3000}', "subsample is 3000"),
    ('{"data": "synthetic", "trainable": "name:x"}', "'name:x' selects nothing here"),
    ('{"data": "synthetic", "lr_by_role": {"output": 1}}', "lr_by_role names 'output'"),
    ('{"trainable": ["bn"]}', "trainable must be a text"),
    ('{"lr_by_role": [1]}', "must map roles"),
    ('{"lr": NaN}', "finite"),
    ("\xff\xfe", "is no"),
    ('{"seed": ' + "9" * 400 + "}", "seed must be a whole number"),
    ('{"lr": ' + "9" * 400 + "}", "lr must be a finite number"),
    ("[" * 100000, "is no JSON"),
]


@pytest.mark.parametrize(("text", "message"), SPECS)
def test_wrong_spec_files(text, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("spec.json").write_bytes(text.encode("latin-1"))
    code, out, err = run(capsys, "train", "--spec", "spec.json")
    check(code, out, err, message, tmp_path, ["spec.json"])
    assert err.startswith("gammabeta: spec.json: ")


OVER_A_SPEC = [
    ("--batch-size 4096", "gammabeta: --batch-size 4096 is larger"),
    ("--trainable name:x", "gammabeta: --trainable: 'name:x' selects nothing"),
    ("--lr -1", "gammabeta: --lr is -1"),
    ("--epochs 2", "gammabeta: spec.json: warmup_epochs is 3: write a value of at least 0 and"),
    ("--data-dir x", "gammabeta: --data-dir: synthetic needs no files"),
    ("--runs spec.json", "gammabeta: --runs: spec.json is a file"),
]


@pytest.mark.parametrize(("line", "message"), OVER_A_SPEC)
def test_wrong_flags_over_a_spec_file(line, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("spec.json").write_text('{"data": "synthetic", "epochs": 4, "warmup_epochs": 3}')
    code, out, err = run(capsys, "train", "--spec", "spec.json", *line.split())
    check(code, out, err, message, tmp_path, ["spec.json"])


def test_runs_folders_that_cannot_be(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("")
    kept = ["file"]
    check(*run(capsys, "train", *SMALL, "--runs", "file"), "is a file", tmp_path, kept)
    check(*run(capsys, "train", *SMALL, "--runs", "file/runs"), "choose another", tmp_path, kept)


def test_a_run_folder_that_is_a_file(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    main(["train", *SMALL, "--print-spec"])
    name = capsys.readouterr().out.split()[1]
    Path("runs").mkdir()
    (Path("runs") / name).write_text("")
    kept = ["runs", f"runs/{name}"]
    check(*run(capsys, "train", *SMALL), "is no run folder", tmp_path, kept)


def test_a_run_folder_of_a_newer_format(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    main(["train", *SMALL, "--print-spec"])
    name = capsys.readouterr().out.split()[1]
    folder = Path("runs") / name
    folder.mkdir(parents=True)
    (folder / "spec.json").write_text(json.dumps({"format": 2}))
    kept = ["runs", f"runs/{name}", f"runs/{name}/spec.json"]
    check(*run(capsys, "train", *SMALL), "format 2", tmp_path, kept)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("closed").mkdir(mode=0o500)
    kept = ["closed"]
    arguments = ["train", *SMALL, "--runs", "closed/runs"]
    check(*run(capsys, *arguments), "choose another", tmp_path, kept)


def test_the_table_is_long_enough():
    assert len(WORDS) + len(SPECS) >= 60
