"""Epoch plans and their application, each against a slow twin that is easy to read."""

import hashlib

import numpy as np
import pytest
import torch

from gammabeta.data.augment import augment, epoch_plan, normalise

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def slow_augment(image: np.ndarray, shift: np.ndarray, flip: bool, padding: int) -> np.ndarray:
    """One image, H W C."""
    padded = np.pad(image, ((padding, padding), (padding, padding), (0, 0)))
    top, left = shift
    crop = padded[top : top + image.shape[0], left : left + image.shape[1]]
    return crop[:, ::-1] if flip else crop


@pytest.mark.parametrize(
    ("height", "width", "padding"), [(32, 32, 4), (5, 7, 2), (6, 4, 0), (3, 3, 5)]
)
def test_augment_equals_its_slow_twin(height: int, width: int, padding: int) -> None:
    draws = np.random.default_rng(0)
    images = draws.integers(1, 256, size=(60, height, width, 3), dtype=np.uint8)
    shift = draws.integers(0, 2 * padding + 1, size=(60, 2))
    shift[:4] = [(0, 0), (0, 2 * padding), (2 * padding, 0), (2 * padding, 2 * padding)]
    flip = draws.integers(0, 2, size=60).astype(bool)
    expected = [slow_augment(*each, padding) for each in zip(images, shift, flip, strict=True)]
    given = torch.from_numpy(images)
    result = augment(given, torch.from_numpy(shift), torch.from_numpy(flip), padding)
    assert result.dtype == torch.uint8
    assert result.is_contiguous()
    assert np.array_equal(result.numpy(), np.stack(expected))
    assert np.array_equal(given.numpy(), images)


def test_the_middle_shift_changes_nothing() -> None:
    images = torch.randint(0, 256, (3, 32, 32, 3), dtype=torch.uint8)
    still = augment(images, torch.full((3, 2), 4), torch.zeros(3, dtype=torch.bool), 4)
    assert torch.equal(still, images)


def test_augment_takes_a_slice_that_is_not_contiguous() -> None:
    images = torch.randint(0, 256, (8, 32, 32, 3), dtype=torch.uint8)
    shift, flip = torch.full((4, 2), 4), torch.ones(4, dtype=torch.bool)
    assert torch.equal(augment(images[::2], shift, flip, 4), images[::2].flip(2))


def test_normalise_equals_its_definition() -> None:
    images = (
        torch.arange(256 * 3, dtype=torch.int64).view(4, 8, 8, 3).remainder(256).to(torch.uint8)
    )
    before = images.clone()
    result = normalise(images, MEAN, STD)
    assert result.shape == (4, 3, 8, 8)
    assert result.dtype == torch.float32
    assert result.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(images, before)
    expected = images.numpy().astype(np.float64).transpose(0, 3, 1, 2) / 255
    expected = (expected - np.reshape(MEAN, (3, 1, 1))) / np.reshape(STD, (3, 1, 1))
    assert np.abs(result.numpy() - expected).max() < 1e-6


def slow_brightness(image: np.ndarray, added: np.float32) -> np.ndarray:
    """One image, H W C, uint8: pixels in [0, 1], brighter or darker, clipped."""
    result = np.empty(image.shape)
    for place in np.ndindex(*image.shape):
        result[place] = min(max(image[place] / 255 + float(added), 0.0), 1.0)
    return result


def test_brightness_equals_its_slow_twin() -> None:
    draws = np.random.default_rng(0)
    images = draws.integers(0, 256, size=(6, 4, 5, 3), dtype=np.uint8)
    added = np.array([-0.5, 0.5, 0, 0.25, -0.01, -1], dtype=np.float32)
    slow = np.stack([slow_brightness(*each) for each in zip(images, added, strict=True)])
    assert (slow[0] == 0).any()
    assert (slow[1] == 1).any()
    assert not slow[5].any()
    slow = slow.transpose(0, 3, 1, 2)
    given = torch.from_numpy(images)
    before = given.clone()
    plain = normalise(given, (0, 0, 0), (1, 1, 1), torch.from_numpy(added))
    assert plain.is_contiguous(memory_format=torch.channels_last)
    assert np.abs(plain.numpy() - slow).max() < 1e-6
    result = normalise(given, MEAN, STD, torch.from_numpy(added)).numpy()
    expected = (slow - np.reshape(MEAN, (3, 1, 1))) / np.reshape(STD, (3, 1, 1))
    assert np.abs(result - expected).max() < 1e-5
    assert torch.equal(given, before)
    unchanged = torch.zeros(6)
    assert torch.equal(normalise(given, MEAN, STD, unchanged), normalise(given, MEAN, STD))


