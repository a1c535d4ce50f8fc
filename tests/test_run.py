"""Runs that survive: the same twice, resumed after any kill, checked at every rebuild."""

import json
import os
import signal
import time

import numpy as np
import pytest
import torch

from gammabeta import InputError, RunError, RunSpec, create_model, load_run, train
from gammabeta.build import load_data
from gammabeta.engine import ENGINES
from gammabeta.engine.eager import EagerEngine
from gammabeta.gammas import gammas, small_share
from gammabeta.run import Start
from gammabeta.train import Epoch, Step

SPEC = RunSpec(
    model="cifar_resnet_8_4",
    data="synthetic",
    epochs=5,
    batch_size=32,
    subsample=100,
    crop_padding=2,
)


def tensors_of(run):
    checkpoint, notes = run.folder.load_checkpoint()
    assert not notes
    return checkpoint.tensors


def comparable(run):
    """Metrics without what may differ between two executions: the clock."""
    return [{k: v for k, v in r.items() if not k.endswith("seconds")} for r in run.metrics]


def assert_same(one, two):
    assert comparable(one) == comparable(two)
    first, second = tensors_of(one), tensors_of(two)
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


def test_a_run_from_spec_to_network(tmp_path):
    events = []
    run = train(SPEC, tmp_path / "runs", listen=events.append)
    assert isinstance(events[0], Start)
    assert sum(isinstance(e, Step) for e in events) == 5 * 4  # the short batch of 4 is kept
    assert [e.record["epoch"] for e in events if isinstance(e, Epoch)] == [1, 2, 3, 4, 5]
    assert run.result["status"] == "ok"
    assert run.accuracy == run.metrics[-1]["test_accuracy"] == run.result["test_accuracy"]
    assert run.metrics[-1]["lr"] == pytest.approx(0.001)
    assert run.result["seconds"] == pytest.approx(sum(r["seconds"] for r in run.metrics), abs=0.01)
    files = {path.name for path in run.folder.path.iterdir()}
    assert {"spec.json", "inputs.json", "env.json", "metrics.jsonl", "result.json", "LAST"} <= files
    session = json.loads((run.folder.path / "env.json").read_text())["sessions"][0]
    assert (session["engine"] in ENGINES, session["device"]) == (True, "cpu")
    assert session["torch"] == torch.__version__


def test_the_trained_network_is_rebuilt_from_seed_and_checkpoint(tmp_path):
    run = train(SPEC.replace(trainable="bn+random:2"), tmp_path)
    network = load_run(tmp_path / run.id).network()
    data = load_data(run.spec)
    images = torch.from_numpy(data.test.images).permute(0, 3, 1, 2).float() / 255
    images = (images - torch.tensor(data.mean)[:, None, None]) / torch.tensor(data.std)[
        :, None, None
    ]
    with torch.no_grad():
        right = network(images).argmax(1) == torch.from_numpy(data.test.labels)
    assert right.double().mean().item() == pytest.approx(run.accuracy, abs=0.003)
    share = small_share(torch.cat(list(run.gammas().values())))
    assert share == pytest.approx(run.result["small_gammas"])
    fresh = create_model(SPEC.model)
    assert gammas(network).keys() == gammas(fresh).keys()
    moved = network.conv.weight != fresh.conv.weight
    assert 0 < moved.sum() <= 2 * 4


def test_the_same_spec_twice_gives_bit_identical_results(tmp_path):
    assert_same(train(SPEC, tmp_path / "one"), train(SPEC, tmp_path / "two"))


def test_a_finished_run_is_not_run_again(tmp_path):
    train(SPEC, tmp_path)
    events = []
    again = train(SPEC, tmp_path, listen=events.append)
    assert again.result["status"] == "ok"
    assert events == []


@pytest.mark.parametrize(
    "subset", ["bn", "random:2+output", pytest.param("none", marks=pytest.mark.slow)]
)
def test_stopped_after_an_epoch_and_resumed_is_as_never_stopped(tmp_path, subset):
    spec = SPEC.replace(trainable=subset, optimizer="adam")
    whole = train(spec, tmp_path / "whole")

    class Stop(Exception):
        pass

    for stop_at in (1, 3, 4):

        def listen(event, stop_at=stop_at):
            if isinstance(event, Epoch) and event.record["epoch"] == stop_at:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            train(spec, tmp_path / "parts", listen=listen)
        assert load_run(tmp_path / "parts" / spec.id).folder.status == "stopped"
    starts = []
    parts = train(spec, tmp_path / "parts", listen=lambda e: starts.append(e))
    assert starts[0].epoch == 4
    assert any("resuming after epoch 4" in note for note in starts[0].notes)
    assert_same(whole, parts)


