"""Wrong types from Python: one clear InputError that says what to write instead."""

import copy
import dataclasses
import inspect
import pickle

import pytest

import gammabeta
from gammabeta import InputError, RunSpec, create_model, grid, load_run, select, sweep, train

SPEC = RunSpec(model="cifar_resnet_8_4", data="synthetic", epochs=1)
MISTAKES = [
    (lambda: select("x", "bn"), "select takes a network, a torch.nn.Module, not 'x': make one"),
    (lambda: select(create_model("cifar_resnet_8_4"), 3), "a subset is a text such as 'bn', not 3"),
    (lambda: train({"lr": 0.1}), "train takes RunSpecs, not dict: write for example RunSpec(model"),
    (lambda: train(None), "train takes RunSpecs, not NoneType"),
    (lambda: sweep(SPEC), "sweep takes a list of RunSpecs: write sweep([spec])"),
    (lambda: sweep(3), "sweep takes a list of RunSpecs, not 3"),
    (lambda: sweep("bn"), "sweep takes a list of RunSpecs, not 'bn'"),
    (lambda: sweep([SPEC, {}]), "sweep takes RunSpecs, not dict"),
    (lambda: gammabeta.train_members(SPEC), "write train_members([spec])"),
    (lambda: grid({}, {"lr": [1]}), "grid takes RunSpecs, not dict"),
    (lambda: grid(SPEC, {"lr": 0.1}), "lr needs a list of values, not 0.1: write [0.1]"),
    (lambda: grid(SPEC, {"seed": 0}), "seed needs a list of values, not 0: write [0]"),
    (lambda: grid(SPEC, {"trainable": "bn"}), "not 'bn': write ['bn']"),
    (lambda: grid(SPEC, {"lr": []}), "lr needs a list of values, not []"),
    (
        lambda: RunSpec(epoch=3),
        "a spec has no field 'epoch': did you mean epochs?",
    ),
    (lambda: RunSpec("bn"), "what is 'bn'? name it: RunSpec(model='cifar_resnet_14')"),
    (lambda: dataclasses.replace(SPEC, learning=1), "a spec has no field 'learning'"),
    (lambda: load_run(123), "load_run takes a folder or an id, such as 'runs/0123456789ab', not"),
    (lambda: load_run(None, runs="runs"), "load_run takes a folder or an id"),
]


@pytest.mark.parametrize("number", range(len(MISTAKES)))
def test_one_clear_line(number, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    mistake, message = MISTAKES[number]
    with pytest.raises(InputError) as raised:
        mistake()
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)
    assert list(tmp_path.iterdir()) == []


def test_a_spec_is_still_an_ordinary_dataclass():
    assert dataclasses.replace(SPEC, seed=3) == SPEC.replace(seed=3)
    assert pickle.loads(pickle.dumps(SPEC)) == copy.deepcopy(SPEC) == SPEC
    assert "epochs" in inspect.signature(RunSpec).parameters
    with pytest.raises(dataclasses.FrozenInstanceError):
        SPEC.seed = 1
