"""Data files that cannot be read: one line each, nothing left behind."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from data_files import arrays, write_binary, write_parquet, write_python, write_table
from one_line import check, run

IMAGES = arrays(20, 10), arrays(10, 10, seed=1)  # training and test


def _empty(folder):
    pass


def _text_file(folder):
    (folder / "notes.txt").write_text("no data here")


def _parquet_cut_short(folder):
    write_parquet(folder, *IMAGES)
    path = next(folder.rglob("train*.parquet"))
    path.write_bytes(path.read_bytes()[:-100])


def _parquet_without_images(folder):
    write_parquet(folder, *IMAGES, image="thing")


def _parquet_without_labels(folder):
    write_parquet(folder, *IMAGES, label="thing")


def _parquet_label_ten(folder):
    write_parquet(folder, arrays(20, 11), IMAGES[1])


def _parquet_image_of_another_size(folder):
    images, labels = IMAGES[0]
    write_parquet(folder, (images[:, :28, :28], labels), IMAGES[1])


def _parquet_image_that_is_none(folder):
    write_parquet(folder, *IMAGES)
    path = next(folder.rglob("test*.parquet"))
    write_table(path, [b"no image"] * 10, IMAGES[1][1])


def _label_ten(folder):
    images, labels = arrays(20, 10)
    labels = labels.copy()
    labels[3] = 10
    write_binary(folder, "cifar10", (images, labels), IMAGES[1])


def _binary_cut_short(folder):
    write_binary(folder, "cifar10", *IMAGES)
    path = next(folder.rglob("data_batch_3.bin"))
    path.write_bytes(path.read_bytes()[:-1])


def _binary_cut_between_images(folder):
    write_binary(folder, "cifar10", *IMAGES)
    path = next(folder.rglob("data_batch_3.bin"))
    path.write_bytes(path.read_bytes()[:-3073])


def _batch_missing(folder):
    write_python(folder, "cifar10", *IMAGES)
    next(folder.rglob("data_batch_2")).unlink()


class _Hostile:
    def __reduce__(self):
        return os.mkdir, ("owned",)


def _hostile_pickle(folder):
    write_python(folder, "cifar10", *IMAGES)
    batch = {"data": np.zeros((1, 3072), np.uint8), "labels": [0], "x": _Hostile()}
    next(folder.rglob("data_batch_1")).write_bytes(pickle.dumps(batch))


def _not_a_pickle(folder):
    write_python(folder, "cifar10", *IMAGES)
    next(folder.rglob("data_batch_1")).write_bytes(b"not a pickle")


FILES = [
    (_empty, "cifar10"),
    (_text_file, "cifar10"),
    (_parquet_cut_short, "train"),
    (_parquet_without_images, "thing"),
    (_parquet_without_labels, "thing"),
    (_parquet_label_ten, "10"),
    (_parquet_image_of_another_size, "28"),
    (_parquet_image_that_is_none, "test"),
    (_label_ten, "10"),
    (_binary_cut_short, "data_batch_3.bin"),
    (_binary_cut_between_images, "data_batch_3"),
    (_batch_missing, "data_batch_2"),
    (_hostile_pickle, "data_batch_1"),
    (_not_a_pickle, "data_batch_1"),
]


@pytest.mark.parametrize(("make", "message"), FILES)
def test_wrong_files(make, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "data"
    folder.mkdir()
    make(folder)
    kept = [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")]
    arguments = ["train", "--data", "cifar10", "--data-dir", "data", "--epochs", "1"]
    check(*run(capsys, *arguments), message, tmp_path, kept)


def test_a_data_folder_that_is_a_file(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("data").write_text("")
    where = f"perhaps {tmp_path.resolve()}"
    arguments = ["train", "--data", "cifar10", "--data-dir", "data"]
    message = f"--data-dir data is no folder: write the folder that holds the data, {where}"
    check(*run(capsys, *arguments), message, tmp_path, ["data"])