def test_a_resumed_run_says_that_its_engine_changed(tmp_path):
    def stop(event):
        if isinstance(event, Epoch):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(SPEC, tmp_path, engine="eager", listen=stop)
    starts = []
    for engine in ("eager", "lean"):
        with pytest.raises(KeyboardInterrupt):
            train(SPEC, tmp_path, engine=engine, listen=lambda e: (starts.append(e), stop(e)))
    notes = [each.notes[-1] for each in starts if isinstance(each, Start)]
    assert notes == [
        "resuming after epoch 1",
        "resuming after epoch 2 with the lean engine, before it was eager: the same numbers up to "
        "rounding",
    ]


def test_killed_at_ten_random_moments_is_as_never_killed(tmp_path):
    whole = train(SPEC, tmp_path / "whole")
    started = time.perf_counter()
    train(SPEC, tmp_path / "timed")
    length = time.perf_counter() - started
    seed = time.time_ns()
    print(f"random moments of seed {seed}")  # shown if this fails
    draw = np.random.default_rng(seed)
    kills, finished = 0, False
    while not finished:
        child = os.fork()
        if child == 0:
            code = 1
            try:
                train(SPEC, tmp_path / "killed")
                code = 0
            finally:
                os._exit(code)
        if kills < 10:
            # Short enough that the run does not get to its end before it has been killed often.
            time.sleep(draw.uniform(0.05, 0.5) * length)
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        kills += os.WIFSIGNALED(status)
        assert os.WIFSIGNALED(status) or os.waitstatus_to_exitcode(status) == 0
        finished = not os.WIFSIGNALED(status) and kills >= 10
        if not os.WIFSIGNALED(status) and kills < 10:
            (tmp_path / "killed" / SPEC.id / "result.json").unlink()  # kill it while finishing
    assert kills >= 10
    assert_same(whole, load_run(tmp_path / "killed" / SPEC.id))


