"""One run from spec to result: build, resume, train, write. The only place that joins them.

The same spec again resumes a stopped run, retries a failed one and does nothing for a finished one.
"""

import contextlib
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gammabeta.data import Dataset, load_dataset, randomise_labels, subsample
from gammabeta.engine import Engine, choose_device, choose_engine
from gammabeta.environment import environment
from gammabeta.errors import GammabetaError, InputError, RunError, about
from gammabeta.gammas import gammas
from gammabeta.models import architecture, create_model
from gammabeta.sparse import attached
from gammabeta.spec import RunSpec
from gammabeta.store import RunFolder, find_run
from gammabeta.subset import Subset, check_fingerprint, fingerprint, select
from gammabeta.train import Epoch, Step, seconds_per_step, train_epochs


@dataclass(frozen=True)
class Start:
    """Training is about to begin, after `epoch` finished epochs.

    notes: what was noticed, a line each. step_seconds: measured on one step, then taken back.
    """

    run: "Run"
    subset: Subset
    data: Dataset
    engine: str
    device: str
    epoch: int
    step_seconds: float
    notes: tuple[str, ...]


Event = Start | Step | Epoch


@dataclass(frozen=True)
class Run:
    """A run in the store. `result` is None until it has ended; its "status" is "ok" or "failed"."""

    spec: RunSpec
    folder: RunFolder

    @property
    def id(self) -> str:
        return self.folder.id

    @property
    def result(self) -> dict[str, Any] | None:
        return self.folder.result

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """One record an epoch; accuracies and shares are in 0..1."""
        return self.folder.metrics()

    @property
    def accuracy(self) -> float:
        """Test accuracy after the last epoch, in 0..1."""
        return float(self._finished()["test_accuracy"])

    def network(self) -> nn.Module:
        """The trained network, in evaluation mode: rebuilt from the seed, checked against the
        fingerprint, with the trained values and statistics of the last checkpoint."""
        classes = self.folder.inputs["data"]["num_classes"]
        model, subset = _network(self.spec, classes)
        _check_start(self.folder, model)
        checkpoint, notes = self.folder.load_checkpoint()
        if checkpoint is None:
            why = "; ".join(notes) or "train it first"
            raise RunError(f"run {self.id} has no good checkpoint: {why}")
        subset.apply(model)
        subset.load_state(model, checkpoint.tensors)
        for entries in attached(model).values():
            entries.detach()
        return model.eval()

    def gammas(self) -> dict[str, torch.Tensor]:
        """Parameter name -> trained gamma (C,)."""
        return gammas(self.network())

    def _finished(self) -> dict[str, Any]:
        if self.result is None or self.result["status"] != "ok":
            raise RunError(f"run {self.id} is {self.folder.status}: train it first")
        return self.result


def load_run(run: str | Path, runs: str | Path | None = None) -> Run:
    """The run in a folder such as runs/0123456789ab; with `runs`, that of an id, or of the start of
    one, in this folder. Raises InputError where there is none.
    """
    folder = RunFolder.open(Path(run)) if runs is None else find_run(Path(runs), str(run))
    try:
        spec = RunSpec.from_dict(folder.spec)
    except InputError as error:
        raise InputError(f"{folder.path / 'spec.json'}: {error}") from None
    if spec.id != folder.id:
        raise InputError(f"{folder.path} holds the spec of run {spec.id}: it was edited or renamed")
    return Run(spec, folder)


def train(
    spec: RunSpec,
    runs: str | Path = "runs",
    *,
    data_dir: str | Path | None = None,
    engine: str = "auto",
    device: str = "auto",
    listen: Callable[[Event], None] = lambda event: None,
) -> Run:
    """Train `spec` and keep it under `runs`; resume or skip what is already there.

    listen: called with every event while it works; without it nothing is said.
    `gammabeta.progress` is one that prints a line an epoch.
    Raises InputError before anything is created, RunError when training itself fails.
    """
    with about("engine"):
        engine_class = choose_engine(engine)
    with about("device"):
        chosen = choose_device(device)
    with about("runs"):
        if not str(runs):
            raise InputError("the folder for runs has no name: write for example runs")
        earlier = RunFolder.find(Path(runs), spec.id, spec.to_dict())
    if earlier is not None and _is_done(earlier):
        return Run(spec, earlier)
    data = load_data(spec, data_dir)
    model, subset = _network(spec, data.num_classes)
    check_roles(spec, subset)
    _check_last_batch(spec, data)
    with about("runs"):
        folder = RunFolder.create(Path(runs), spec.id, spec.to_dict(), _inputs(data, subset, model))
    with folder.lock():
        if _is_done(folder):  # another process may have finished it while we waited
            return Run(spec, folder)
        _check_data(folder, data)
        _check_start(folder, model)
        try:
            _train(Run(spec, folder), engine_class(model, subset, spec, data, chosen), listen)
        except Exception as error:
            _write_failure(folder, error)
            raise
    return Run(spec, folder)


