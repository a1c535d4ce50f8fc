"""Images a second of the ImageNet loader against plain Pillow, in one run, side by side.

    python benchmarks/loader.py --data-dir DIR --out results/loader.json

Each contender makes the same training batches (random crop, flip, resize) of the same images, from
files that the system has in memory after a first look at them. Plain Pillow is what a data set
class does without a thought: open, convert, crop, resize; once in a loop and once in as many
threads as ours, as Pillow holds Python's lock for part of the time. The contenders take turns
within a round, and ratios are taken within a round: the machine's other work falls on all of them.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from gammabeta import RunSpec
from gammabeta.data import Dataset, Pictures, Reading, load_dataset, subsample
from gammabeta.data.augment import epoch_plan, normalise
from gammabeta.data.crops import random_box
from gammabeta.engine.stream import make_batches
from gammabeta.environment import environment

Images = Callable[[int], int]  # epoch -> how many images it loaded
CPU = torch.device("cpu")


def plan_of(spec: RunSpec, epoch: int, count: int) -> Any:
    return epoch_plan(spec.seed, epoch, count, crop_padding=0, flip=True)


def ours(data: Dataset, spec: RunSpec) -> Images:
    """The batches that an engine gets, by the engine's own calls."""
    count = len(data.train.labels)

    def load(epoch: int) -> int:
        batches = make_batches(data, spec, CPU)
        batches.begin_epoch(plan_of(spec, epoch, count))
        loaded = 0
        for start in range(0, count, spec.batch_size):
            loaded += len(batches.images(start, min(start + spec.batch_size, count)))
        batches.close()
        return loaded

    return load


def pillow(data: Dataset, spec: RunSpec, workers: int) -> Images:
    """The same crops, by Pillow alone. workers: threads; 0: a loop."""
    pictures = data.train
    assert isinstance(pictures, Pictures)
    count, size = len(pictures.labels), (spec.image_size, spec.image_size)

    def load(epoch: int) -> int:
        plan = plan_of(spec, epoch, count)

        def one(index: int) -> np.ndarray:
            with Image.open(f"{root(data)}/{pictures.name(index)}") as opened:
                image = opened.convert("RGB")
            box = random_box(spec.seed, epoch, index, image.height, image.width)
            top, left, tall, wide = box
            part = image.crop((left, top, left + wide, top + tall))
            part = part.resize(size, Image.Resampling.BILINEAR)
            if plan.flip[index]:
                part = part.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            return np.asarray(part)

        loaded = 0
        with ThreadPoolExecutor(max(workers, 1)) as pool:
            for start in range(0, count, spec.batch_size):
                some = plan.order[start : start + spec.batch_size].tolist()
                squares = list(pool.map(one, some)) if workers else [one(each) for each in some]
                batch = normalise(torch.from_numpy(np.stack(squares)), data.mean, data.std)
                loaded += len(batch)
        return loaded

    return load


def root(data: Dataset) -> str:
    return str(data.train.source.root)  # type: ignore[union-attr]


def shown(rates: list[float]) -> dict[str, float]:
    return {
        "median": round(statistics.median(rates), 2),
        "lowest": round(min(rates), 2),
        "highest": round(max(rates), 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--images", type=int, default=512, help="a round")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--sizes", type=int, nargs="+", default=(224, 128))
    options = parser.parse_args()
    torch.set_num_threads(1)  # threads that decode are what is measured
    workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    assert workers is not None
    groups = []
    for size in options.sizes:
        spec = RunSpec(
            model="imagenet_resnet_18", data="imagenet", image_size=size,
            batch_size=options.batch_size,
        )  # fmt: skip
        whole = load_dataset("imagenet", options.data_dir, Reading(workers=workers), size)
        data = subsample(whole, min(options.images, len(whole.train.labels)))
        one_worker = load_dataset("imagenet", options.data_dir, Reading(workers=1), size)
        with tempfile.TemporaryDirectory() as folder:
            reading = Reading(workers=workers, image_store=Path(folder) / "images.arrow")
            started = time.perf_counter()
            stored = load_dataset("imagenet", options.data_dir, reading, size)
            written = time.perf_counter() - started
            stored_bytes = Path(folder, "images.arrow").stat().st_size
            contenders = {
                "pillow": pillow(data, spec, 0),
                f"pillow, {workers} threads": pillow(data, spec, workers),
                "ours, 1 thread": ours(subsample(one_worker, len(data.train.labels)), spec),
                f"ours, {workers} threads": ours(data, spec),
                f"ours from a store, {workers} threads": ours(
                    subsample(stored, len(data.train.labels)), spec
                ),
            }
            rates: dict[str, list[float]] = {name: [] for name in contenders}
            for number in range(-1, options.rounds):  # the first one is to warm up
                for name, load in contenders.items():
                    started = time.perf_counter()
                    loaded = load(number + 1)
                    if number >= 0:
                        rates[name].append(loaded / (time.perf_counter() - started))
                print(f"{size} pixels, round {number + 1} of {options.rounds}", file=sys.stderr)
        names = list(contenders)
        group: dict[str, Any] = {
            "image_size": size,
            "images": len(data.train.labels),
            "images_per_second": {name: shown(each) for name, each in rates.items()},
            "times_pillow": {},
            "store": {
                "seconds_to_write": round(written, 1),
                "images": len(whole.train.labels) + len(whole.test.labels),
                "bytes": stored_bytes,
            },
        }
        for name in names[2:]:
            for base in names[:2]:
                ratios = [a / b for a, b in zip(rates[name], rates[base], strict=True)]
                group["times_pillow"][f"{name} / {base}"] = shown(ratios)
        groups.append(group)
    result = {
        "data": {"source": whole.source, "sha256": whole.sha256},
        "rounds": options.rounds,
        "batch_size": options.batch_size,
        "environment": environment(CPU)
        | {name: version(name) for name in ("pillow", "simplejpeg", "pyarrow")},
        "groups": groups,
    }
    text = json.dumps(result, indent=1) + "\n"
    print(text, end="")
    if options.out is not None:
        options.out.write_text(text)


if __name__ == "__main__":
    main()