def test_a_damaged_checkpoint_is_noticed_and_the_one_before_is_used(tmp_path):
    whole = train(SPEC, tmp_path / "whole")
    train(SPEC, tmp_path / "hurt")
    path = tmp_path / "hurt" / SPEC.id
    (path / "result.json").unlink()
    state = path / "checkpoint" / "5" / "state.safetensors"
    raw = bytearray(state.read_bytes())
    raw[len(raw) // 2] ^= 1
    state.write_bytes(raw)
    events = []
    again = train(SPEC, tmp_path / "hurt", listen=events.append)
    assert "checkpoint 5 is damaged" in events[0].notes[0]
    assert events[0].epoch == 4
    assert_same(whole, again)


def test_frozen_weights_that_do_not_match_are_refused_by_name(tmp_path):
    run = train(SPEC, tmp_path)
    path = run.folder.path / "inputs.json"
    (run.folder.path / "result.json").unlink()
    inputs = json.loads(path.read_text())
    for row in inputs["tensors"]:
        if row["name"] == "blocks.1.conv2.weight":
            row["sha256"] = "0" * 16
    path.write_text(json.dumps(inputs))
    with pytest.raises(RunError, match=r"'blocks.1.conv2.weight' was rebuilt"):
        train(SPEC, tmp_path)
    with pytest.raises(RunError, match=r"'blocks.1.conv2.weight' was rebuilt"):
        load_run(run.folder.path).network()


def test_other_data_under_the_same_name_are_refused(tmp_path):
    run = train(SPEC, tmp_path)
    (run.folder.path / "result.json").unlink()
    path = run.folder.path / "inputs.json"
    path.write_text(
        path.read_text().replace(json.loads(path.read_text())["data"]["sha256"], "f" * 64)
    )
    with pytest.raises(InputError, match="began with other data"):
        train(SPEC, tmp_path)


def test_a_diverging_run_fails_with_advice_and_can_be_seen(tmp_path):
    spec = SPEC.replace(lr=1e30, trainable="all")
    with pytest.raises(RunError, match=r"loss became .* try a smaller learning rate"):
        train(spec, tmp_path)
    run = load_run(tmp_path / spec.id)
    assert run.result["status"] == "failed"
    assert "try a smaller" in run.result["error"]
    with pytest.raises(RunError, match=r"has failed after epoch 0 of \d+: train it first, with "):
        _ = run.accuracy


def test_a_test_loss_that_is_not_finite_fails_the_run(tmp_path, monkeypatch):
    broken = {"test_loss": float("inf"), "test_accuracy": 0.1}
    monkeypatch.setattr(EagerEngine, "evaluate", lambda self: broken)
    with pytest.raises(RunError, match="the test loss became inf in epoch 1"):
        train(SPEC, tmp_path, engine="eager")
    assert load_run(tmp_path / SPEC.id).result["status"] == "failed"


def test_a_failed_run_that_is_tried_again_is_not_called_failed_meanwhile(tmp_path):
    spec = SPEC.replace(epochs=1)
    train(spec, tmp_path)
    (tmp_path / spec.id / "result.json").write_text('{"status": "failed", "error": "x"}')
    seen = []
    train(spec, tmp_path, listen=lambda e: seen.append(load_run(tmp_path / spec.id).folder.status))
    assert set(seen) == {"running"}


def test_an_edited_spec_is_refused(tmp_path):
    run = train(SPEC, tmp_path)
    path = run.folder.path / "spec.json"
    path.write_text(path.read_text().replace('"lr": 0.1', '"lr": 9.0'))
    with pytest.raises(InputError, match=r"another spec \(lr\)"):
        train(SPEC, tmp_path)
    with pytest.raises(InputError, match="edited or renamed"):
        load_run(run.folder.path)


def test_a_run_is_loaded_by_its_folder_its_id_or_the_start_of_it(tmp_path):
    one, two = (train(SPEC.replace(epochs=1, seed=seed), tmp_path) for seed in (0, 1))
    assert one.id[:6] != two.id[:6]
    for found in (
        load_run(one.folder.path),
        load_run(one.id, runs=tmp_path),
        load_run(one.id[:6], str(tmp_path)),
    ):
        assert (found.id, found.spec, found.result) == (one.id, one.spec, one.result)
    near = f"no run '{two.id[:-1]}x' in .*: did you mean {two.id}"
    with pytest.raises(InputError, match=near):
        load_run(f"{two.id[:-1]}x", runs=tmp_path)
    with pytest.raises(InputError, match="id is empty"):
        load_run("", runs=tmp_path)
    with pytest.raises(InputError, match="there are no runs in"):
        load_run(one.id, runs=tmp_path / "nosuch")


def test_a_stored_spec_that_is_none_is_named(tmp_path):
    run = train(SPEC.replace(epochs=1), tmp_path)
    path = run.folder.path / "spec.json"
    path.write_text(path.read_text().replace('"lr":', '"rate":'))
    with pytest.raises(InputError, match=r"spec\.json: a spec has no field 'rate'"):
        load_run(run.folder.path)


WRONG = [
    ({"batch_size": 101}, {}, "batch_size", "batch_size 101 is larger"),
    ({"subsample": 3000}, {}, "subsample", "subsample is 3000"),
    ({"trainable": "name:x"}, {}, "trainable", "'name:x' selects nothing here"),
    ({"lr_by_role": {"output": 1}}, {}, "lr_by_role", "lr_by_role names 'output'"),
    ({}, {"engine": "fast"}, "engine", "unknown engine 'fast'"),
    ({}, {"device": "gpu"}, "device", "unknown device 'gpu'"),
    ({}, {"data_dir": "x"}, "data_dir", "synthetic needs no files"),
    ({"data": "cifar10"}, {"data_dir": "x"}, "data_dir", "data_dir x does not exist"),
    ({"data": "cifar10", "subsample": None}, {}, "data_dir", "data_dir or GAMMABETA_DATA must"),
    ({}, {"runs": ""}, "runs", "has no name"),
    ({}, {"runs": "file"}, "runs", "file is a file: choose another folder for runs"),
]


@pytest.mark.parametrize(("changes", "keywords", "about", "message"), WRONG)
def test_errors_name_python_names_and_say_what_they_are_about(
    tmp_path, monkeypatch, changes, keywords, about, message
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError) as caught:
        train(SPEC.replace(**changes), **keywords)
    assert str(caught.value).startswith(message) or message in str(caught.value)
    assert "--" not in str(caught.value)
    assert caught.value.about == about
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_rates_for_roles_that_do_not_train_are_refused(tmp_path):
    spec = SPEC.replace(lr_by_role={"output": 0.1})
    with pytest.raises(InputError, match="names 'output', of which nothing trains"):
        train(spec, tmp_path / "runs")
    assert list(tmp_path.iterdir()) == []


def test_a_last_batch_of_one_image_is_refused_where_a_batchnorm_cannot_take_it(tmp_path):
    spec = SPEC.replace(model="imagenet_resnet_18_4", subsample=33)
    with pytest.raises(InputError, match="batch_size 32 leaves one of the 33 images"):
        train(spec, tmp_path / "runs")
    assert list(tmp_path.iterdir()) == []
    cifar = SPEC.replace(subsample=33, epochs=1)  # ends at 8 x 8: one image is enough
    assert train(cifar, tmp_path / "runs").result["status"] == "ok"


def test_an_unexpected_error_is_kept_with_its_traceback_and_retried(tmp_path, monkeypatch):
    def broken(self):
        raise MemoryError("no room")

    with monkeypatch.context() as patch:
        patch.setattr(EagerEngine, "evaluate", broken)
        with pytest.raises(MemoryError):
            train(SPEC, tmp_path, engine="eager")
    run = load_run(tmp_path / SPEC.id)
    assert (run.result["status"], run.result["error"]) == ("failed", "no room")
    assert "in broken" in run.result["traceback"]
    assert train(SPEC, tmp_path).result["status"] == "ok"


def test_a_full_disk_ends_clearly_with_the_last_checkpoint_intact(tmp_path, monkeypatch):
    whole = train(SPEC, tmp_path / "whole")
    real, calls = os.fsync, [0]

    def full(descriptor):
        calls[0] += 1
        if calls[0] > 40:
            raise OSError(28, "No space left on device")
        return real(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(RunError, match="No space left on device"):
            train(SPEC, tmp_path / "full")
    run = load_run(tmp_path / "full" / SPEC.id)
    checkpoint, notes = run.folder.load_checkpoint()
    assert checkpoint is not None
    assert not notes
    assert_same(whole, train(SPEC, tmp_path / "full"))


def test_two_processes_on_one_run_the_second_refuses(tmp_path):
    def listen(event):
        if isinstance(event, Start):
            train(SPEC, tmp_path)

    with pytest.raises(RunError, match="is being trained by process"):
        train(SPEC, tmp_path, listen=listen)


def test_a_batch_larger_than_the_data_is_refused_and_nothing_is_created(tmp_path):
    with pytest.raises(InputError, match="write 100 or less"):
        train(SPEC.replace(batch_size=101), tmp_path / "runs")
    with pytest.raises(InputError, match="3000"):
        train(SPEC.replace(subsample=3000), tmp_path / "runs")
    assert list(tmp_path.iterdir()) == []


def test_random_labels_and_subsample_change_the_data_alone():
    plain = load_data(SPEC)
    noisy = load_data(SPEC.replace(random_labels=1.0))
    assert len(plain.train.labels) == 100
    assert np.array_equal(plain.train.images, noisy.train.images)
    assert 0.75 < (plain.train.labels != noisy.train.labels).mean() < 1
    assert np.array_equal(plain.test.labels, noisy.test.labels)


def test_no_pickle_in_a_run_folder(tmp_path):
    run = train(SPEC, tmp_path)
    for path in run.folder.path.rglob("*"):
        if path.is_file():
            head = path.read_bytes()[:4]
            assert head[:1] != b"\x80", path
            assert head[:2] != b"PK", path


def test_it_learns(tmp_path):
    spec = SPEC.replace(subsample=512, epochs=6)
    trained = train(spec, tmp_path)
    untrained = train(spec.replace(trainable="none"), tmp_path)
    assert trained.metrics[-1]["train_accuracy"] > untrained.metrics[-1]["train_accuracy"] + 0.05
