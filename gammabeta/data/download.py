"""Fetches CIFAR from the Hugging Face hub, all of it or nothing."""

import http.client
import os
import shutil
import tempfile
import urllib.request
from contextlib import ExitStack
from pathlib import Path

HUB = "https://huggingface.co/datasets"
TIMEOUT_SECONDS = 10  # of connecting and of every single read
_FOLDERS = {
    "cifar10": "uoft-cs/cifar10/resolve/main/plain_text",
    "cifar100": "uoft-cs/cifar100/resolve/main/cifar100",
}
_FILES = ("train-00000-of-00001.parquet", "test-00000-of-00001.parquet")


def is_offline() -> bool:
    """Whether GAMMABETA_OFFLINE forbids every download."""
    return os.environ.get("GAMMABETA_OFFLINE", "") not in ("", "0")


def download(name: str, base: Path) -> None:
    """Fetch the Parquet files of `name` into `base`/`name`, which appears once they are complete.

    Raises OSError and leaves nothing behind where that fails; an existing folder is not replaced.
    """
    try:
        with ExitStack() as stack:
            # Connect first, so that without a network not even the folder is made.
            responses = [
                stack.enter_context(
                    urllib.request.urlopen(
                        f"{HUB}/{_FOLDERS[name]}/{file}", timeout=TIMEOUT_SECONDS
                    )
                )
                for file in _FILES
            ]
            base.mkdir(parents=True, exist_ok=True)
            unfinished = stack.enter_context(
                tempfile.TemporaryDirectory(prefix=f".{name}-", dir=base)
            )
            folder = Path(unfinished) / name
            folder.mkdir()
            for file, response in zip(_FILES, responses, strict=True):
                _save(response, folder / file)
            folder.rename(base / name)
    except http.client.HTTPException as error:
        raise OSError(f"the connection broke: {error}") from error


def _save(response: http.client.HTTPResponse, path: Path) -> None:
    with path.open("wb") as file:
        shutil.copyfileobj(response, file, 1 << 20)
    # copyfileobj takes a connection closed too early for the end of the file.
    size, expected = path.stat().st_size, response.headers.get("Content-Length")
    if expected is not None and size != int(expected):
        raise OSError(f"{path.name} ended after {size:,} of {int(expected):,} bytes")
    with path.open("rb") as file:
        start = file.read(4)
        file.seek(max(0, size - 4))
        if start != b"PAR1" or file.read() != b"PAR1":
            raise OSError(f"what came for {path.name} is no Parquet file")
