"""CIFAR from every form it is kept in: equal pixels, clear preference, one line for each fault."""

import pickle
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_files import (
    arrays,
    batches,
    encode,
    rows,
    write_archive,
    write_binary,
    write_parquet,
    write_python,
    write_table,
)

from gammabeta.data import load_dataset
from gammabeta.errors import InputError

CLASSES = {"cifar10": 10, "cifar100": 100}
DASHED = {"cifar10": "cifar-10", "cifar100": "cifar-100"}
PYTHON = {"cifar10": "cifar-10-batches-py", "cifar100": "cifar-100-python"}
BINARY = {"cifar10": "cifar-10-batches-bin", "cifar100": "cifar-100-binary"}
NAMES = tuple(CLASSES)


def content(name: str) -> tuple[Any, Any]:
    return arrays(10, CLASSES[name], seed=1), arrays(4, CLASSES[name], seed=2)


def write(form: str, root: Path, name: str) -> None:
    """One form of the same small data set under `root`."""
    train, test = content(name)
    fine: dict[str, Any] = {"label": "fine_label"} if name == "cifar100" else {}
    scratch = root.parent / f"scratch-{form}"
    if form == "python 2":
        write_python(root / PYTHON[name], name, train, test, protocol=2)
    elif form == "python 3":
        write_python(root / PYTHON[name], name, train, test, protocol=5)
    elif form == "binary":
        write_binary(root / BINARY[name], name, train, test)
    elif form == "python archive":
        folder = write_python(scratch / PYTHON[name], name, train, test)
        write_archive(root / f"{DASHED[name]}-python.tar.gz", folder)
    elif form == "binary archive":
        folder = write_binary(scratch / BINARY[name], name, train, test)
        write_archive(root / f"{DASHED[name]}-binary.tar.gz", folder)
    elif form == "parquet":
        write_parquet(root / "plain_text", train, test, **fine)
    elif form == "parquet, shards":
        write_parquet(root, train, test, shards=3, plain=True, image="image", **fine)
    else:
        raise AssertionError(form)


ORIGINS = {
    "python 2": "Python batches,",
    "python 3": "Python batches,",
    "binary": "binary batches,",
    "python archive": "Python batches in cifar-",
    "binary archive": "binary batches in cifar-",
    "parquet": "Parquet,",
    "parquet, shards": "Parquet,",
}


@pytest.mark.parametrize("name", NAMES)
def test_every_form_gives_the_same_pixels_and_fingerprint(tmp_path: Path, name: str) -> None:
    train, test = content(name)
    hashes = set()
    for form, origin in ORIGINS.items():
        root = tmp_path / form / "data"
        write(form, root, name)
        before = sorted(root.rglob("*"))
        dataset = load_dataset(name, root)
        assert np.array_equal(dataset.train.images, train[0])
        assert np.array_equal(dataset.train.labels, train[1])
        assert np.array_equal(dataset.test.images, test[0])
        assert np.array_equal(dataset.test.labels, test[1])
        assert dataset.num_classes == CLASSES[name]
        assert dataset.name == name
        assert dataset.source.startswith(origin)
        assert "10 train and 4 test images" in dataset.source
        assert dataset.source.endswith(", PNG") == form.startswith("parquet")
        assert sorted(root.rglob("*")) == before, "nothing may be extracted"
        hashes.add(dataset.sha256)
    assert len(hashes) == 1


def test_the_order_of_preference(tmp_path: Path) -> None:
    root = tmp_path / "data"
    for form in ("parquet, shards", "binary archive", "python archive"):
        write(form, root, "cifar10")
    write("parquet", root / "cifar10", "cifar10")
    steps = [
        ("cifar-10-python.tar.gz", "Python batches in"),
        ("cifar-10-binary.tar.gz", "binary batches in"),
        ("train-00000-of-00003.parquet", "Parquet"),
    ]
    for file, origin in steps:
        assert load_dataset("cifar10", root).source.startswith(origin)
        (root / file).unlink()
    # Only two of three shards are left, and that is no reason to look elsewhere.
    with pytest.raises(InputError, match="2 of 3 shards"):
        load_dataset("cifar10", root)


def test_each_cifar_finds_its_own_folder(tmp_path: Path) -> None:
    for name, column in (("cifar10", "label"), ("cifar100", "label")):
        train, test = content(name)
        write_parquet(tmp_path / "hub" / name / "x", train, test, label=column)
    for name in NAMES:
        dataset = load_dataset(name, tmp_path)
        assert dataset.num_classes == CLASSES[name]
        assert np.array_equal(dataset.train.labels, content(name)[0][1])


