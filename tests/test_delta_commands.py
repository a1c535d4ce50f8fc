"""`gammabeta delta` and `gammabeta run-info`, right and wrong uses."""

import json

import pytest
import torch
from few import SPEC, few_images

import gammabeta
from gammabeta.cli import main

WRONG = [
    ("delta", "RUN, FILE"),
    ("delta nothing task.delta", "there are no runs in runs"),
    ("run-info", "DELTA"),
    (
        "run-info nothing.delta",
        "nothing.delta does not exist: name a file that gammabeta delta, or",
    ),
    ("run-info .", "cannot read '.'"),
    ("run-info junk", "junk is no delta"),
    ("run-info jnk", "jnk does not exist: did you mean junk?"),
    ("run-info 0123456789ab", "gammabeta delta 0123456789ab FILE writes its delta"),
    ("run-info " + 300 * "x", "File name too long"),
]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def call(capsys, *arguments):
    code = main([str(each) for each in arguments])
    out, err = capsys.readouterr()
    return code, out, err


def test_a_run_becomes_a_file_and_the_file_a_network(here, capsys, monkeypatch):
    few_images(monkeypatch)
    run = gammabeta.train(SPEC, engine="eager", device="cpu")
    code, out, _ = call(capsys, "delta", run.id[:6], "task.delta")
    assert code == 0
    assert "bn: 168 values (beta 84, gamma 84)" in out
    assert "cifar_resnet_8_4 (bias_init uniform, " in out
    network, rebuilt = run.network(), gammabeta.load_network("task.delta")
    for name, value in network.state_dict().items():
        assert torch.equal(value, rebuilt.state_dict()[name])
    assert call(capsys, "run-info", "task.delta")[:2] == (0, out)
    _, out, _ = call(capsys, "run-info", "task.delta", "--json")
    about = json.loads(out)
    assert about["info"]["run"] == run.id
    assert about["info"]["test_accuracy"] == run.accuracy
    assert gammabeta.RunSpec.from_dict(about["info"]["spec"]) == SPEC
    assert about["bytes"] == (here / "task.delta").stat().st_size < 10_000
    _, again, _ = call(capsys, "delta", run.id, "task.delta", "--json")
    assert json.loads(again) == about
    for file, message in (("no/x", "there is no folder no"), (".", ". is a folder: name a file")):
        code, out, err = call(capsys, "delta", run.id, file)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert message in err
    (run.folder.path / "result.json").unlink()
    code, out, err = call(capsys, "delta", run.id, "other.delta")
    assert (code, out) == (1, "")
    assert f"run {run.id} was stopped after " in err
    command = err.strip().partition("train it first, with gammabeta ")[2]
    assert main(command.split()) == 0  # and that is what finishes it
    assert run.folder.status == "ok"
    capsys.readouterr()
    with run.folder.lock():
        (run.folder.path / "result.json").unlink()
        code, out, err = call(capsys, "delta", run.id, "other.delta")
    assert (code, err.count("\n"), "wait until it has finished" in err) == (1, 1, True)
    assert sorted(path.name for path in here.iterdir()) == ["runs", "task.delta"]


@pytest.mark.parametrize(("words", "message"), WRONG)
def test_wrong_uses_are_one_line_and_leave_nothing(here, capsys, words, message):
    (here / "junk").write_bytes(b"\x10\0\0\0\0\0\0\0 no json at all!")
    code, out, err = call(capsys, *words.split())
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert message in err
    assert [path.name for path in here.iterdir()] == ["junk"]
