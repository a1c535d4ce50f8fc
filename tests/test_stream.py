"""Batches of images that stay encoded: the same for any number of threads, and after a resume."""

import threading

import numpy as np
import pytest
import torch
from image_files import broken, image_folder, photo

from gammabeta import InputError, RunError, RunSpec, train
from gammabeta.data import Reading, load_dataset, subsample
from gammabeta.data.augment import epoch_plan, normalise
from gammabeta.data.crops import random_box, test_square, training_square
from gammabeta.data.decode import Picture
from gammabeta.engine.batches import Batches
from gammabeta.engine.stream import StreamedBatches, make_batches
from gammabeta.sweep import sweep

SPEC = RunSpec(model="imagenet_resnet_18_4", data="imagenet", image_size=16, batch_size=4, epochs=2)
CPU = torch.device("cpu")


@pytest.fixture
def folder(tmp_path):
    return image_folder(tmp_path / "images")


def made(folder, spec=SPEC, workers=2, **options):
    data = load_dataset("imagenet", folder, Reading(workers=workers, **options))
    return make_batches(data, spec, CPU)


def plan_of(batches, epoch=0, spec=SPEC):
    count = len(batches.data.train.labels)
    return epoch_plan(spec.seed, epoch, count, crop_padding=0, flip=spec.flip)


def epoch_of(batches, epoch=0, size=4):
    plan = plan_of(batches, epoch)
    batches.begin_epoch(plan)
    count = len(plan.order)
    starts = [(start, min(start + size, count)) for start in range(0, count, size)]
    return [(batches.labels(*each), batches.images(*each)) for each in starts]


def threads():
    return [each for each in threading.enumerate() if each.name.startswith("gammabeta-decode")]


def test_a_batch_is_each_image_cropped_flipped_and_normalised(folder):
    batches = made(folder)
    data, plan = batches.data, plan_of(batches, 1)
    (labels, images), *_ = epoch_of(batches, 1)
    assert images.dtype == torch.float32
    assert images.is_contiguous(memory_format=torch.channels_last)
    expected = []
    for index in plan.order[:4]:
        picture = Picture(data.train.read(index))
        box = random_box(SPEC.seed, 1, int(index), picture.height, picture.width)
        expected.append(training_square(picture, box, 16, bool(plan.flip[index])))
    pixels = torch.from_numpy(np.stack(expected))
    assert torch.equal(images, normalise(pixels, data.mean, data.std))
    assert labels.tolist() == data.train.labels[plan.order[:4]].tolist()
    assert plan.flip[plan.order[:4]].any()
    batches.close()


def test_batches_are_the_same_for_any_number_of_threads(folder):
    first, *others = [made(folder, workers=workers) for workers in (1, 2, 5)]
    for epoch in (0, 3):
        expected = epoch_of(first, epoch)
        for other in others:
            for one, two in zip(expected, epoch_of(other, epoch), strict=True):
                assert torch.equal(one[0], two[0])
                assert torch.equal(one[1], two[1])
    for batches in (first, *others):
        batches.close()


def test_each_epoch_has_its_own_crops(folder):
    batches = made(folder)
    index = int(plan_of(batches).order[0])
    seen = []
    for epoch in range(2):
        place = int(np.flatnonzero(plan_of(batches, epoch).order == index)[0])
        batches.begin_epoch(plan_of(batches, epoch))
        seen.append(batches.images(place, place + 1))
    assert not torch.equal(*seen)
    batches.close()


def test_what_was_asked_before_changes_nothing(folder):
    batches = made(folder)
    whole = torch.cat([images for _, images in epoch_of(batches)])
    batches.begin_epoch(plan_of(batches))
    assert torch.equal(batches.images(0, 4), whole[:4])
    assert torch.equal(batches.images(0, 4), whole[:4])  # as measuring a step's time does
    assert torch.equal(batches.images(9, 12), whole[9:12])
    assert torch.equal(batches.images(2, 3), whole[2:3])  # as one of several processes does
    assert torch.equal(batches.images(6, 7), whole[6:7])
    batches.close()


def test_the_next_batches_are_decoded_ahead(folder):
    batches = made(folder)
    batches.begin_epoch(plan_of(batches))
    batches.images(0, 4)
    assert sorted(batches._waiting) == list(range(4, 12))
    batches.begin_epoch(plan_of(batches, 1))
    assert not batches._waiting
    batches.close()


def test_the_test_set_comes_whole_and_in_order(folder):
    batches = made(folder, SPEC.replace(statistics="batch"))  # then 4 at once
    parts = list(batches.test())
    assert [len(labels) for _, labels in parts] == [4, 2]
    test = batches.data.test
    assert torch.cat([labels for _, labels in parts]).tolist() == test.labels.tolist()
    squares = [test_square(Picture(test.read(index)), 16) for index in range(6)]
    expected = normalise(torch.from_numpy(np.stack(squares)), batches.data.mean, batches.data.std)
    assert torch.equal(torch.cat([images for images, _ in parts]), expected)
    (large,) = made(folder).test()
    assert torch.equal(large[0], expected)
    batches.close()