def test_folders_that_are_too_deep_hidden_or_of_another_kind_are_left_out(tmp_path: Path) -> None:
    train, test = content("cifar10")
    write_parquet(tmp_path / "a/b/c/d/e", train, test)
    write_parquet(tmp_path / ".hidden", train, test)
    write_parquet(tmp_path / "cifar-100", train, test)
    (tmp_path / "train").mkdir()
    (tmp_path / "test").mkdir()
    refused("cifar10", tmp_path, "no cifar10 in")
    # Parquet files of something else do not hide the right ones further down.
    table = [encode(np.zeros((8, 8, 3), np.uint8))]
    for split in ("train", "test"):
        write_table(tmp_path / f"{split}-0.parquet", table, [0], image="scan")
    with pytest.raises(InputError, match="has no image column"):
        load_dataset("cifar10", tmp_path)
    write_parquet(tmp_path / "a/b/c/d", train, test)
    assert len(load_dataset("cifar10", tmp_path).train.labels) == 10


def test_jpeg_grey_palette_and_mixed_images_are_decoded(tmp_path: Path) -> None:
    (images, labels), test = content("cifar10")
    smooth = np.full_like(images, 90)
    smooth[..., 0] = 200
    write_parquet(tmp_path / "jpeg", (smooth, labels), test, encoding="JPEG")
    dataset = load_dataset("cifar10", tmp_path)
    assert dataset.source == "Parquet, 10 train and 4 test images, JPEG"
    assert np.abs(dataset.train.images.astype(int) - smooth).max() <= 3
    grey = images[0, :, :, 0]
    contents = [encode(grey), encode(np.stack([grey] * 3, axis=-1)), encode(smooth[0], "JPEG")]
    for split in ("train", "test"):
        write_table(tmp_path / "mixed" / f"{split}-0.parquet", contents, [0, 1, 2], label="cls")
    dataset = load_dataset("cifar10", tmp_path / "mixed")
    assert dataset.source.endswith("JPEG and PNG")
    assert np.array_equal(dataset.train.images[0], np.stack([grey] * 3, axis=-1))
    assert np.array_equal(dataset.train.images[0], dataset.train.images[1])


def test_many_rows_keep_their_order_across_threads(tmp_path: Path) -> None:
    count = 1203
    images = np.zeros((count, 32, 32, 3), np.uint8)
    images[:, 0, 0, 0], images[:, 0, 0, 1] = np.arange(count) % 256, np.arange(count) // 256
    labels = np.arange(count) % 10
    write_parquet(tmp_path, (images, labels), content("cifar10")[1])
    dataset = load_dataset("cifar10", tmp_path)
    assert np.array_equal(dataset.train.images, images)
    assert np.array_equal(dataset.train.labels, labels)


PICTURE = encode(np.zeros((32, 32, 3), np.uint8))
BROKEN_TABLES: dict[str, tuple[list[Any], Any, dict[str, Any], str]] = {
    "image column": ([PICTURE], [0], {"image": "scan"}, r"no image column .its columns: scan"),
    "label column": ([PICTURE], [0], {"label": "kind"}, "no label column.*name it label or"),
    "label range": ([PICTURE] * 3, [0, 9, 10], {}, "row 2 has label 10.*10 classes"),
    "negative label": ([PICTURE], [-1], {}, "row 0 has label -1"),
    "label type": ([PICTURE], [0.5], {}, "column label must hold whole numbers"),
    "label text": ([PICTURE], ["cat"], {}, "column label must hold whole numbers"),
    "huge label": ([PICTURE], np.array([2**63], np.uint64), {}, "Parquet"),
    "no label": ([PICTURE] * 2, [1, None], {}, "row 1 has no label"),
    "no image": ([PICTURE, None], [1, 1], {}, "row 1 has no image"),
    "no bytes": ([PICTURE, None], [1, 1], {"plain": True}, "row 1 has no image"),
    "image type": (["path/to.png"], [0], {"plain": True}, "column img must hold encoded images"),
    "small png": ([PICTURE, encode(np.zeros((28, 30, 3), np.uint8))], [0, 0], {}, "row 1.*30x28"),
    "large jpeg": ([encode(np.zeros((64, 40, 3), np.uint8), "JPEG")], [0], {}, "row 0.*40x64"),
    "garbage": ([PICTURE, b"not an image"], [0, 0], {}, "row 1 is no image that can be decoded"),
    "line break": ([PICTURE], [0], {"extra": {" img\n": [0]}, "image": "scan"}, "label, img.:"),
    "empty": ([b""], [0], {}, "row 0 is no image that can be decoded"),
    "cut png": ([PICTURE[:60]], [0], {}, "row 0 is no image that can be decoded"),
    "cut jpeg": ([encode(np.zeros((32, 32, 3), np.uint8), "JPEG")[:-40]], [0], {}, "row 0 is no"),
    "bmp": ([encode(np.zeros((32, 32, 3), np.uint8), "BMP")], [0], {}, "8-bit PNG or JPEG"),
    "deep png": ([encode(np.zeros((32, 32), np.uint16))], [0], {}, "more than 8 bits"),
    "no rows": ([], np.array([], np.int64), {}, "at least one"),
    "fine labels": ([PICTURE], [0], {"label": "fine_label"}, "write cifar100"),
}  # fmt: skip


