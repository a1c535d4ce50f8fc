"""The tables on images from files: how fast they are loaded, and what networks learned of them."""

import json
from pathlib import Path

from pieces import table, where

from gammabeta.analysis import in_percent
from gammabeta.bench.show import number
from gammabeta.names import readable
from gammabeta.spec import RunSpec


def loader(results: Path) -> str:
    """What benchmarks/loader.py wrote: a row a way of loading."""
    found = json.loads((results / "loader.json").read_text())
    names = list(found["groups"][0]["images_per_second"])
    base = "pillow"
    body = []
    for name in names:
        cells = [name]
        for group in found["groups"]:
            speed = group["images_per_second"][name]
            times = group["times_pillow"].get(f"{name} / {base}")
            cells.append(f"{speed['median']:.0f} ({speed['lowest']:.0f}-{speed['highest']:.0f})")
            cells.append(number(times["median"], 3) if times else "-")
        body.append(cells)
    head = ["images a second, median (least-most)"]
    for group in found["groups"]:
        head += [f"{group['image_size']} pixels", f"times {base}"]
    images = found["groups"][0]["images"]
    how = f"{found['rounds']} rounds of {images:,} images, which take turns; times: the "
    how += "median of the ratios within a round"
    return f"{found['data']['source']}; {how}. {where(found['environment'])}\n\n{table(head, body)}"


def imagenette(results: Path) -> str:
    """The runs on ten classes: not ImageNet, so nothing published stands beside them."""
    runs = json.loads((results / "imagenette.json").read_text())
    body = []
    for run in sorted(runs, key=lambda run: run["subset"]["trained"]):
        spec, curve = RunSpec.from_dict(run["spec"]), run["curve"]
        body.append([
            f"{readable(spec.model)}, `{spec.trainable}`", f"{run['subset']['trained']:,}",
            f"{spec.epochs}", f"{curve['train_loss'][0]:.2f} to {curve['train_loss'][-1]:.2f}",
            in_percent(run["result"]["test_accuracy"]), f"{run['result']['seconds']:,.0f}",
        ])  # fmt: skip
    spec, data = RunSpec.from_dict(runs[0]["spec"]), runs[0]["data"]
    head = ["what trains", "values", "epochs", "training loss, first to last epoch",
            "top-1 accuracy, %", "seconds"]  # fmt: skip
    return (
        f"{data['source']} (Imagenette), as {spec.image_size} pixels, seed {spec.seed}, "
        f"{spec.precision}; guessing is {100 / data['num_classes']:.0f} %. "
        f"{where(runs[0]['sessions'][-1])}\n\n{table(head, body)}"
    )
