"""Estimates held against known numbers: of steps timed by a clock of the test's own, and of runs
whose times are written into their folders."""

import sys
from types import SimpleNamespace

import pytest
import torch
from image_files import image_folder
from stores import write_point

from gammabeta import RunSpec
from gammabeta.cost import Costs, _evaluation, _like, operations
from gammabeta.data.imagenet import count_images
from gammabeta.reproduce import choose_experiments, plan
from gammabeta.store import list_runs

CPU = torch.device("cpu")
SPEC = RunSpec(model="cifar_resnet_14", trainable="bn", epochs=2, test_subsample=3000,
               subsample=9000)  # fmt: skip
EVALUATION = 1 + 1 / 2 * 3000 / 9000  # forward only


def finished(root, spec, seconds, steps=100, **session):
    """A run of `spec` that took so long a step, on this machine."""
    folder = write_point(root, spec, 0.4)
    folder.append_metrics({"epoch": spec.epochs + 1, "step": steps, "test_accuracy": 0.1})
    folder.write_result({"status": "ok", "seconds": steps * seconds})
    here = {"hardware": Costs([], device=CPU).hardware, "threads": torch.get_num_threads()}
    folder.record_session(here | {"engine": "eager"} | session)
    return folder


class Clock:
    """Ten milliseconds a step and one an image, as the engines of `seconds_per_step` take them."""

    def __init__(self, monkeypatch):
        self.now, self.batches = 0.0, []
        timed = SimpleNamespace(perf_counter=lambda: self.now)
        monkeypatch.setattr(sys.modules["gammabeta.train"], "time", timed)
        monkeypatch.setattr("gammabeta.cost.choose_engine", lambda *_: (self.engine, "test"))
        monkeypatch.setattr("gammabeta.cost.make_network", lambda *_: (None, None))

    def engine(self, model, subset, spec, data, device):
        clock = self

        class Engine:
            def __init__(self):
                self.data, self.spec = data, spec

            def state(self):
                return {}

            load = begin_epoch = lambda self, _: None

            def step(self, start, stop, factor):
                clock.batches.append(stop - start)
                clock.now += 0.01 + 0.001 * (stop - start)

            def totals(self):
                return 0.0, 0.0

        return Engine()


def test_a_scaled_estimate_is_steps_of_its_own_batch_by_operations(monkeypatch):
    clock = Clock(monkeypatch)
    steps = 2 * 71  # of 128, of 9,000 images
    found = Costs([], device=CPU).estimate([SPEC])
    assert set(clock.batches) == {128}
    assert found.measured == 0
    assert found.seconds == pytest.approx(steps * (0.01 + 0.128) * EVALUATION)
    deeper = SPEC.replace(model="cifar_resnet_32")
    more = operations("cifar_resnet_32", "bn", 32) / operations("cifar_resnet_14", "bn", 32)
    assert 2 < more < 3
    found = Costs([], device=CPU).estimate([deeper])
    assert found.seconds == pytest.approx(steps * 0.138 * more * EVALUATION)


@pytest.mark.parametrize(("batch", "timed", "steps"), [(32, 32, 282), (1024, 128, 9)])
def test_the_batch_that_is_timed_is_the_runs_own_up_to_128(monkeypatch, batch, timed, steps):
    clock = Clock(monkeypatch)
    found = Costs([], device=CPU).estimate([SPEC.replace(batch_size=batch)])
    assert (set(clock.batches), len(clock.batches)) == ({timed}, 3)
    per_image = (0.01 + 0.001 * timed) / timed
    assert found.seconds == pytest.approx(2 * steps * batch * per_image * EVALUATION)


@pytest.mark.parametrize("shared", [{"processes": 8, "sync_bn": True}, {"members": 4}])
def test_runs_that_shared_their_time_are_not_measurements_of_one(tmp_path, monkeypatch, shared):
    Clock(monkeypatch)
    run = finished(tmp_path / "a", SPEC.replace(seed=3), 0.5, **shared)
    assert Costs([run], device=CPU).estimate([SPEC]).measured == 0
    alone = finished(tmp_path / "b", SPEC.replace(seed=3), 0.5, processes=1, members=1)
    found = Costs([run, alone], device=CPU).estimate([SPEC])
    assert found.measured == 1
    assert found.seconds == pytest.approx(2 * 71 * 0.5 * EVALUATION)


@pytest.mark.parametrize(("steps", "measured"), [(4, 0), (49, 0), (50, 1)])
def test_a_run_of_a_few_steps_measures_nothing(tmp_path, monkeypatch, steps, measured):
    """Smoke runs have four, in a process that has just begun."""
    Clock(monkeypatch)
    run = finished(tmp_path, SPEC.replace(seed=3), 0.5, steps)
    found = Costs([run], device=CPU).estimate([SPEC])
    assert found.measured == measured
    step = 0.5 if measured else 0.01 + 0.128
    assert found.seconds == pytest.approx(2 * 71 * step * EVALUATION)