def refused(name: str, root: Path, says: str) -> None:
    with pytest.raises(InputError, match=says) as caught:
        load_dataset(name, root)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("title", BROKEN_TABLES)
def test_a_broken_table_is_refused_in_one_line(tmp_path: Path, title: str) -> None:
    contents, labels, options, says = BROKEN_TABLES[title]
    write_table(tmp_path / "test-00000-of-00001.parquet", [PICTURE], [0])
    write_table(tmp_path / "train-00000-of-00001.parquet", contents, labels, **options)
    refused("cifar10", tmp_path, says)


def test_the_wrong_cifar_is_noticed(tmp_path: Path) -> None:
    train, test = content("cifar10")
    write_parquet(tmp_path, train, test)
    refused("cifar100", tmp_path, "labels up to 9 only: for CIFAR-10 write cifar10")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def swap(path: Path) -> None:
    """Zeros over the middle, where the pages of data are."""
    whole = bytearray(path.read_bytes())
    whole[20:400] = bytes(380)
    path.write_bytes(whole)


def flip(path: Path) -> None:
    """One bit of the checksum at the end, as if a pixel had changed."""
    whole = bytearray(path.read_bytes())
    whole[-8] ^= 1
    path.write_bytes(whole)


TRAIN = "plain_text/train-00000-of-00001.parquet"
BATCH = "cifar-10-batches-py/data_batch_3"
RECORDS = "cifar-10-batches-bin/data_batch_3.bin"
FAULTS: list[tuple[str, str, Callable[[Path], Any], str]] = [
    ("parquet", TRAIN, cut, "train-00000-of-00001.parquet is no complete Parquet file"),
    ("parquet", TRAIN, swap, "train-00000-of-00001.parquet"),
    ("parquet", TRAIN, lambda path: path.write_bytes(b""), "is no complete Parquet file"),
    ("parquet", TRAIN, Path.unlink, "no cifar10 in .*put there cifar-10-python.tar.gz"),
    ("parquet", TRAIN, lambda path: shutil.copy(path, path.with_name("train-1.parquet")), "mixes"),
    ("python 2", BATCH, cut, "data_batch_3 is no complete pickle"),
    ("python 3", BATCH, Path.unlink, "cifar-10-batches-py lacks data_batch_3: take all of"),
    ("binary", RECORDS, cut, "data_batch_3.bin has 6,126 bytes, which is no multiple of 3073"),
    ("binary", RECORDS, lambda path: path.write_bytes(b""), "has 0 bytes"),
    ("binary", RECORDS, lambda path: path.write_bytes(b"\x0a" + bytes(3072)), "row 0 has label 10"),
    ("binary", RECORDS, Path.unlink, "lacks data_batch_3.bin"),
    ("python archive", "cifar-10-python.tar.gz", cut, "is no complete .tar.gz"),
    ("binary archive", "cifar-10-binary.tar.gz", lambda path: path.write_bytes(b"x"), "complete"),
    ("binary archive", "cifar-10-binary.tar.gz", flip, "no complete .tar.gz"),
    ("python archive", "cifar-10-python.tar.gz", Path.unlink, "there is no cifar10"),
]  # fmt: skip


