"""Where CIFAR is looked for: data_dir, the environment, the cache folder, and the download."""

import io
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from data_files import arrays, write_binary, write_parquet

from gammabeta.data import download, load_dataset
from gammabeta.errors import InputError

CLASSES = {"cifar10": 10, "cifar100": 100}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GAMMABETA_CACHE", str(tmp_path / "cache"))


def content(name: str) -> tuple[Any, Any]:
    return arrays(10, CLASSES[name], seed=1), arrays(4, CLASSES[name], seed=2)


def refused(name: str, root: Path, says: str) -> None:
    with pytest.raises(InputError, match=says) as caught:
        load_dataset(name, root)
    assert "\n" not in str(caught.value)


def test_data_dir_must_be_a_folder_that_holds_the_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GAMMABETA_OFFLINE", "0")
    monkeypatch.setattr("urllib.request.urlopen", lambda *_, **__: pytest.fail("network"))
    (tmp_path / "file").write_text("x")
    (tmp_path / "empty").mkdir()
    cases = {
        "missing": "does not exist",
        "file": f"is no folder: write the folder that holds the data, perhaps .*{tmp_path.name}$",
        "file/deeper": f"is no folder: .* perhaps .*{tmp_path.name}$",
        "empty": "there is no cifar10 in .*: put there cifar-10-python.tar.gz",
        "nul\0": "cannot be read",
    }
    before = sorted(tmp_path.rglob("*"))
    for part, says in cases.items():
        refused("cifar10", tmp_path / part, says)
    assert sorted(tmp_path.rglob("*")) == before


def test_an_unreadable_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbid(path: Any) -> Any:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "scandir", forbid)
    refused("cifar10", tmp_path, "cannot be read .Permission denied")


def test_the_environment_names_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_binary(tmp_path / "data", "cifar10", *content("cifar10"))
    monkeypatch.setenv("GAMMABETA_DATA", str(tmp_path / "data"))
    assert len(load_dataset("cifar10").train.labels) == 10
    monkeypatch.setenv("GAMMABETA_DATA", str(tmp_path / "elsewhere"))
    with pytest.raises(InputError, match=r"GAMMABETA_DATA .*elsewhere does not exist"):
        load_dataset("cifar10")


def test_offline_says_what_to_put_where(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"GAMMABETA_OFFLINE.*cifar-100-python\.tar\.gz") as caught:
        load_dataset("cifar100")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "cache").exists()


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that plays the hub, through file: addresses."""
    monkeypatch.setenv("GAMMABETA_OFFLINE", "")
    monkeypatch.setattr(download, "HUB", (tmp_path / "hub").as_uri())
    return tmp_path / "hub"


def test_a_download_is_kept_and_used_again(
    tmp_path: Path, hub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_parquet(hub / "uoft-cs/cifar10/resolve/main/plain_text", *content("cifar10"))
    first = load_dataset("cifar10")
    assert first.source == "Parquet, 10 train and 4 test images, PNG"
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["cifar10"]
    shutil.rmtree(hub)
    assert load_dataset("cifar10").sha256 == first.sha256
    # With GAMMABETA_DATA, that folder is searched and filled instead of the cache.
    (tmp_path / "own").mkdir()
    monkeypatch.setenv("GAMMABETA_DATA", str(tmp_path / "own"))
    write_parquet(hub / "uoft-cs/cifar100/resolve/main/cifar100", *content("cifar100"))
    assert load_dataset("cifar100").num_classes == 100
    assert [path.name for path in (tmp_path / "own").iterdir()] == ["cifar100"]


class Broken(io.BytesIO):
    """A response that ends too early."""

    headers: dict[str, str]


@pytest.mark.parametrize("fault", ["absent", "second absent", "cut", "page", "in the way"])
def test_a_broken_download_leaves_nothing(
    tmp_path: Path, hub: Path, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_parquet(hub / "uoft-cs/cifar10/resolve/main/plain_text", *content("cifar10"))
    test_file = folder / "test-00000-of-00001.parquet"
    cache = tmp_path / "cache"
    if fault == "absent":
        shutil.rmtree(hub)
    elif fault == "second absent":
        test_file.unlink()
    elif fault == "page":
        test_file.write_text("<html>please log in</html>")
    elif fault == "in the way":
        cache.write_text("a file")
    else:

        def urlopen(url: str, timeout: float) -> Broken:
            response = Broken(b"PAR1....PAR1")
            response.headers = {"Content-Length": "1000"}
            return response

        monkeypatch.setattr("urllib.request.urlopen", urlopen)
    with pytest.raises(InputError, match=r"the download failed: .*put there") as caught:
        load_dataset("cifar10")
    assert "\n" not in str(caught.value)
    assert not cache.is_dir() or not list(cache.iterdir())
    if fault in ("absent", "second absent"):
        assert not cache.exists()
