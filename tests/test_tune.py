"""Fine-tuning: starting from a file of weights, images held out, a rate of its own for a subset."""

import json

import numpy as np
import pytest
import safetensors.torch
import torch
from few import SPEC, few_images
from image_files import image_folder

from gammabeta import InputError, RunError, create_model, disk, load_delta, load_run, train, tune
from gammabeta.build import load_data, make_network
from gammabeta.cli import main
from gammabeta.data import hold_out, load_dataset
from gammabeta.store import list_runs
from gammabeta.weights import keep_weights, kept_weights, load_weights

SMALL = SPEC.replace(epochs=1)
CPU = {"engine": "eager", "device": "cpu"}


@pytest.fixture(autouse=True)
def _here(quick, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GAMMABETA_CACHE", str(tmp_path / "cache"))


def pretrained(name="cifar_resnet_8_4", **options):
    """A network unlike any random start."""
    model = create_model(name, seed=7, norm_init="ones", **options)
    with torch.no_grad():
        for name, value in model.state_dict().items():
            value.fill_(5) if name.endswith("tracked") else value.add_(0.01)
    return model


@pytest.mark.parametrize("ending", ["safetensors", "pt", "nested.pt"])
def test_a_run_starts_from_a_file_of_weights(tmp_path, monkeypatch, ending):
    few_images(monkeypatch)
    model, path = pretrained(), tmp_path / f"w.{ending}"
    state = model.state_dict()
    if ending == "safetensors":
        safetensors.torch.save_file(state, path)
    else:
        wrapped = {"state_dict": {f"module.{key}": value for key, value in state.items()}}
        torch.save(wrapped if ending.startswith("nested") else state, path)
    spec = SMALL.replace(weights=keep_weights(path), trainable="output")
    assert spec.id != SMALL.replace(trainable="output").id
    made, _ = make_network(spec, 10)
    for name, value in made.state_dict().items():
        assert torch.equal(value, state[name]), name
    run = train(spec, **CPU)
    path.unlink()  # the run does not need it any more
    network = load_run(run.id, "runs").network()
    assert torch.equal(network.state_dict()["conv.weight"], state["conv.weight"])
    assert not torch.equal(network.state_dict()["fc.weight"], state["fc.weight"])


def test_a_head_of_other_classes_stays_random_and_nothing_else_may_differ():
    model = create_model("cifar_resnet_8_4", num_classes=3, seed=1)
    head = model.fc.weight.detach().clone()
    state = pretrained().state_dict()
    load_weights(model, state)
    assert torch.equal(model.fc.weight, head)
    assert torch.equal(model.bn.weight, state["bn.weight"])
    old = {key: value for key, value in state.items() if not key.endswith("tracked")}
    load_weights(create_model("cifar_resnet_8_4"), old)
    for wrong, message in (
        (state | {"more": head}, "they have 'more', and the network has not"),
        ({key: value for key, value in state.items() if key != "conv.weight"}, "no 'conv.weight'"),
        (state | {"bn.weight": torch.ones(5)}, r"their 'bn.weight' has shape \(5,\)"),
    ):
        with pytest.raises(InputError, match=message):
            load_weights(create_model("cifar_resnet_8_4"), wrong)


def test_files_that_hold_no_weights_are_refused_and_not_kept(tmp_path):
    torch.save(torch.nn.Linear(2, 2), tmp_path / "module.pt")
    torch.save({"epoch": 3}, tmp_path / "words.pt")
    (tmp_path / "junk").write_bytes(b"no weights")
    for name, message in (
        ("module.pt", "a whole pickled module is not read"),
        ("words.pt", "no state_dict of tensors"),
        ("junk", "holds no weights"),
        ("nothing.pt", "cannot read weights"),
        (".", "cannot read weights"),
    ):
        with pytest.raises(InputError, match=message):
            keep_weights(tmp_path / name)
    assert not (tmp_path / "cache").exists()
    with pytest.raises(InputError, match="give their file once more"):
        kept_weights("0" * 64)
    with pytest.raises(InputError, match="64 hex digits"):
        kept_weights("w.pt")


@pytest.mark.parametrize("name", ["synthetic", "imagenet"])
def test_held_out_images_are_the_last_and_no_test_image_is_among_them(tmp_path, name):
    folder = image_folder(tmp_path / "images") if name == "imagenet" else None
    whole = load_dataset(name, folder)
    data = hold_out(whole, 0.25)
    count = len(whole.train.labels)
    kept = count - round(count / 4)
    assert (len(data.train.labels), len(data.test.labels)) == (kept, count - kept)
    joined = np.concatenate([data.train.labels, data.test.labels])
    assert np.array_equal(joined, whole.train.labels)
    if name == "imagenet":
        assert data.test.name(0) == whole.train.name(kept)
    else:
        assert np.array_equal(data.test.images, whole.train.images[kept:])
    for share in (1e-5, 1 - 1e-5):
        with pytest.raises(InputError, match="leaves some on both sides"):
            hold_out(whole, share)


def test_each_subset_gets_the_rate_that_held_out_images_choose(monkeypatch):
    few_images(monkeypatch)
    subsets, rates = ["bn", "output"], [0.1, 1e-9]
    found = tune.tune(SMALL, subsets, rates, validation=0.2, **CPU)
    assert [each.subset for each in found] == subsets
    for each in found:
        assert [trial.lr for trial in each.trials] == [1e-9, 0.1]
        for trial in each.trials:
            run = load_run(trial.run, "runs")
            assert (run.spec.epochs, run.spec.validation) == (1, 0.2)
            data = run.folder.inputs["data"]
            assert (data["train"], data["test"]) == (56, 14)
            assert "not on test images" in data["source"]
            assert trial.accuracy == run.accuracy
        assert each.best.accuracy == max(trial.accuracy for trial in each.trials)
        data = each.run.folder.inputs["data"]
        assert (data["train"], data["test"], each.run.spec.validation) == (70, 50, 0.0)
        assert each.run.spec.lr == each.best.lr
    assert len(list_runs("runs")) == 6


def trials(*pairs):
    return tuple(tune.Trial(lr, accuracy, "id") for lr, accuracy in pairs)


def test_the_choice_and_the_hint():
    assert tune.choose(trials((0.1, None), (0.2, None))) is None
    assert tune.choose(trials((0.1, 0.5), (0.2, 0.5), (0.3, None))).lr == 0.1
    for rates, hint in (
        (trials((0.1, 0.5), (0.2, 0.6)), "higher"),
        (trials((0.1, 0.6), (0.2, 0.5)), "lower"),
        (trials((0.1, 0.4), (0.2, 0.6), (0.3, None)), ""),
        (trials((0.1, 0.6)), ""),
    ):
        assert tune.Tuned(rates, tune.choose(rates), None).hint == hint


def test_a_rate_that_diverges_is_one_less_and_a_subset_without_any_is_an_error(monkeypatch):
    few_images(monkeypatch)
    found = tune.tune(SMALL, ["all"], [0.01, 1e25], validation=0.2, **CPU)
    assert [trial.accuracy is None for trial in found[0].trials] == [False, True]
    with pytest.raises(RunError, match=r"all: no rate is left.*try a smaller learning rate"):
        tune.tune(SMALL, ["all"], [1e25], validation=0.2, **CPU)


def test_the_command_from_a_folder_and_a_file_to_a_table_and_deltas(tmp_path, capsys):
    folder = image_folder(tmp_path / "images")
    model = pretrained("imagenet_resnet_18_4", num_classes=10)
    torch.save(model.state_dict(), "w.pt")
    words = (
        f"tune --data-dir {folder} --model imagenet_resnet_18_4 --weights w.pt --image-size 16 "
        "--subsets bn+output,output --lrs 0.01,0.1 --epochs 1 --batch-size 5 --validation 0.25 "
        "--workers 1 --engine eager --device cpu --out tuned"
    ).split()
    assert main(words) == 0
    out, err = capsys.readouterr()
    assert "wrote tuned/tune.json and 2 deltas" in err
    assert "*: the rate of the run that was tested" in out
    rows = json.loads((tmp_path / "tuned/tune.json").read_text())
    assert [row["subset"] for row in rows] == ["bn+output", "output"]
    assert [len(row["rates"]) for row in rows] == [2, 2]
    run = load_run(rows[0]["run"], "runs")
    assert run.accuracy == rows[0]["test_accuracy"]
    assert run.folder.inputs["data"]["test"] == 6
    base = create_model("imagenet_resnet_18_4", num_classes=3)
    load_weights(base, model.state_dict())
    load_delta(base, "tuned/bn+output.delta")
    for name, value in run.network().state_dict().items():
        assert torch.equal(base.state_dict()[name], value), name
    assert main([*words, "--json"]) == 0  # everything is there: nothing trains
    out, err = capsys.readouterr()
    assert json.loads(out) == rows
    assert len(list_runs(tmp_path / "runs")) == 6


def test_the_folder_is_tried_first_and_written_whole(tmp_path, monkeypatch, capsys):
    how = ("--data", "synthetic", "--model", "cifar_resnet_8_4", "--engine", "eager", "--device",
           "cpu", "--epochs", "1", "--batch-size", "8", "--subsample", "40")  # fmt: skip
    out = tmp_path / "out"
    (out / "bn.delta").mkdir(parents=True)
    assert main(["tune", *how, "--subsets", "output,bn", "--out", str(out)]) == 2
    assert "cannot hold bn.delta (it is a folder): name another folder" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
    assert [path.name for path in out.iterdir()] == ["bn.delta"]

    def full(descriptor, data, write=disk.write_all):
        write(descriptor, data[:9])
        if data.startswith(b"[\n"):  # a list: of all files only tune.json is one
            raise OSError(28, "No space left on device")
        write(descriptor, data[9:])

    with monkeypatch.context() as patch:
        patch.setattr(disk, "write_all", full)
        (out / "tune.json").write_text("before")
        words = ["--lrs", "0.1", "--subsets", "output", "--out", str(out)]
        assert main(["tune", *how, *words]) == 1
    assert "could not write" in capsys.readouterr().err.splitlines()[-1]
    assert (out / "tune.json").read_text() == "before"
    assert {path.name for path in out.iterdir()} == {"bn.delta", "output.delta", "tune.json"}
    # Where every rate fails, the folder made for the deltas goes again.
    assert main(["tune", *how, "--lrs", "1e25", "--subsets", "all", "--out", "fresh"]) == 1
    assert not (tmp_path / "fresh").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--subsets bm", "did you mean bn"),
        ("--subsets bn,beta+gamma --lrs fast", "'fast' is not a list of numbers"),
        ("--lrs -1", "--lr is -1"),
        ("--validation 0", "--validation is 0: write a share"),
        ("--weights nothing.pt", "--weights: cannot read weights 'nothing.pt'"),
        (f"--weights {'0' * 64}", "give their file once more"),
        ("--lrs 0.1,0", "--lrs has 0, at which nothing trains"),
        ("--out file", "--out file is no folder"),
        ("--out file/in", "--out file/in is no folder"),
        ("--out nothing/in", "--out nothing/in is no folder"),
        (f"--out {'a' * 300}", "cannot become one (File name too long)"),
        (f"--subsets output+name:conv.weight{'|a' * 120}", "(File name too long): name another"),
        ("--subsets bn+output,output+bn", "two of one name"),
        ("--lr 0.1", "unknown argument '--lr': write --lrs A,B"),
        ("--data digits --data-dir .", "digits needs no files"),
    ],
)
def test_wrong_uses_say_what_to_write_and_leave_nothing(tmp_path, capsys, words, message):
    (tmp_path / "file").write_text("")
    extra = () if "--data" in words.split() else ("--data", "synthetic")
    how = ("--model", "cifar_resnet_8_4", "--engine", "eager", "--device", "cpu")
    code = main(["tune", *how, *extra, *words.split()])
    out, err = capsys.readouterr()
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert message in err
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("words", "model"),
    [
        ("--data digits", "cifar_resnet_14"),
        ("--data cifar10", "cifar_resnet_14"),
        ("--data digits --model imagenet_resnet_50", "imagenet_resnet_50"),
        ("--data imagenet", "imagenet_resnet_18"),
        ("", "imagenet_resnet_18"),
    ],
)
def test_the_network_fits_the_data_where_none_is_named(monkeypatch, words, model):
    taken = []

    def tuned(spec, *_, **__):
        taken.append((spec.model, spec.epochs, spec.schedule))
        raise InputError("enough")

    monkeypatch.setattr(tune, "tune", tuned)
    assert main(["tune", *words.split()]) == 2
    assert taken == [(model, 10, "cosine")]


def test_validation_comes_after_the_subsample():
    data = load_data(SMALL.replace(validation=0.2, test_subsample=5, random_labels=1.0))
    assert (len(data.train.labels), len(data.test.labels)) == (56, 5)
    whole = load_dataset("synthetic")
    assert np.array_equal(data.test.labels, whole.train.labels[56:61])
