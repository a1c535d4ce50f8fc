"""The folder layout of ImageNet: train/<class>/*.JPEG and val/<class>/*.JPEG."""

import os
from pathlib import Path

import numpy as np

from gammabeta.errors import InputError

SPLITS = ("train", "val")
ENDINGS = (".jpeg", ".jpg", ".png")  # in capitals too; other files are no images and passed over
_LISTED = 3  # names in a message


class FolderSource:
    """The images of one split. names: relative to `root`, as train/n01440764/x.JPEG."""

    def __init__(self, root: Path, names: list[str], sizes: list[int]) -> None:
        self.root, self.names, self.sizes = root, names, sizes

    def read(self, row: int) -> bytes:
        # Not through Path: it would take longer than reading does.
        with open(f"{self.root}/{self.names[row]}", "rb") as file:  # noqa: PTH123
            return file.read()


def is_image_folder(folder: Path) -> bool:
    return (folder / SPLITS[0]).is_dir()


def read_folders(root: Path) -> list[tuple[FolderSource, np.ndarray]]:
    """(source, labels) of the training and of the test images.

    A class is a folder of train/; its label is its place among their sorted names, as everywhere.
    Images in folders below a class folder are not looked for. val/ may lack classes.
    Raises InputError for a folder that is empty, unknown or cannot be read.
    """
    for title in SPLITS:
        if not (root / title).is_dir():
            raise InputError(f"{root} has no folder {title}: it must hold train/<class> and val")
    classes = _folders(root / "train")
    known = {name: label for label, name in enumerate(classes)}
    if not known:
        raise InputError(f"{root / 'train'} has no folders: put the images of each class in one")
    found = []
    for title in SPLITS:
        present = classes if title == "train" else _folders(root / title)
        unknown = [name for name in present if name not in known]
        if unknown:
            raise InputError(
                f"{root / title} has {_some(unknown)}, of which train has nothing: name the class "
                "folders of both alike"
            )
        if not present:
            raise InputError(
                f"{root / title} has no class folders: sort its images into those of train"
            )
        source, labels = _list_split(root, title, present, known)
        found.append((source, labels))
    return found


def _list_split(
    root: Path, title: str, classes: list[str], known: dict[str, int]
) -> tuple[FolderSource, np.ndarray]:
    names: list[str] = []
    sizes: list[int] = []
    labels: list[int] = []
    for each in classes:
        files = []
        for entry in _entries(root / title / each):
            if entry.name.lower().endswith(ENDINGS) and not entry.name.startswith("."):
                try:
                    files.append((entry.name, entry.stat().st_size))
                except OSError as error:
                    raise _unreadable(Path(entry.path), error) from None
        if not files and title == "train":
            raise InputError(
                f"{root / title / each} has no images ({', '.join(ENDINGS)}): "
                "put some there, or remove the folder"
            )
        for name, size in sorted(files):
            names.append(f"{title}/{each}/{name}")
            sizes.append(size)
        labels += [known[each]] * len(files)
    if not names:
        raise InputError(f"{root / title} has no images: put some in its class folders")
    return FolderSource(root, names, sizes), np.array(labels, np.int64)


def _folders(folder: Path) -> list[str]:
    return sorted(
        entry.name
        for entry in _entries(folder)
        if entry.is_dir() and not entry.name.startswith(".")
    )


def _entries(folder: Path) -> list["os.DirEntry[str]"]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        raise _unreadable(folder, error) from None


def _unreadable(path: Path, error: OSError) -> InputError:
    reason = error.strerror or error
    return InputError(f"{path} cannot be read ({reason}): make it readable or remove it")


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more
