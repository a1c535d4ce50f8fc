"""From a spec to what a run is built from: data, network and subset, and the checks that only they
allow. What it was built from is kept in inputs.json and compared at every rebuild."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gammabeta.checkpoint import POINTER
from gammabeta.data import (
    Dataset,
    Reading,
    Split,
    hold_out,
    load_dataset,
    randomise_labels,
    subsample,
    subsample_test,
    unnormalised,
)
from gammabeta.disk import encode_json, write_atomically
from gammabeta.errors import InputError, RunError, about
from gammabeta.fingerprint import check_fingerprint, fingerprint
from gammabeta.launch import launched
from gammabeta.models import architecture, create_model
from gammabeta.spec import RunSpec
from gammabeta.store import RunFolder
from gammabeta.subset import Subset, select
from gammabeta.weights import kept_weights, load_weights


@dataclass(frozen=True)
class Made:
    """What a run is built from."""

    spec: RunSpec
    data: Dataset
    model: nn.Module
    subset: Subset


def prepare(
    specs: Sequence[RunSpec],
    data_dir: str | Path | None,
    loaded: dict[str, Dataset] | None = None,
    reading: Reading | None = None,
) -> list[Made]:
    """Build each spec. loaded, reading: as for `load_data`."""
    loaded = {} if loaded is None else loaded
    made = []
    for spec in specs:
        data = load_data(spec, data_dir, loaded, reading)
        model, subset = make_network(spec, data.num_classes)
        check_roles(spec, subset)
        _check_batches(spec, data)
        made.append(Made(spec, data, model, subset))
    return made


def check(spec: RunSpec, data: Dataset) -> None:
    """Raise what `prepare` would raise, without drawing any weights."""
    check_network(spec, data.num_classes)
    _check_batches(spec, data)


def check_network(spec: RunSpec, num_classes: int | None = None) -> None:
    """The part of `check` that needs no data."""
    with about("model"):
        model = architecture(spec.model, num_classes)
    with about("trainable"):
        subset = select(model, spec.trainable, seed=spec.seed, statistics=spec.statistics)
    check_roles(spec, subset)
    if spec.weights:
        with about("weights"):
            kept_weights(spec.weights)


def load_data(
    spec: RunSpec,
    data_dir: str | Path | None = None,
    loaded: dict[str, Dataset] | None = None,
    reading: Reading | None = None,
) -> Dataset:
    """The data of a spec, with its subsamples, random labels and normalisation; checks the batch
    size.

    loaded: data sets that need not be read again, by name and size; this one is kept there.
    reading: how imagenet is read.
    """
    loaded = {} if loaded is None else loaded
    key = f"{spec.data} {spec.image_size}"
    if key not in loaded:
        with about("data_dir") if data_dir is not None else contextlib.nullcontext():
            loaded[key] = load_dataset(spec.data, data_dir, reading, spec.image_size)
    data = loaded[key]
    if spec.subsample is not None:
        with about("subsample"):
            data = subsample(data, spec.subsample)
    if spec.validation:
        with about("validation"):
            data = hold_out(data, spec.validation)
    if spec.test_subsample is not None:
        with about("test_subsample"):
            data = subsample_test(data, spec.test_subsample)
    if spec.normalisation == "none":
        data = unnormalised(data)
    if spec.random_labels:
        data = randomise_labels(data, spec.random_labels, spec.seed)
    count = len(data.train.labels)
    if spec.batch_size > count:
        raise InputError(
            f"batch_size {spec.batch_size} is larger than the {count} training images: "
            f"write {count} or less",
            "batch_size",
        )
    return data


def check_roles(spec: RunSpec, subset: Subset) -> None:
    """Refuse rates and decays for roles that do not train: they would do nothing."""
    trained = sorted({row.role for row in subset.trained.values()})
    for name in ("lr_by_role", "weight_decay_by_role"):
        for role, _ in getattr(spec, name):
            if role not in trained:
                raise InputError(
                    f"{name} names '{role}', of which nothing trains under '{subset.text}': "
                    f"write one of {', '.join(trained) or 'none at all'}",
                    name,
                )


def _check_batches(spec: RunSpec, data: Dataset) -> None:
    """Refuse batches that cannot be shared out among the processes there are, and a last batch, or
    a share of it, of one image where a BatchNorm would see a single value per channel."""
    count, processes = len(data.train.labels), launched()[1]
    last = count % spec.batch_size or spec.batch_size
    if spec.norm_shares not in (1, processes):
        raise InputError(
            f"norm_shares is {spec.norm_shares}, and there "
            f"{'is 1 process' if processes == 1 else f'are {processes} processes'}: write 1, or "
            f"start {spec.norm_shares} with torchrun --nproc-per-node {spec.norm_shares}",
            "norm_shares",
        )
    if last < processes:
        which = "is" if last == spec.batch_size else f"leaves {last} images for the last batch,"
        raise InputError(
            f"batch_size {spec.batch_size} {which} fewer than the {processes} processes: "
            "write another, or start fewer",
            "batch_size",
        )
    if last // spec.norm_shares == 1 and spec.statistics != "frozen":
        _check_one_image(spec, data, last)


def _check_one_image(spec: RunSpec, data: Dataset, last: int) -> None:
    """Refuse a network whose BatchNorms cannot do with one image."""
    images = data.train
    size = images.images.shape[1] if isinstance(images, Split) else spec.image_size
    try:
        architecture(spec.model)(torch.empty(1, 3, size, size, device="meta"))
    except ValueError:
        left = "one" if last == 1 else f"{last}"
        shares = f" in {spec.norm_shares} shares" if spec.norm_shares > 1 else ""
        raise InputError(
            f"batch_size {spec.batch_size} leaves {left} of the {len(data.train.labels)} images "
            f"for the last batch{shares}, too few for the BatchNorms of {spec.model}: "
            "write another",
            "batch_size",
        ) from None


def make_network(spec: RunSpec, num_classes: int) -> tuple[nn.Module, Subset]:
    with about("model"):
        model = create_model(
            spec.model,
            num_classes=num_classes,
            weight_init=spec.weight_init,
            norm_init=spec.norm_init,
            bias_init=spec.bias_init,
            seed=spec.seed,
        )
    if spec.weights:
        with about("weights"):
            load_weights(model, kept_weights(spec.weights))
    with about("trainable"):
        subset = select(model, spec.trainable, seed=spec.seed, statistics=spec.statistics)
    return model, subset


def inputs(data: Dataset, subset: Subset, model: nn.Module) -> dict[str, Any]:
    """What a run is built from, checked at every rebuild: inputs.json."""
    marks = fingerprint(model)
    skipped = {"skipped": list(data.skipped)} if data.skipped else {}
    return {
        "data": {
            "name": data.name,
            "source": data.source,
            "sha256": data.sha256,
            "train": len(data.train.labels),
            "test": len(data.test.labels),
            "num_classes": data.num_classes,
            **skipped,
        },
        "subset": {"text": subset.text, "trained": subset.count, "total": subset.total},
        "tensors": [
            {
                "name": row.name,
                "role": row.role,
                "shape": list(row.shape),
                "trained": row.trained,
                "verdict": row.verdict,
                "sha256": marks.get(row.name),
            }
            for row in subset.table
        ],
    }


def renew_data(folder: RunFolder, model: nn.Module, built_from: dict[str, Any]) -> list[str]:
    """Let a run that has not trained at all take the data of now, and say so in a note: a broken
    image is found in the first epoch, and what helps (repairing it, leaving it out) makes other
    data. built_from: `inputs` of now. Any other run stays as it is, for `check_data` to refuse, and
    so does one that starts from other weights."""
    began_with, now = folder.inputs["data"].get("sha256"), built_from["data"]
    if not isinstance(began_with, str) or began_with == now["sha256"] or _has_trained(folder):
        return []
    check_start(folder, model)
    path = folder.path / "inputs.json"
    write_atomically(path, encode_json({**folder.inputs, "data": now}))
    return ["it had not trained yet, so it begins with the data of now"]


def _has_trained(folder: RunFolder) -> bool:
    """Whether anything in a run's folder may follow from its data: a checkpoint, good or damaged, a
    pointer to one, a record. What cannot be looked at counts as that."""
    try:
        if (folder.path / POINTER).exists() or (folder.path / "metrics.jsonl").stat().st_size > 0:
            return True
    except FileNotFoundError:
        pass
    except OSError:
        return True
    try:
        return any((folder.path / "checkpoint").iterdir())
    except FileNotFoundError:
        return False
    except OSError:
        return True


def check_data(folder: RunFolder, data: Dataset) -> None:
    began_with = str(folder.inputs["data"].get("sha256"))
    if data.sha256 != began_with:
        raise InputError(
            f"run {folder.id} began with other data (sha256 {began_with[:12]}, now "
            f"{data.sha256[:12]}): give it the data it began with, or another folder for runs"
        )


def check_start(folder: RunFolder, model: nn.Module) -> None:
    try:
        tensors = folder.inputs["tensors"]
        marks = {row["name"]: row["sha256"] for row in tensors if row["sha256"]}
    except (LookupError, TypeError):
        path = folder.path / "inputs.json"
        raise RunError(f"{path} is damaged: remove the run folder and train it again") from None
    check_fingerprint(model, marks)


def check_equal(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    """Refuse to train with a first process that has built a run from other `inputs`."""
    if ours["data"]["sha256"] != theirs["data"]["sha256"]:
        raise InputError("it has other data than process 0: give all processes the same files")
    for our, their in zip(ours["tensors"], theirs["tensors"], strict=True):
        if our != their:
            raise InputError(
                f"'{our['name']}' starts with other values than in process 0: use the same "
                "gammabeta, numpy and kind of processor for all of them"
            )