@pytest.mark.parametrize("size", [64, 128, 224])
def test_an_estimate_is_of_the_specs_own_image_size(monkeypatch, size):
    """By pixels, roughly: at 64 an image costs a twelfth of one at 224."""
    Clock(monkeypatch)
    images = {"imagenet": (12_800, 1_000)}
    spec = RunSpec(model="imagenet_resnet_18", data="imagenet", epochs=1, image_size=size)
    own = operations("imagenet_resnet_18", "bn", size) / operations("imagenet_resnet_18", "bn", 32)
    assert own == pytest.approx((size / 32) ** 2, rel=0.1)
    found = Costs([], device=CPU, images=images).estimate([spec])
    assert found.seconds == pytest.approx(
        100 * 0.138 * own * (1 + _evaluation(spec, *images["imagenet"]))
    )


def test_evaluation_is_forward_only():
    """Where nothing trains before the last layer, a step is no more than that."""
    shares = {
        subset: operations(SPEC.model, "none", 32) / operations(SPEC.model, subset, 32)
        for subset in ("none", "output", "bn", "all", "random:2")
    }
    costs = Costs([], device=CPU)
    for subset, share in shares.items():
        spec = SPEC.replace(trainable=subset)
        costs.known = {_like(spec.to_dict()): 1.0}
        steps = 71  # of an epoch
        told = costs.estimate([], [(spec, 3)]).seconds
        assert told == pytest.approx(3 * steps * share * 3000 / 9000, rel=0.1)
        assert costs.estimate([spec]).seconds == pytest.approx(2 * steps + 2 * told / 3)
    assert shares["none"] == 1
    assert shares["output"] > 0.99
    assert 0.45 < shares["bn"] < 0.6
    assert 0.3 < shares["all"] < 0.4
    assert shares["random:2"] == pytest.approx(shares["all"], rel=1e-3)


def test_of_several_runs_alike_the_median_counts(tmp_path):
    runs = [finished(tmp_path, SPEC.replace(seed=seed), step)
            for seed, step in ((1, 0.5), (2, 0.4), (3, 9.0))]  # fmt: skip
    found = Costs(runs, device=CPU).estimate([SPEC])
    assert found.seconds == pytest.approx(2 * 71 * 0.5 * EVALUATION)


def test_imagenet_has_as_many_images_as_runs_saw(tmp_path, monkeypatch):
    Clock(monkeypatch)
    spec = next(each for each in choose_experiments(["imagenet"])[0].points)
    whole = Costs([], device=CPU).estimate([spec]).seconds
    write_point(tmp_path, spec.replace(seed=5, subsample=100), None, train=100, test=3925)
    assert Costs(list_runs(tmp_path), device=CPU).estimate([spec]).seconds == whole
    write_point(tmp_path, spec.replace(seed=6), None, train=9469, test=3925)
    piece = Costs(list_runs(tmp_path), device=CPU).estimate([spec]).seconds
    steps = -(-9469 // spec.batch_size), -(-1_281_167 // spec.batch_size)
    shares = [1 + _evaluation(spec, train, test)
              for train, test in ((9469, 3925), (1_281_167, 50_000))]  # fmt: skip
    assert piece / whole == pytest.approx(steps[0] * shares[0] / (steps[1] * shares[1]))
    given = Costs(list_runs(tmp_path), device=CPU, images={"imagenet": (1_281_167, 50_000)})
    assert given.estimate([spec]).seconds == pytest.approx(whole)


def test_imagenet_has_as_many_images_as_a_given_folder_lists(tmp_path, monkeypatch):
    Clock(monkeypatch)
    root = image_folder(tmp_path / "images", train=4, val=2)  # of three classes
    assert count_images(root) == (12, 6)
    for path in root.rglob("*.JPEG"):  # which nobody opens
        path.write_bytes(b"no image")
    chosen = choose_experiments(["imagenet"])
    options = {"scale": "paper", "subsets": ["bn"], "networks": ["imagenet_resnet_18"]}
    [told] = plan(chosen, tmp_path / "runs", data_dir=root, **options)
    [whole] = plan(chosen, tmp_path / "runs", **options)
    assert told.estimate.seconds < whole.estimate.seconds / 1000
    [other] = plan(chosen, tmp_path / "runs", data_dir=tmp_path, **options)  # no images in it
    assert other.estimate.seconds == pytest.approx(whole.estimate.seconds)
