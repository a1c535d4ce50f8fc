"""What one of several processes reads for all: which images are broken, and the image store."""

import json
import os
from pathlib import Path

import pytest
from image_files import broken, image_folder
from several import command, flags, started

from gammabeta import RunSpec, load_run
from gammabeta.data import Reading, imagenet, load_dataset

SPEC = RunSpec(
    model="imagenet_resnet_18_4", data="imagenet", image_size=32, epochs=1, batch_size=4,
    trainable="bn",
)  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    images = image_folder(tmp_path / "images")
    (images / "train/n01/0.JPEG").write_bytes(broken())
    return images


def reads(work, said, arguments):
    """The command line; a line in `said` each time this process does `work` of imagenet.py."""
    done = getattr(imagenet, work)

    def told(*given):
        with Path(said).open("a") as file:
            file.write(f"{os.environ['RANK']}\n")
        return done(*given)

    setattr(imagenet, work, told)
    return command(*arguments)


@pytest.mark.parametrize(
    ("work", "times", "more"),
    [("check", 2, []), ("_folder_entries", 1, ["--image-store", "STORE"])],  # train and test
)
def test_the_first_process_reads_for_all(folder, tmp_path, work, times, more):
    store, runs = tmp_path / "images.arrow", tmp_path / "runs"
    more = [str(store) if each == "STORE" else each for each in more]
    arguments = ["train", *flags(SPEC), "--runs", str(runs), "--data-dir", str(folder), "--device",
                 "cpu", "--skip-broken", *more]  # fmt: skip
    ends = started(reads, 2, tmp_path / "said", work, str(tmp_path / "done"), arguments)
    assert [code for code, *_ in ends] == [0, 0], ends
    assert (tmp_path / "done").read_text().split() == ["0"] * times
    inputs = json.loads((runs / SPEC.id / "inputs.json").read_text())
    reading = Reading(skip_broken=True, image_store=store if more else None)
    assert inputs["data"]["sha256"] == load_dataset("imagenet", folder, reading, 32).sha256
    assert inputs["data"]["train"] == 11
    assert load_run(runs / SPEC.id).result["status"] == "ok"


def test_a_store_that_cannot_be_made_ends_all_in_one_line(folder, tmp_path):
    arguments = ["train", *flags(SPEC), "--runs", tmp_path / "runs", "--data-dir", folder,
                 "--device", "cpu", "--image-store", tmp_path / "a.arrow"]  # fmt: skip
    ends = started(command, 2, tmp_path / "said", *arguments)
    assert [code for code, *_ in ends] == [2, 2], ends
    assert "no image that can be decoded" in ends[0][1]
    assert "write --skip-broken" in ends[0][1]
    assert ends[1][1].strip() == ""
    assert not (tmp_path / "runs").exists()
    assert not (tmp_path / "a.arrow").exists()
