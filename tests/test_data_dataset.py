"""The checks of make_dataset, the fingerprint, subsample, random labels and load_dataset itself."""

from pathlib import Path

import numpy as np
import pytest
from data_files import arrays

from gammabeta.data import (
    Dataset,
    Split,
    load_dataset,
    make_dataset,
    randomise_labels,
    subsample,
    subsample_test,
)
from gammabeta.errors import InputError


def made(train: Split | None = None, test: Split | None = None) -> Dataset:
    return make_dataset(
        "cifar10",
        train or Split(*arrays(200, 10)),
        test or Split(*arrays(20, 10, seed=1)),
        num_classes=10,
        origin="Parquet",
        encoding="JPEG",
    )


def test_source_is_one_line_with_the_counts() -> None:
    assert made().source == "Parquet, 200 train and 20 test images, JPEG"


@pytest.mark.parametrize(
    ("images", "labels", "says"),
    [
        (np.zeros((2, 32, 32, 3), np.float32), np.zeros(2, np.int64), "uint8"),
        (np.zeros((2, 3, 32, 32), np.uint8), np.zeros(2, np.int64), r"\(2, 3, 32, 32\)"),
        (np.zeros((2, 32, 32, 3), np.uint8), np.zeros(2, np.int32), "int32"),
        (np.zeros((2, 32, 32, 3), np.uint8), np.zeros(3, np.int64), "expected 2 int64 labels"),
        (np.zeros((0, 32, 32, 3), np.uint8), np.zeros(0, np.int64), "at least one"),
        (np.zeros((2, 32, 32, 3), np.uint8), np.array([0, 10]), "row 1 has label 10.*10 classes"),
        (np.zeros((2, 32, 32, 3), np.uint8), np.array([-1, 0]), "row 0 has label -1"),
    ],
)
def test_a_wrong_split_is_refused(images: np.ndarray, labels: np.ndarray, says: str) -> None:
    with pytest.raises(InputError, match=says):
        made(train=Split(images, labels))
    with pytest.raises(InputError, match=says):
        made(test=Split(images, labels))


def test_fingerprint_sees_pixels_labels_and_the_border_between_splits() -> None:
    images, labels = arrays(200, 10)
    other_images, other_labels = images.copy(), labels.copy()
    other_images[3, 4, 5, 1] ^= 1
    other_labels[7] = (other_labels[7] + 1) % 10
    hashes = {
        made().sha256,
        made(train=Split(other_images, labels)).sha256,
        made(train=Split(images, other_labels)).sha256,
        made(
            train=Split(images[:100], labels[:100]), test=Split(images[100:], labels[100:])
        ).sha256,
        made(
            train=Split(images[:101], labels[:101]), test=Split(images[101:], labels[101:])
        ).sha256,
    }
    assert len(hashes) == 5
    # Memory layout is no content.
    assert made(train=Split(np.asfortranarray(images), labels)).sha256 == made().sha256


def test_subsample_takes_the_first_images_and_keeps_the_rest() -> None:
    whole = made()
    part = subsample(whole, 30)
    assert np.array_equal(part.train.images, whole.train.images[:30])
    assert np.array_equal(part.train.labels, whole.train.labels[:30])
    assert part.test is whole.test
    assert part.sha256 == whole.sha256
    assert len(subsample(whole, 200).train.labels) == 200
    for count in (0, -1, 201):
        with pytest.raises(InputError, match="write 1 to 200"):
            subsample(whole, count)


def test_subsample_test_takes_the_first_test_images() -> None:
    whole = made()
    count = len(whole.test.labels)
    part = subsample_test(whole, 3)
    assert np.array_equal(part.test.images, whole.test.images[:3])
    assert np.array_equal(part.test.labels, whole.test.labels[:3])
    assert part.train is whole.train
    assert part.sha256 == whole.sha256
    for wrong in (0, count + 1):
        with pytest.raises(InputError, match=f"write 1 to {count}"):
            subsample_test(whole, wrong)


def test_random_labels_hit_the_share_uniformly_and_follow_the_seed() -> None:
    count = 20_000
    train = Split(np.zeros((count, 32, 32, 3), np.uint8), np.full(count, 3))
    whole = made(train=train)
    half = randomise_labels(whole, 0.5, seed=1).train.labels
    # A redrawn label is the old one with chance 1/10; 4 standard deviations are about 0.011.
    assert abs((half != 3).mean() - 0.45) < 0.011
    counts = np.bincount(randomise_labels(whole, 1.0, seed=1).train.labels, minlength=10)
    assert abs(counts / count - 0.1).max() < 0.009
    assert np.array_equal(half, randomise_labels(whole, 0.5, seed=1).train.labels)
    assert not np.array_equal(half, randomise_labels(whole, 0.5, seed=2).train.labels)
    # A larger share changes more images, and those of the smaller one in the same way.
    more = randomise_labels(whole, 0.6, seed=1).train.labels
    assert np.array_equal(more[half != 3], half[half != 3])
    assert randomise_labels(whole, 0.5, seed=1).sha256 == whole.sha256
    assert np.array_equal(randomise_labels(whole, 0.0, seed=1).train.labels, whole.train.labels)
    assert (whole.train.labels == 3).all(), "the original must stay as it was"
    with pytest.raises(InputError, match="from 0 to 1"):
        randomise_labels(whole, 1.5, seed=1)


def test_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(InputError, match="did you mean cifar10"):
        load_dataset("cifar11")
    with pytest.raises(InputError, match="unknown data set"):
        load_dataset("")


def test_synthetic_is_fixed_balanced_and_learnable() -> None:
    dataset = load_dataset("synthetic")
    assert dataset.train.images.shape == (2048, 32, 32, 3)
    assert dataset.test.images.shape == (512, 32, 32, 3)
    assert dataset.num_classes == 10
    assert dataset.sha256 == "ddc2537510b4dbfe7e5c1d6c51f48a64dcc2cbd3c2c32db968d6c07aad3fd79e"
    assert np.ptp(np.bincount(dataset.train.labels)) <= 1
    # The nearest class mean, by direction because the contrast varies, is mostly right.
    flat = dataset.train.images.reshape(2048, -1) / 255 - 0.5
    means = np.stack([flat[dataset.train.labels == each].mean(0) for each in range(10)])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    scores = (dataset.test.images.reshape(512, -1) / 255 - 0.5) @ means.T
    assert (scores.argmax(1) == dataset.test.labels).mean() > 0.9


def test_shipped_sets_take_no_folder(tmp_path: Path) -> None:
    assert load_dataset("synthetic").name == "synthetic"
    with pytest.raises(InputError, match="synthetic needs no files: leave the data folder out"):
        load_dataset("synthetic", tmp_path)