def load_data(spec: RunSpec, data_dir: str | Path | None = None) -> Dataset:
    """The data of a spec, with its subsample and random labels; checks the batch size."""
    with about("data_dir") if data_dir is not None else contextlib.nullcontext():
        data = load_dataset(spec.data, data_dir)
    if spec.subsample is not None:
        with about("subsample"):
            data = subsample(data, spec.subsample)
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


def _check_last_batch(spec: RunSpec, data: Dataset) -> None:
    """Refuse a last batch of one image where a BatchNorm would see a single value per channel."""
    count, size = len(data.train.labels), data.train.images.shape[1]
    if spec.statistics == "frozen" or count % spec.batch_size != 1 % spec.batch_size:
        return
    try:
        architecture(spec.model)(torch.empty(1, 3, size, size, device="meta"))
    except ValueError:
        raise InputError(
            f"batch_size {spec.batch_size} leaves one of the {count} images for the last batch, "
            f"too few for the BatchNorms of {spec.model}: write another",
            "batch_size",
        ) from None


def _network(spec: RunSpec, num_classes: int) -> tuple[nn.Module, Subset]:
    with about("model"):
        model = create_model(
            spec.model,
            num_classes=num_classes,
            weight_init=spec.weight_init,
            norm_init=spec.norm_init,
            seed=spec.seed,
        )
    with about("trainable"):
        subset = select(model, spec.trainable, seed=spec.seed, statistics=spec.statistics)
    return model, subset


def _is_done(folder: RunFolder) -> bool:
    return folder.result is not None and folder.result["status"] == "ok"


def _train(run: Run, engine: Engine, listen: Callable[[Event], None]) -> None:
    folder = run.folder
    checkpoint, notes = folder.load_checkpoint()
    epoch = 0
    if checkpoint is not None:
        engine.load(checkpoint.tensors)
        epoch = checkpoint.epoch
        notes.append(f"resuming after epoch {epoch}")
    folder.clear_result()
    folder.truncate_metrics(epoch)
    folder.record_session(
        environment(engine.device) | {"engine": engine.name, "after_epoch": epoch, "notes": notes}
    )
    listen(
        Start(
            run=run,
            subset=engine.subset,
            data=engine.data,
            engine=engine.name,
            device=str(engine.device),
            epoch=epoch,
            step_seconds=seconds_per_step(engine, run.spec),
            notes=tuple(notes),
        )
    )
    for event in train_epochs(engine, run.spec, epoch):
        if isinstance(event, Epoch):
            # The checkpoint comes last: where it is there, so are the metrics up to it.
            folder.append_metrics(event.record)
            folder.save_checkpoint(event.record["epoch"], engine.state())
        listen(event)
    records = folder.metrics()
    result = {key: value for key, value in records[-1].items() if not key.endswith("seconds")}
    result["seconds"] = round(sum(record["seconds"] for record in records), 3)
    folder.write_result({"status": "ok", **result})


def _inputs(data: Dataset, subset: Subset, model: nn.Module) -> dict[str, Any]:
    """What a run is built from, checked at every rebuild: inputs.json."""
    marks = fingerprint(model)
    return {
        "data": {
            "name": data.name,
            "source": data.source,
            "sha256": data.sha256,
            "train": len(data.train.labels),
            "test": len(data.test.labels),
            "num_classes": data.num_classes,
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


def _check_data(folder: RunFolder, data: Dataset) -> None:
    began_with = folder.inputs["data"]["sha256"]
    if data.sha256 != began_with:
        raise InputError(
            f"run {folder.id} began with other data (sha256 {began_with[:12]}, now "
            f"{data.sha256[:12]}): give it the data it began with, or another folder for runs"
        )


def _check_start(folder: RunFolder, model: nn.Module) -> None:
    tensors = folder.inputs["tensors"]
    check_fingerprint(model, {row["name"]: row["sha256"] for row in tensors if row["sha256"]})


def _write_failure(folder: RunFolder, error: Exception) -> None:
    failure = {"status": "failed", "error": f"{error}" or type(error).__name__}
    if not isinstance(error, GammabetaError):
        failure["traceback"] = traceback.format_exc()
    with contextlib.suppress(RunError):  # a full disk, say: `error` is what the user must see
        folder.write_result(failure)
