"""A run that failed before its first epoch had ended takes the data of now when it is tried again,
as a broken image has to be repaired or left out; one that has trained anything never does."""

import errno
import json
import shutil
from pathlib import Path

import pytest
from few import SPEC

from gammabeta import InputError, RunError, train
from gammabeta.run import Start
from gammabeta.train import Step


@pytest.fixture(autouse=True)
def _quick(quick):
    pass


def edit(folder, change):
    """Change inputs.json as `change` does; gives what stood there and what stands there now."""
    path = folder / "inputs.json"
    was = json.loads(path.read_text())
    now = json.loads(path.read_text())
    change(now)
    path.write_text(json.dumps(now))
    return was, now


def other_data(inputs):
    inputs["data"]["sha256"] = "f" * 64


def other_start(inputs):
    frozen = next(row for row in inputs["tensors"] if row["sha256"])
    frozen["sha256"] = "f" * 64


def fails(event):
    if isinstance(event, Step):
        raise RunError("an image is broken")


@pytest.fixture
def begun(tmp_path):
    """The folder of a run that failed in its first epoch."""
    with pytest.raises(RunError, match="an image is broken"):
        train(SPEC, tmp_path / "runs", listen=fails)
    return tmp_path / "runs" / SPEC.id


@pytest.fixture
def trained(tmp_path):
    """The folder of a run that was stopped after its last epoch."""
    run = train(SPEC, tmp_path / "runs")
    (run.folder.path / "result.json").unlink()
    return run.folder.path


def losses(run):
    return [record["test_loss"] for record in run.metrics]


def test_what_has_not_trained_takes_the_data_of_now(begun, tmp_path):
    was, _ = edit(begun, other_data)
    heard = []
    again = train(SPEC, tmp_path / "runs", listen=heard.append)
    assert json.loads((begun / "inputs.json").read_text()) == was
    assert losses(again) == losses(train(SPEC, tmp_path / "alone"))
    (start,) = [event for event in heard if isinstance(event, Start)]
    assert start.notes == ("it had not trained yet, so it begins with the data of now",)


def records_alone(folder, monkeypatch):
    shutil.rmtree(folder / "checkpoint")
    (folder / "LAST").unlink()


def pointer_alone(folder, monkeypatch):
    shutil.rmtree(folder / "checkpoint")
    (folder / "metrics.jsonl").unlink()


def damaged_checkpoints(folder, monkeypatch):
    for path in folder.glob("checkpoint/*/state.safetensors"):
        path.write_bytes(b"")
    (folder / "LAST").unlink()
    (folder / "metrics.jsonl").unlink()


def nothing_to_be_seen(folder, monkeypatch):
    """As with too many open files: the checkpoints are there, but cannot be listed."""
    (folder / "LAST").unlink()
    (folder / "metrics.jsonl").unlink()
    listed = Path.iterdir

    def iterdir(path):
        if path == folder / "checkpoint":
            raise OSError(errno.EMFILE, "Too many open files")
        return listed(path)

    monkeypatch.setattr(Path, "iterdir", iterdir)


def nothing(folder, monkeypatch):
    pass


@pytest.mark.parametrize("left", [nothing, records_alone, pointer_alone, damaged_checkpoints,
                                  nothing_to_be_seen])  # fmt: skip
def test_what_has_trained_never_goes_on_with_other_data(trained, monkeypatch, left):
    left(trained, monkeypatch)
    _, now = edit(trained, other_data)
    before = {path: path.read_bytes() for path in trained.rglob("*") if path.is_file()}
    with pytest.raises(InputError, match="began with other data"):
        train(SPEC, trained.parent)
    assert json.loads((trained / "inputs.json").read_text()) == now
    after = {path: path.read_bytes() for path in before}
    assert {path.name for path in before if after[path] != before[path]} <= {"env.json", "lock"}


@pytest.mark.parametrize("change", [other_start, lambda inputs: [other_data(inputs),
                                                                 other_start(inputs)]])  # fmt: skip
def test_another_start_is_refused_whatever_the_data(begun, change):
    _, now = edit(begun, change)
    with pytest.raises(RunError, match="weight"):
        train(SPEC, begun.parent)
    assert json.loads((begun / "inputs.json").read_text()) == now


def test_inputs_that_say_no_data_are_not_renewed(begun):
    _, now = edit(begun, lambda inputs: inputs["data"].update(sha256=None))
    with pytest.raises(InputError, match="began with other data"):
        train(SPEC, begun.parent)
    assert json.loads((begun / "inputs.json").read_text()) == now
