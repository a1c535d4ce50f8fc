"""The cache folder: where what was downloaded or parsed is kept. Anything in it can be deleted."""

import os
import tempfile
from contextlib import suppress
from pathlib import Path


def cache_folder() -> Path:
    """$GAMMABETA_CACHE, else $XDG_CACHE_HOME/gammabeta, else ~/.cache/gammabeta; not created here.

    Raises OSError where there is no home folder.
    """
    if own := os.environ.get("GAMMABETA_CACHE"):
        return Path(own)
    if shared := os.environ.get("XDG_CACHE_HOME"):
        return Path(shared) / "gammabeta"
    try:
        return Path.home() / ".cache" / "gammabeta"
    except RuntimeError as error:
        raise OSError("there is no home folder: set GAMMABETA_CACHE") from error


def write_atomically(path: Path, content: bytes) -> None:
    """Write the whole file or nothing, so a reader never meets half of it. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        Path(name).replace(path)
    except BaseException:
        with suppress(OSError):
            Path(name).unlink()
        raise