def test_labels_may_be_random_and_images_fewer(folder):
    data = subsample(load_dataset("imagenet", folder), 5)
    batches = make_batches(data, SPEC, CPU)
    assert isinstance(batches, StreamedBatches)
    assert sum(len(labels) for labels, _ in epoch_of(batches)) == 5
    batches.close()
    assert type(make_batches(load_dataset("synthetic"), RunSpec(data="synthetic"), CPU)) is Batches


def test_a_broken_image_is_named(folder):
    (folder / "train/n02/1.JPEG").write_bytes(broken())
    batches = made(folder)
    with pytest.raises(RunError, match=r"train/n02/1.JPEG is no image .*truncated.*--skip-broken"):
        epoch_of(batches)
    batches.close()
    assert not threads()
    (folder / "val/n01/0.JPEG").unlink()
    with pytest.raises(RunError, match=r"val/n01/0.JPEG cannot be read \(No such file"):
        list(batches_of_removed(folder, batches))


def batches_of_removed(folder, batches):
    """The test batches of a data set of which a file has gone since it was listed."""
    again = make_batches(batches.data, SPEC, CPU)
    try:
        yield from again.test()
    finally:
        again.close()


def test_what_pillow_had_to_read_is_said_once(folder):
    (folder / "train/n01/0.JPEG").write_bytes(photo(1, kind="PNG"))
    (folder / "val/n01/0.JPEG").write_bytes(photo(1, mode="CMYK"))
    batches = made(folder)
    epoch_of(batches)
    with pytest.warns(UserWarning, match=r"2 of the images .* through Pillow, such as train/n01/0"):
        list(batches.test())
    list(batches.test())
    batches.close()


@pytest.mark.parametrize("engine", ["eager", "lean"])
def test_a_run_that_is_stopped_goes_on_to_the_same_numbers(folder, tmp_path, engine):
    how = {"data_dir": folder, "engine": engine, "device": "cpu"}
    whole = train(SPEC, tmp_path / "one", reading=Reading(workers=1), **how)

    def stop(event):
        if getattr(event, "record", {}).get("epoch") == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(SPEC, tmp_path / "two", reading=Reading(workers=3), listen=stop, **how)
    assert not threads()
    resumed = train(SPEC, tmp_path / "two", reading=Reading(workers=2), **how)
    assert not threads()
    for one, two in zip(whole.metrics, resumed.metrics, strict=True):
        for key in ("train_loss", "test_loss", "train_accuracy", "test_accuracy"):
            assert one[key] == two[key]
    states = [run.folder.load_checkpoint()[0].tensors for run in (whole, resumed)]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    assert [each["decoding_threads"] for each in resumed.folder.env["sessions"]] == [3, 2]


def test_a_run_without_broken_images_says_so_and_is_another_data_set(folder, tmp_path):
    """It begins anew in the folder of the one that failed at them, as if that had never been; one
    that has a checkpoint goes on with its own images only."""
    (folder / "train/n02/1.JPEG").write_bytes(broken())
    how = {"data_dir": folder, "device": "cpu"}
    with pytest.raises(RunError, match=r"train/n02/1.JPEG"):
        train(SPEC, tmp_path / "runs", **how)
    skipping = Reading(skip_broken=True)
    run = train(SPEC, tmp_path / "runs", reading=skipping, **how)
    new = train(SPEC, tmp_path / "new", reading=skipping, **how)
    assert run.folder.inputs == new.folder.inputs
    assert [each["test_loss"] for each in run.metrics] == [
        each["test_loss"] for each in new.metrics
    ]
    sessions = run.folder.env["sessions"]
    assert [each["notes"] for each in sessions[:1]] == [[]]
    assert "begins with the data of now" in sessions[1]["notes"][0]
    (new.folder.path / "result.json").unlink()
    with pytest.raises(InputError, match="began with other data"):
        train(SPEC, tmp_path / "new", **how)
    data = run.folder.inputs["data"]
    assert data["skipped"] == ["train/n02/1.JPEG"]
    assert (data["train"], data["test"]) == (11, 6)
    assert "1 left out as broken" in data["source"]
    assert run.metrics[-1]["step"] == 2 * 3


@pytest.mark.parametrize("mended", ["left out", "repaired"])
def test_a_failed_run_does_not_block_its_own_retry(folder, tmp_path, mended):
    """As `reproduce imagenet` tries again: all runs of a sweep, some with a checkpoint."""
    image = folder / "train/n02/1.JPEG"
    whole, how = image.read_bytes(), {"data_dir": folder, "device": "cpu"}
    image.write_bytes(broken())
    specs = [SPEC.replace(seed=seed) for seed in (0, 1)]
    with pytest.raises(RunError, match=r"2 of 2 runs failed: .*train/n02/1.JPEG"):
        sweep(specs, tmp_path / "runs", **how)
    if mended == "repaired":
        image.write_bytes(whole)
    runs = sweep(specs, tmp_path / "runs", reading=Reading(skip_broken=mended == "left out"), **how)
    assert [run.result["status"] for run in runs] == ["ok", "ok"]
    assert {run.folder.inputs["data"]["train"] for run in runs} == {12 - (mended == "left out")}
