"""Run folders as training leaves them, without any training: for what only reads a store."""

from pathlib import Path
from typing import Any

import torch

from gammabeta import RunSpec
from gammabeta.build import inputs, make_network
from gammabeta.data import load_dataset
from gammabeta.probe.read import FORMAT
from gammabeta.store import RunFolder


def write_run(root: Path, spec: RunSpec, accuracy: float | None) -> RunFolder:
    """A run of `spec` that ended with this test accuracy, by the same way at each epoch; one that
    was stopped before its end for None."""
    data = load_dataset("synthetic")
    model, subset = make_network(spec, data.num_classes)
    folder = RunFolder.create(root, spec.id, spec.to_dict(), inputs(data, subset, model))
    for epoch in (1, 2):
        record = {"epoch": epoch, "test_accuracy": (accuracy or 0.2) * epoch / 2, "seconds": 10.0}
        folder.append_metrics(record)
    if accuracy is not None:
        folder.write_result({"status": "ok", "test_accuracy": accuracy, "epoch": spec.epochs})
    return folder


def write_point(
    root: Path, spec: RunSpec, accuracy: float | None, *, trained: int = 1120,
    gammas: tuple[float, ...] = (), source: str = "Python batches", top5: float | None = None,
    **data: object,
) -> RunFolder:  # fmt: skip
    """As `write_run` without building the network, for many runs: `trained` values are said to
    have trained, and the last checkpoint holds these gammas. data: what inputs.json says
    of other data than CIFAR's."""
    tensors = [{"name": "bn.weight", "role": "gamma", "shape": [len(gammas)], "trained": 1}]
    made_from = {
        "data": {"name": spec.data, "num_classes": 100 if spec.data == "cifar100" else 10,
                 "sha256": "ab" * 32, "source": source, "train": 50_000, "test": 10_000, **data},
        "subset": {"text": spec.trainable, "trained": trained, "total": 175_258},
        "tensors": tensors if gammas else [],
    }  # fmt: skip
    folder = RunFolder.create(root, spec.id, spec.to_dict(), made_from)
    for epoch in sorted({1, spec.epochs // 8 or 1, spec.epochs // 2 or 1, spec.epochs}):
        reached = (accuracy or 0.2) * (0.5 + 0.5 * epoch / spec.epochs)
        folder.append_metrics({"epoch": epoch, "test_accuracy": reached, "seconds": 10.0})
    if gammas:
        folder.save_checkpoint(spec.epochs, {"trained/bn.weight": torch.tensor(gammas)})
    if accuracy is not None:
        result = {"status": "ok", "test_accuracy": accuracy, "epoch": spec.epochs}
        folder.write_result(result | ({"test_top5": top5} if top5 is not None else {}))
    return folder


def write_probe(
    run: RunFolder, name: str, found: dict[str, Any], images: int = 0, **made_from: object
) -> None:
    """What a probe found, beside the run, as made today of its last epoch. made_from: what else the
    file says that it was made from."""
    head = {"gammabeta": "0", "epoch": run.epochs_done, "images": images,
            "data_sha256": run.inputs["data"]["sha256"], **made_from}  # fmt: skip
    run.write_probe(
        name, found | {"format": FORMAT, "probe": name, "run": run.id, "made_from": head}
    )