@pytest.mark.parametrize(("form", "file", "damage", "says"), FAULTS)
def test_a_damaged_copy_is_refused_in_one_line(
    tmp_path: Path, form: str, file: str, damage: Callable[[Path], Any], says: str
) -> None:
    root = tmp_path / "data"
    write(form, root, "cifar10")
    damage(root / file)
    refused("cifar10", root, says)


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_test_batch_is_named(tmp_path: Path, name: str) -> None:
    folder = tmp_path / PYTHON[name]
    write_python(folder, name, *content(name))
    missing = list(batches(name, *content(name)))[-1]
    (folder / missing).unlink()
    refused(name, tmp_path, f"lacks {missing}")


BAD_BATCHES: list[tuple[dict[Any, Any], str]] = [
    ({"data": np.zeros((2, 3072), np.uint8)}, "has no key labels .its keys: data"),
    ({"labels": [1, 2]}, "has no key data"),
    ({"data": [1, 2], "labels": [1, 2]}, "array of uint8"),
    ({"data": np.zeros((2, 3072), np.int64), "labels": [1, 2]}, "array of uint8"),
    ({"data": np.zeros((3, 3072), np.uint8), "labels": [1, 2]}, r"expected \(2, 3072\)"),
    ({"data": np.zeros((2, 32, 96), np.uint8), "labels": [1, 2]}, r"expected \(2, 3072\)"),
    ({"data": np.zeros((2, 3072), np.uint8), "labels": [1, 12]}, "row 1 has label 12"),
    ({"data": np.zeros((2, 3072), np.uint8), "labels": [1, 2**70]}, "whole numbers"),
    ({"data": np.zeros((2, 3072), np.uint8), "labels": [1, "2"]}, "whole numbers"),
]


@pytest.mark.parametrize(("batch", "says"), BAD_BATCHES)
def test_a_batch_with_other_content_is_refused(
    tmp_path: Path, batch: dict[Any, Any], says: str
) -> None:
    folder = write_python(tmp_path / PYTHON["cifar10"], "cifar10", *content("cifar10"))
    (folder / "data_batch_2").write_bytes(pickle.dumps(batch))
    refused("cifar10", tmp_path, f"data_batch_2.*{says}")


def test_labels_may_be_an_array_and_keys_bytes(tmp_path: Path) -> None:
    images, labels = arrays(3, 100)
    for file in ("train", "test"):
        batch = {
            b"data": rows(images),
            b"fine_labels": labels.astype(np.int32),
            b"coarse_labels": [],
        }
        (tmp_path / file).write_bytes(pickle.dumps(batch))
    dataset = load_dataset("cifar100", tmp_path)
    assert np.array_equal(dataset.train.images, images)
    assert np.array_equal(dataset.train.labels, labels)
    assert dataset.train.labels.dtype == np.int64


def test_an_archive_is_read_without_links_and_with_all_members(tmp_path: Path) -> None:
    train, test = content("cifar10")
    folder = write_python(tmp_path / "scratch" / PYTHON["cifar10"], "cifar10", train, test)
    (tmp_path / "data").mkdir()
    (tmp_path / "outside").write_bytes((folder / "data_batch_2").read_bytes())
    with tarfile.open(tmp_path / "data" / "cifar-10-python.tar.gz", "w:gz") as archive:
        for path in sorted(folder.iterdir()):
            if path.name != "data_batch_2":
                archive.add(path, f"../../{path.name}")
        link = tarfile.TarInfo("cifar-10-batches-py/data_batch_2")
        link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path / "outside")
        archive.addfile(link)
    refused("cifar10", tmp_path / "data", "cifar-10-python.tar.gz lacks data_batch_2")
    assert not (tmp_path / "data_batch_1").exists()


def test_a_huge_member_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "cifar-10-python.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        member = tarfile.TarInfo("data_batch_1")
        member.size = 1 << 40
        archive.fileobj.write(member.tobuf())
    refused("cifar10", tmp_path, "too many for a CIFAR batch")


def test_a_hostile_batch_does_not_run(tmp_path: Path) -> None:
    folder = write_python(tmp_path / PYTHON["cifar10"], "cifar10", *content("cifar10"))
    target = tmp_path / "ran"
    (folder / "data_batch_4").write_bytes(f"cos\nsystem\n(S'touch {target}'\ntR.".encode())
    refused("cifar10", tmp_path, r"data_batch_4.*os\.system")
    assert not target.exists()
