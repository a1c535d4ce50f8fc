"""The cache folder: where what was downloaded or parsed is kept. Anything in it can be deleted."""

import os
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
