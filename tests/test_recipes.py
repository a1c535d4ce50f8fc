"""What the non-author report needs beside the paper's recipe, in whole runs and in every engine:
brightness, pixels in [0, 1], fewer test images, zero biases, everything frozen."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny_engines import fitting, make_engine, small_data

import gammabeta
from gammabeta import RunSpec, create_model
from gammabeta.build import load_data, make_network
from gammabeta.engine.fused import check_members
from gammabeta.errors import InputError
from gammabeta.spec import differing
from gammabeta.train import plan_of

SMALL = RunSpec(
    model="cifar_resnet_8_4", data="synthetic", epochs=2, batch_size=16, subsample=40,
    test_subsample=30, brightness=0.5, normalisation="none", flip=False, weight_decay=0, lr=0.01,
    momentum=0, schedule="constant",
)  # fmt: skip


def slow_batch(spec, data, epoch, start, stop):
    """The augmented images start..stop of an epoch, one at a time: (B, C, H, W)."""
    plan = plan_of(spec, epoch, len(data.train.labels))
    batch = []
    for i in plan.order[start:stop]:
        padding = spec.crop_padding
        image = np.pad(data.train.images[i], ((padding, padding), (padding, padding), (0, 0)))
        y, x = plan.shift[i]
        image = image[y : y + 32, x : x + 32] / 255 + float(plan.brightness[i])
        batch.append(np.clip(image, 0, 1).transpose(2, 0, 1))
    return torch.from_numpy(np.stack(batch)).float()


def test_every_engine_gets_bright_pixels_in_0_to_1_whatever_the_batches():
    data = load_data(SMALL)
    assert len(data.test.labels) == 30
    expected = slow_batch(SMALL, data, 1, 0, 40)
    assert expected.min() == 0  # clipped at both ends
    assert expected.max() == 1
    engines = fitting(SMALL)
    assert len(engines) == 3
    for engine in engines:
        made = make_engine(SMALL, data, engine)
        made.begin_epoch(plan_of(SMALL, 1, 40))
        for cut in (40, 16, 7):
            parts = [made.batches.images(at, min(at + cut, 40)) for at in range(0, 40, cut)]
            torch.testing.assert_close(torch.cat(parts), expected, rtol=0, atol=1e-6)
        images = torch.cat([images for images, _ in made.batches.test()])
        plain = torch.from_numpy(data.test.images).permute(0, 3, 1, 2).float() / 255
        assert torch.equal(images, plain)  # no brightness in the test


def test_sgd_without_momentum_and_schedule_is_the_plain_step():
    """Two steps of every engine against p -= lr * gradient, on the images made one at a time."""
    data = load_data(SMALL)
    twin, subset = make_network(SMALL, data.num_classes)
    trained = [twin.get_parameter(name) for name in subset.trained]
    plan = plan_of(SMALL, 0, 40)
    for start, stop in ((0, 16), (16, 32)):
        labels = torch.from_numpy(data.train.labels[plan.order[start:stop]])
        loss = F.cross_entropy(twin(slow_batch(SMALL, data, 0, start, stop)), labels)
        for parameter, gradient in zip(trained, torch.autograd.grad(loss, trained), strict=True):
            parameter.data.sub_(0.01 * gradient)
    for engine in fitting(SMALL):
        made = make_engine(SMALL, data, engine)
        made.begin_epoch(plan)
        made.step(0, 16, 1.0)
        made.step(16, 32, 1.0)
        for name in subset.trained:
            ours = made.model.get_parameter(name)
            torch.testing.assert_close(ours, twin.get_parameter(name), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("schedule", ["linear_cosine", "cosine_restarts", "ramp"])
def test_a_stopped_run_ends_with_the_same_numbers(tmp_path, schedule):
    spec = SMALL.replace(schedule=schedule, optimizer="adam", epochs=3)
    if schedule != "ramp":
        spec = spec.replace(schedule_steps=4)
    whole = gammabeta.train(spec, tmp_path / "whole")

    def stop(event):
        if getattr(event, "record", {}).get("epoch") == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        gammabeta.train(spec, tmp_path / "stopped", listen=stop)
    again = gammabeta.train(spec, tmp_path / "stopped")
    clock = ("seconds", "evaluation_seconds")
    records = [
        [{key: each[key] for key in each if key not in clock} for each in run.metrics]
        for run in (whole, again)
    ]
    assert records[0] == records[1]
    assert whole.folder.inputs["data"]["test"] == 30


def test_everything_frozen_has_a_constant_test_loss(tmp_path):
    """As in Keras, where a frozen BatchNorm works in inference mode: mean 0, variance 1."""
    spec = SMALL.replace(
        trainable="none", statistics="frozen", optimizer="adam", norm_init="ones",
        bias_init="zeros", model="report_resnet20", batch_size=40,
    )  # fmt: skip
    run = gammabeta.train(spec, tmp_path)
    losses = [record["test_loss"] for record in run.metrics]
    assert losses[0] == losses[1]
    data = load_data(spec)
    model = create_model(spec.model, norm_init="ones", bias_init="zeros", seed=spec.seed)
    pixels = torch.from_numpy(data.test.images).permute(0, 3, 1, 2).float() / 255
    with torch.no_grad():
        logits = model.eval()(pixels)  # the statistics of the start
    expected = F.cross_entropy(logits, torch.from_numpy(data.test.labels)).item()
    assert losses[0] == pytest.approx(expected, rel=1e-4)
    # Frozen weights alone freeze nothing of this in torch: statistics follow the data.
    drifting = gammabeta.train(spec.replace(statistics="track"), tmp_path)
    losses = [record["test_loss"] for record in drifting.metrics]
    assert losses[0] != losses[1]


def test_biases_start_at_zero_and_move_no_other_draw():
    usual, zeros = (
        create_model("report_resnet20", bias_init=init) for init in ("uniform", "zeros")
    )
    for name, value in zeros.named_parameters():
        is_bias = name.endswith(".bias") and ".bn" not in f".{name}"
        if is_bias:
            assert not value.any(), name
            assert usual.get_parameter(name).all(), name
        else:
            assert torch.equal(value, usual.get_parameter(name)), name
    with pytest.raises(InputError, match="did you mean zeros"):
        create_model("report_resnet20", bias_init="zero")


def test_members_cannot_differ_in_what_earlier_runs_did_not_have():
    model = create_model(SMALL.model)
    for change in ({"brightness": 0.0}, {"normalisation": "imagenet"}, {"bias_init": "zeros"}):
        other = SMALL.replace(**change)
        assert differing([SMALL, other]) == list(change)
        for pair in ([SMALL, other], [other, SMALL]):
            with pytest.raises(InputError, match=f"cannot differ in {next(iter(change))}"):
                check_members(pair, model, torch.device("cpu"))


def test_small_data_is_not_changed_by_asking_twice():
    loaded = {}
    first, second = load_data(SMALL, None, loaded), load_data(SMALL.replace(
        normalisation="imagenet", test_subsample=None), None, loaded)  # fmt: skip
    assert (first.mean, first.std) == ((0, 0, 0), (1, 1, 1))
    assert second.mean == small_data().mean
    assert len(second.test.labels) == 512
