"""A folder that the user named."""

import os
from pathlib import Path

from gammabeta.errors import InputError


def existing_folder(path: Path, title: str) -> Path:
    """`path` with ~ expanded. Raises InputError, which calls it `title`, if it cannot be read."""
    try:
        path = path.expanduser()
        with os.scandir(path):
            return path
    except FileNotFoundError:
        raise InputError(
            f"{title} {path} does not exist: write the folder that holds the data"
        ) from None
    except NotADirectoryError:
        near = next(each for each in path.resolve().parents if each.is_dir())
        raise InputError(
            f"{title} {path} is no folder: write the folder that holds the data, perhaps {near}"
        ) from None
    except (OSError, RuntimeError, ValueError) as error:  # ~nobody, a null character
        reason = getattr(error, "strerror", None) or error
        raise InputError(
            f"{title} {path} cannot be read ({reason}): write a readable folder"
        ) from None
