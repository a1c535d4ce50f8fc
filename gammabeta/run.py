"""One run from spec to result: build, resume, train, write. The only place that joins them.

The same spec again resumes a stopped run, retries a failed one and does nothing for a finished one.
"""

import contextlib
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gammabeta.build import Made, check_data, check_start, inputs, make_network, prepare
from gammabeta.data import Dataset
from gammabeta.engine import Engine, check_engine, choose_device, choose_engine
from gammabeta.engine.fused import FusedEngine, check_members, make_members
from gammabeta.environment import environment
from gammabeta.errors import GammabetaError, InputError, RunError, about
from gammabeta.gammas import gammas
from gammabeta.sparse import attached
from gammabeta.spec import RunSpec
from gammabeta.store import RunFolder, find_run
from gammabeta.subset import Subset
from gammabeta.train import Epoch, Step, seconds_per_step, train_epochs


@dataclass(frozen=True)
class Start:
    """Training is about to begin, after `epoch` finished epochs.

    engine, why: the engine that executes it, and why this one. step_seconds: of one step of all
    `members` that train in step, measured, then taken back. notes: what was noticed, a line each.
    """

    run: "Run"
    subset: Subset
    data: Dataset
    engine: str
    why: str
    device: str
    epoch: int
    step_seconds: float
    members: int
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
        model, subset = make_network(self.spec, classes)
        check_start(self.folder, model)
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
    return train_members([spec], runs, data_dir=data_dir, engine=engine, device=device,
                         listen=listen)[0]  # fmt: skip


def train_members(
    specs: Sequence[RunSpec],
    runs: str | Path = "runs",
    *,
    data_dir: str | Path | None = None,
    engine: str = "auto",
    device: str = "auto",
    listen: Callable[[Event], None] = lambda event: None,
) -> list[Run]:
    """Train several runs in step, in one program, each in a run folder of its own. Otherwise as
    `train`. Their specs may differ in what `gammabeta.engine.fused.OWN` names; each is what it
    would be alone, up to rounding. One that fails does not stop the others; its error comes last.
    """
    with about("engine"):
        check_engine(engine)
    with about("device"):
        chosen = choose_device(device)
    with about("runs"):
        if not str(runs):
            raise InputError("the folder for runs has no name: write for example runs")
        found = {spec.id: RunFolder.find(Path(runs), spec.id, spec.to_dict()) for spec in specs}
    waiting = {
        spec.id: spec for spec in specs if (old := found[spec.id]) is None or not _is_done(old)
    }
    made = prepare(list(waiting.values()), data_dir)
    if made:
        with about("engine"):
            engine_class, why = choose_engine(engine, made[0].spec, made[0].model, chosen)
        if len(made) > 1:
            check_members([each.spec for each in made], made[0].model, chosen)
    with about("runs"):
        folders = [
            RunFolder.create(
                Path(runs), each.spec.id, each.spec.to_dict(),
                inputs(each.data, each.subset, each.model),
            )
            for each in made
        ]  # fmt: skip
    with contextlib.ExitStack() as locks:
        for folder in folders:
            locks.enter_context(folder.lock())
        members = []
        for each, folder in zip(made, folders, strict=True):
            if _is_done(folder):  # another process may have finished it while we waited
                continue
            check_data(folder, each.data)
            check_start(folder, each.model)
            members.append((each, folder))
        for team in _by_epoch(members):
            _train([
                (Run(each.spec, folder), engine_class(
                    each.model, each.subset, each.spec, each.data, chosen
                ))
                for each, folder in team
            ], why, listen)  # fmt: skip
    return [Run(spec, RunFolder.open(Path(runs) / spec.id)) for spec in specs]


def _by_epoch(
    members: Sequence[tuple[Made, RunFolder]],
) -> Iterator[list[tuple[Made, RunFolder]]]:
    """Members that have come equally far: a kill may fall between two of their checkpoints."""
    groups: dict[int, list[tuple[Made, RunFolder]]] = {}
    for each, folder in members:
        checkpoint, _ = folder.load_checkpoint()
        epoch = 0 if checkpoint is None else checkpoint.epoch
        groups.setdefault(epoch, []).append((each, folder))
    yield from groups.values()


def _is_done(folder: RunFolder) -> bool:
    return folder.result is not None and folder.result["status"] == "ok"


def _train(team: Sequence[tuple[Run, Engine]], why: str, listen: Callable[[Event], None]) -> None:
    """Train runs in step: each takes one event's worth of work in turn."""
    if len(team) > 1:
        make_members([engine for _, engine in team if isinstance(engine, FusedEngine)])
    errors = []
    going = []
    for run, engine in team:
        start = _resume(run, engine, why)
        going.append((run, engine, start))
    seconds = seconds_per_step([engine for _, engine in team], team[0][0].spec)
    working = []
    for run, engine, start in going:
        listen(replace(start, step_seconds=seconds, members=len(team)))
        working.append((run, engine, _events(run, engine, start.epoch)))
    while working:
        for member in list(working):
            run, engine, events = member
            try:
                event = next(events, None)
            except Exception as error:
                _write_failure(run.folder, error)
                errors.append(error)
                event = None
                if isinstance(engine, FusedEngine):
                    engine.leave()
            if event is None:
                working.remove(member)
            elif not isinstance(event, Step) or member is working[-1]:
                listen(event)
    if errors:
        raise errors[0]


def _resume(run: Run, engine: Engine, why: str) -> Start:
    """Load the last checkpoint and make the folder ready; what is known before the first step."""
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
    return Start(
        run=run,
        subset=engine.subset,
        data=engine.data,
        engine=engine.name,
        why=why,
        device=str(engine.device),
        epoch=epoch,
        step_seconds=0.0,
        members=1,
        notes=tuple(notes),
    )


def _events(run: Run, engine: Engine, epoch: int) -> Iterator[Event]:
    """Train and write what happened, then say it."""
    folder = run.folder
    for event in train_epochs(engine, run.spec, epoch):
        if isinstance(event, Epoch):
            # The checkpoint comes last: where it is there, so are the metrics up to it.
            folder.append_metrics(event.record)
            folder.save_checkpoint(event.record["epoch"], engine.state())
        yield event
    records = folder.metrics()
    result = {key: value for key, value in records[-1].items() if not key.endswith("seconds")}
    result["seconds"] = round(sum(record["seconds"] for record in records), 3)
    folder.write_result({"status": "ok", **result})


def _write_failure(folder: RunFolder, error: Exception) -> None:
    failure = {"status": "failed", "error": f"{error}" or type(error).__name__}
    if not isinstance(error, GammabetaError):
        failure["traceback"] = traceback.format_exc()
    with contextlib.suppress(RunError):  # a full disk, say: `error` is what the user must see
        folder.write_result(failure)
