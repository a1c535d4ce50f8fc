"""Folders of images in ImageNet's layout: what is found, in which order, and what is refused."""

import os
import shutil

import numpy as np
import pytest
from image_files import CLASSES, broken, image_folder, photo

from gammabeta import InputError
from gammabeta.data import Reading, load_dataset, subsample


@pytest.fixture
def folder(tmp_path):
    return image_folder(tmp_path / "images")


def load(folder, **options):
    return load_dataset("imagenet", folder, Reading(**options))


def test_every_image_is_there_with_the_place_of_its_class_as_label(folder):
    data = load(folder)
    assert (data.num_classes, len(data.train.labels), len(data.test.labels)) == (3, 12, 6)
    assert data.source == "ImageNet folders, 12 train and 6 test images of 3 classes"
    for title, split in (("train", data.train), ("val", data.test)):
        names = [split.name(index) for index in range(len(split.labels))]
        assert sorted(names) == sorted(
            str(path.relative_to(folder)) for path in (folder / title).glob("*/*.JPEG")
        )
        for index, name in enumerate(names):
            assert CLASSES[split.labels[index]] == name.split("/")[1]
            assert split.read(index) == (folder / name).read_bytes()


def test_the_first_images_are_of_all_classes_and_always_the_same(folder, tmp_path):
    data = load(image_folder(tmp_path / "more", train=40))
    assert set(data.train.labels[:12].tolist()) == {0, 1, 2}
    assert set(data.test.labels[:4].tolist()) != {0}
    assert np.array_equal(load(tmp_path / "more").train.rows, data.train.rows)
    few = subsample(data, 5)
    assert few.train.labels.tolist() == data.train.labels[:5].tolist()
    assert [few.train.name(i) for i in range(5)] == [data.train.name(i) for i in range(5)]
    assert few.sha256 == data.sha256


def test_other_files_are_passed_over_and_endings_may_be_in_capitals(folder):
    before = load(folder)
    for name in ("train/n01/notes.txt", "train/n01/._0.JPEG", "train/readme", "LOC_solution.csv"):
        (folder / name).write_text("no image")
    (folder / "train/.cache").mkdir()
    assert load(folder).sha256 == before.sha256
    for name in ("a.jpg", "b.PNG", "c.JPG"):
        (folder / "train/n03" / name).write_bytes(photo(1))
    assert len(load(folder).train.labels) == 15


def test_the_fingerprint_is_over_names_sizes_and_labels(folder):
    prints = [load(folder).sha256]
    (folder / "train/n01/0.JPEG").rename(folder / "train/n01/9.JPEG")
    prints.append(load(folder).sha256)
    (folder / "val/n02/0.JPEG").write_bytes(photo(1, (90, 90)))
    prints.append(load(folder).sha256)
    (folder / "val/n02/1.JPEG").unlink()
    prints.append(load(folder).sha256)
    (folder / "train/n02").rename(folder / "train/n00")
    (folder / "val/n02").rename(folder / "val/n00")
    prints.append(load(folder).sha256)
    assert len(set(prints)) == 5
    shutil.copytree(folder, folder.parent / "copy")
    assert load(folder.parent / "copy").sha256 == prints[-1]


def test_a_subfolder_called_imagenet_and_the_environment_do_too(folder, monkeypatch):
    expected = load(folder).sha256
    monkeypatch.setenv("GAMMABETA_DATA", str(folder))
    assert load(None).sha256 == expected
    folder.rename(folder.parent / "imagenet")
    assert load(folder.parent).sha256 == expected


def test_broken_images_are_left_out_and_named(folder):
    whole = load(folder)
    (folder / "train/n02/1.JPEG").write_bytes(broken())
    (folder / "train/n03/0.JPEG").write_bytes(b"")
    (folder / "val/n01/1.JPEG").write_bytes(photo(1, kind="PNG")[:300])
    (folder / "train/n01/2.JPEG").write_bytes(photo(1, mode="CMYK"))
    with_broken = load(folder)
    data = load(folder, skip_broken=True, workers=3)
    assert sorted(data.skipped) == ["train/n02/1.JPEG", "train/n03/0.JPEG", "val/n01/1.JPEG"]
    assert data.source.endswith("1 train images through Pillow, 3 left out as broken")
    kept = [data.train.name(index) for index in range(10)]
    order = [whole.train.name(index) for index in range(12)]
    assert kept == [name for name in order if name not in data.skipped]
    assert [CLASSES[label] for label in data.train.labels] == [each.split("/")[1] for each in kept]
    assert len({whole.sha256, with_broken.sha256, data.sha256}) == 3
    assert data.sha256 == load(folder, skip_broken=True, workers=1).sha256
    for path in (folder / "val").glob("*/*"):
        path.write_bytes(broken())
    with pytest.raises(InputError, match=r"no test image is left: look for .* example, train/n"):
        load(folder, skip_broken=True)


def test_val_may_lack_a_class(folder):
    shutil.rmtree(folder / "val/n02")
    data = load(folder)
    assert (data.num_classes, sorted(set(data.test.labels.tolist()))) == (3, [0, 2])
    assert "3 classes, 1 of which have no test images" in data.source


def _remove_val(folder):
    shutil.rmtree(folder / "val")


def _flatten_val(folder):
    for path in (folder / "val").glob("*/*"):
        path.rename(folder / "val" / f"{path.parent.name}-{path.name}")
    for name in CLASSES:
        (folder / "val" / name).rmdir()


def _empty_class(folder):
    for path in (folder / "train/n02").iterdir():
        path.unlink()


def _unknown_class(folder):
    (folder / "val/n01").rename(folder / "val/n04")


def _no_train(folder):
    shutil.rmtree(folder / "train")


def _empty_train(folder):
    shutil.rmtree(folder / "train")
    (folder / "train").mkdir()


def _empty_val(folder):
    for path in (folder / "val").glob("*/*"):
        path.unlink()


def _dangling(folder):
    (folder / "train/n01/7.JPEG").symlink_to(folder / "nowhere")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_remove_val, "has no folder val"),
        (_flatten_val, "val has no class folders: sort its images into those of train"),
        (_empty_class, r"train/n02 has no images .*remove the folder"),
        (_unknown_class, "val has n04, of which train has nothing"),
        (_no_train, r"there is no imagenet in .*: put there train/<class>"),
        (_empty_train, "train has no folders: put the images of each class in one"),
        (_empty_val, "val has no images"),
        (_dangling, r"train/n01/7.JPEG cannot be read \(No such file"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_wrong_folder_is_refused(folder, spoil, message):
    spoil(folder)
    with pytest.raises(InputError, match=message):
        load(folder)


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="the superuser may read anything")
def test_a_folder_that_may_not_be_read(folder):
    (folder / "train/n01").chmod(0)
    with pytest.raises(InputError, match=r"train/n01 cannot be read \(Permission"):
        load(folder)


def test_where_is_it():
    with pytest.raises(InputError, match="must name a folder, as imagenet is not downloaded"):
        load_dataset("imagenet")


def test_reading_is_of_imagenet_only():
    with pytest.raises(InputError, match="workers is 0: write 1 or more"):
        Reading(workers=0)
    with pytest.raises(InputError, match="synthetic is read whole"):
        load_dataset("synthetic", None, Reading(workers=2))