def test_without_normalisation_pixels_stay_in_0_to_1() -> None:
    images = torch.arange(256, dtype=torch.uint8).view(1, 16, 16, 1).expand(1, 16, 16, 3)
    result = normalise(images, (0, 0, 0), (1, 1, 1))
    assert torch.equal(result, images.permute(0, 3, 1, 2).float() / 255)


def test_brightness_is_drawn_for_each_image_from_a_stream_of_its_own() -> None:
    plan = epoch_plan(3, 5, 5000, crop_padding=4, flip=True, brightness=0.5)
    added = plan.brightness
    assert added is not None
    assert added.dtype == np.float32
    assert added.shape == (5000,)
    assert -0.5 <= added.min() < -0.499
    assert 0.499 < added.max() <= 0.5
    # Uniform: mean 0, deviation 1 / sqrt(12); four standard errors are 0.016.
    assert abs(added.mean()) < 0.017
    assert abs(added.std() - 12**-0.5) < 0.01
    dark = epoch_plan(3, 5, 5000, crop_padding=4, flip=True)
    assert dark.brightness is None
    for name in ("order", "shift", "flip"):
        assert np.array_equal(getattr(plan, name), getattr(dark, name))
    bare = epoch_plan(3, 5, 5000, crop_padding=0, flip=False, brightness=0.25)
    assert np.array_equal(2 * bare.brightness, added)
    for seed, epoch in ((3, 6), (4, 5)):
        other = epoch_plan(seed, epoch, 5000, crop_padding=4, flip=True, brightness=0.5)
        assert not np.array_equal(other.brightness, added)
    # If this fails after an update of NumPy, old runs can no longer be repeated with it.
    drawn = [-0.02907075546681881, -0.1919054239988327, 0.366250216960907]
    assert added[:3].tolist() == drawn


def plan_sha256(seed: int, epoch: int, count: int = 1000) -> str:
    plan = epoch_plan(seed, epoch, count, crop_padding=4, flip=True)
    digest = hashlib.sha256()
    for array in (plan.order, plan.shift, plan.flip):
        digest.update(array.astype("<i8").tobytes())
    return digest.hexdigest()


def test_a_plan_is_a_permutation_with_shifts_and_flips_in_range() -> None:
    plan = epoch_plan(3, 5, 5000, crop_padding=4, flip=True)
    assert plan.order.dtype == plan.shift.dtype == np.int64
    assert plan.flip.dtype == bool
    assert plan.shift.shape == (5000, 2)
    assert np.array_equal(np.sort(plan.order), np.arange(5000))
    assert np.array_equal(np.unique(plan.shift), np.arange(9))
    assert 0.46 < plan.flip.mean() < 0.54
    assert abs(np.corrcoef(plan.shift.T)[0, 1]) < 0.06


def test_a_plan_depends_on_seed_and_epoch_alone() -> None:
    first = plan_sha256(0, 0)
    np.random.default_rng(9).random()
    assert plan_sha256(0, 0) == first
    assert len({first, plan_sha256(0, 1), plan_sha256(1, 0), plan_sha256(1, 1)}) == 4


def test_the_parts_of_a_plan_are_independent() -> None:
    full = epoch_plan(0, 2, 100, crop_padding=4, flip=True)
    bare = epoch_plan(0, 2, 100, crop_padding=0, flip=False)
    assert np.array_equal(bare.order, full.order)
    assert not bare.shift.any()
    assert not bare.flip.any()
    assert np.array_equal(epoch_plan(0, 2, 100, crop_padding=0, flip=True).flip, full.flip)


def test_the_draws_have_not_moved() -> None:
    # If this fails after an update of NumPy, old runs can no longer be repeated with it.
    assert plan_sha256(0, 0) == "766c606c64437dbc0f6a61c6730beedd8eb61fb06d93d08d4f295e0a1ab01fb3"
    assert plan_sha256(7, 159) == "5afa9d61d400079b36189202d96c5f5e10d3ecde1a7649683ab878111d6b1277"
