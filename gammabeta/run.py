"""One run from spec to result: build, resume, train, write. The only place that joins them.

The same spec again resumes a stopped run, retries a failed one and does nothing for a finished one.
"""

import contextlib
import dataclasses
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gammabeta.build import (
    Made,
    check_data,
    check_equal,
    check_start,
    inputs,
    prepare,
    renew_data,
)
from gammabeta.checkpoint import Checkpoint
from gammabeta.data import Dataset, Pictures, Reading
from gammabeta.engine import ENGINES, Engine, check_engine, choose_device, choose_engine
from gammabeta.engine.eager import EagerEngine
from gammabeta.engine.fused import FusedEngine, check_members, make_members
from gammabeta.environment import environment
from gammabeta.errors import GammabetaError, InputError, RunError, about
from gammabeta.events import Ended, Event, Start
from gammabeta.launch import check_alone, launched
from gammabeta.spec import RunSpec, check_specs
from gammabeta.store import RunFolder
from gammabeta.train import Epoch, Step, seconds_per_step, train_epochs
from gammabeta.trained import Run, load_run

__all__ = [
    "Ended",
    "Event",
    "Run",
    "Start",
    "load_run",
    "train",
    "train_members",
    "train_team",
    "waiting",
]


def train(
    spec: RunSpec,
    runs: str | Path = "runs",
    *,
    data_dir: str | Path | None = None,
    reading: Reading | None = None,
    engine: str = "auto",
    device: str = "auto",
    listen: Callable[[Event], None] = lambda event: None,
) -> Run:
    """Train `spec` and keep it under `runs`; resume or skip what is already there.

    reading: how the images of imagenet are read; by default with a thread a processor.
    listen: called with every event while it works; without it nothing is said.
    `gammabeta.progress` is one that prints a line an epoch.
    Raises InputError before anything is created, RunError when training itself fails.

    In each of several processes, started by torchrun, it trains its share of the run; the first one
    keeps the run folder and is listened to.
    """
    check_specs([spec], "train")
    if launched()[1] > 1:
        return _train_together(spec, Path(runs), data_dir, reading, engine, device, listen)
    return train_members([spec], runs, data_dir=data_dir, reading=reading, engine=engine,
                         device=device, listen=listen)[0]  # fmt: skip


def train_members(
    specs: Sequence[RunSpec],
    runs: str | Path = "runs",
    *,
    data_dir: str | Path | None = None,
    reading: Reading | None = None,
    engine: str = "auto",
    device: str = "auto",
    listen: Callable[[Event], None] = lambda event: None,
) -> list[Run]:
    """Train several runs in step, in one program, each in a run folder of its own. Otherwise as
    `train`. Their specs may differ in what `gammabeta.engine.fused.OWN` names; each is what it
    would be alone, up to rounding. One that fails does not stop the others; its error comes last.

    A run's seconds are its share: those of the team, divided by its members.
    """
    check_specs(specs, "train_members")
    failed = train_team(specs, runs, data_dir=data_dir, reading=reading, engine=engine,
                        device=device, listen=listen)  # fmt: skip
    for error in failed.values():
        raise error
    return [Run(spec, RunFolder.open(Path(runs) / spec.id)) for spec in specs]


def train_team(
    specs: Sequence[RunSpec],
    runs: str | Path,
    *,
    data_dir: str | Path | None,
    reading: Reading | None = None,
    engine: str,
    device: str,
    listen: Callable[[Event], None],
    loaded: dict[str, Dataset] | None = None,
) -> dict[str, Exception]:
    """`train_members`, but the runs that failed are handed over: id and error. loaded: see
    `build.load_data`."""
    check_alone("several runs are trained")
    with about("engine"):
        check_engine(engine)
    with about("device"):
        chosen = choose_device(device)
    made = prepare(waiting(specs, runs), data_dir, loaded, reading)
    if not made:
        return {}
    with about("engine"):
        engine_class, why = choose_engine(engine, made[0].spec, made[0].model, chosen)
    if len(made) > 1:
        check_members([each.spec for each in made], made[0].model, chosen)
        if engine_class is not FusedEngine:
            raise InputError(
                f"only the fused engine trains members, and this would be {engine_class.name} "
                f"({why}): write fused, or train them one after another",
                "engine",
            )
    errors: dict[str, Exception] = {}
    folders = []
    for each in made:
        with _noted(errors, each.spec.id), about("runs"):
            built_from = inputs(each.data, each.subset, each.model)
            folder = RunFolder.create(Path(runs), each.spec.id, each.spec.to_dict(), built_from)
            folders.append((each, folder, built_from))
    session = environment(chosen) | {"engine": engine_class.name}
    if isinstance(made[0].data.train, Pictures):
        session["decoding_threads"] = made[0].data.train.workers
    with contextlib.ExitStack() as locks:
        ready = []
        for each, folder, built_from in folders:
            with _noted(errors, folder.id):
                locks.enter_context(folder.lock())
                if not _is_done(folder):  # another process may have finished it while we waited
                    ready.append(_rewind(each, folder, engine_class.name, built_from))
        for together in _by_epoch(ready):
            team = []
            for member in together:
                with _noted(errors, member.folder.id):
                    member.folder.record_session(
                        session
                        | {"after_epoch": member.epoch, "notes": member.notes}
                        | {"members": len(together)}
                    )
                    team.append(member)
            engines = [
                engine_class(each.made.model, each.made.subset, each.made.spec, each.made.data,
                             chosen)
                for each in team
            ]  # fmt: skip
            for one in engines:  # after Ctrl-C too: threads that decode ahead would linger
                locks.callback(one.close)
            if team:
                errors |= _train(team, engines, why, listen)
    return errors


def _train_together(
    spec: RunSpec,
    runs: Path,
    data_dir: str | Path | None,
    reading: Reading | None,
    engine: str,
    device: str,
    listen: Callable[[Event], None],
) -> Run:
    """`train` in one of several processes. What only the first can know, it tells the others."""
    from gammabeta.processes import joined

    with about("engine"):
        check_engine(engine)
    with about("device"):
        chosen = choose_device(device)
    with joined(chosen) as processes, contextlib.ExitStack() as lock:
        first = processes.rank == 0
        if not processes.from_first(len(waiting([spec], runs)) if first else None):
            return Run(spec, RunFolder(runs / spec.id, spec.to_dict()))
        together = dataclasses.replace(reading or Reading(), once=processes.once)
        [made] = prepare([spec], data_dir, reading=together)
        with about("engine"):
            choice = choose_engine(engine, spec, made.model, chosen, processes.count)
        # A machine without a compiler would choose another one than its neighbour.
        name, why = processes.from_first((choice[0].name, choice[1]))
        engine_class = ENGINES[name]
        assert issubclass(engine_class, EagerEngine)
        built_from = inputs(made.data, made.subset, made.model)
        check_equal(built_from, processes.from_first(built_from))
        processes.wait()  # all have what they need: from here on files are written
        folder, member = RunFolder(runs / spec.id, spec.to_dict()), None
        if first:
            with about("runs"):
                folder = RunFolder.create(runs, spec.id, spec.to_dict(), built_from)
            lock.enter_context(folder.lock())
            member = _rewind(made, folder, name, built_from)
            folder.record_session(
                environment(chosen)
                | {"engine": name, "after_epoch": member.epoch, "notes": member.notes}
                | {"members": 1, "processes": processes.count, "sync_bn": spec.norm_shares == 1}
            )
        epoch = processes.from_first(member.epoch if member else 0)
        saved = member.checkpoint.tensors if member and member.checkpoint else {}
        state = processes.tensors_from_first(saved)
        worker = engine_class(made.model, made.subset, spec, made.data, chosen, processes)
        lock.callback(worker.close)
        if member is not None:
            for error in _train([member], [worker], why, listen).values():
                raise error
        else:
            if epoch:
                worker.load(state)
            seconds_per_step([worker], spec)
            for _ in train_epochs(worker, spec, epoch):
                pass
        return Run(spec, folder)


def waiting(specs: Sequence[RunSpec], runs: str | Path) -> list[RunSpec]:
    """Those of `specs` that have not finished, each once; among them those whose folder is damaged,
    so that each fails by itself. Raises InputError for a folder `runs` that cannot hold them."""
    with about("runs"):
        if not str(runs):
            raise InputError("the folder for runs has no name: write for example runs")
        found = {spec.id: (spec, find(spec, Path(runs))) for spec in specs}
    return [spec for spec, folder in found.values() if folder is None or not _is_done(folder)]


def find(spec: RunSpec, runs: Path) -> RunFolder | None:
    """The folder of a run, if it is there, with `damage` if it cannot be read or has another spec.
    Raises InputError where `runs` can hold no run, or something else has its name."""
    try:
        return RunFolder.find(runs, spec.id, spec.to_dict())
    except InputError as error:
        if not (runs / spec.id / "inputs.json").exists():  # only a run has it
            raise
        return RunFolder(runs / spec.id, {}, damage=str(error))


def _is_done(folder: RunFolder) -> bool:
    return folder.status == "ok"


@contextlib.contextmanager
def _noted(errors: dict[str, Exception], run_id: str) -> Iterator[None]:
    """What is wrong with one folder is noted, and does not stop the runs in the others."""
    try:
        yield
    except GammabetaError as error:
        errors[run_id] = error


@dataclass(frozen=True)
class _Ready:
    """A run that is locked and goes on from its last checkpoint."""

    made: Made
    folder: RunFolder
    checkpoint: Checkpoint | None
    notes: list[str]

    @property
    def epoch(self) -> int:
        return 0 if self.checkpoint is None else self.checkpoint.epoch


def _rewind(made: Made, folder: RunFolder, engine: str, built_from: dict[str, Any]) -> _Ready:
    """Bring a folder back to its last checkpoint. engine: the name of the one that goes on;
    built_from: `inputs` of now, see `renew_data`."""
    renewed = renew_data(folder, made.model, built_from)
    check_data(folder, made.data)
    check_start(folder, made.model)
    checkpoint, notes = folder.load_checkpoint()
    notes += renewed
    if checkpoint is not None:
        notes.append(f"resuming after epoch {checkpoint.epoch}{_other_engine(folder, engine)}")
    ready = _Ready(made, folder, checkpoint, notes)
    folder.clear_result()
    folder.truncate_metrics(ready.epoch)
    return ready


def _other_engine(folder: RunFolder, engine: str) -> str:
    """A reader of the numbers should know that rounding changed on the way."""
    sessions = folder.env["sessions"]
    before = sessions[-1].get("engine", engine) if sessions else engine
    if before == engine:
        return ""
    return f" with the {engine} engine, before it was {before}: the same numbers up to rounding"


def _by_epoch(ready: Sequence[_Ready]) -> Iterator[list[_Ready]]:
    """Members that have come equally far: a kill may fall between two of their checkpoints."""
    groups: dict[int, list[_Ready]] = {}
    for each in ready:
        groups.setdefault(each.epoch, []).append(each)
    yield from groups.values()


def _train(
    team: Sequence[_Ready], engines: Sequence[Engine], why: str, listen: Callable[[Event], None]
) -> dict[str, Exception]:
    """Train runs in step: each takes one event's worth of work in turn."""
    if len(team) > 1:
        make_members([engine for engine in engines if isinstance(engine, FusedEngine)])
    for each, engine in zip(team, engines, strict=True):
        if each.checkpoint is not None:
            engine.load(each.checkpoint.tensors)
    specs = tuple(each.made.spec for each in team)
    seconds = seconds_per_step(engines, specs[0])
    times: dict[int, dict[str, Any]] = {}
    working = []
    for each, engine in zip(team, engines, strict=True):
        start = Start(
            run=Run(each.made.spec, each.folder),
            subset=each.made.subset,
            data=each.made.data,
            engine=engine.name,
            why=why,
            device=str(engine.device),
            epoch=each.epoch,
            step_seconds=seconds,
            team=specs,
            notes=tuple(each.notes),
        )
        listen(start)
        working.append((each.folder, engine, _events(start, engine, times)))
    errors: dict[str, Exception] = {}
    while working:
        for member in list(working):
            folder, engine, events = member
            try:
                event = next(events, None)
            except Exception as error:
                _write_failure(folder, error)
                errors[folder.id] = error
                event = None
                if isinstance(engine, FusedEngine):
                    engine.leave()
            if event is None:
                working.remove(member)
            elif not isinstance(event, Step) or member is working[-1]:
                listen(event)
    return errors


def _events(start: Start, engine: Engine, times: dict[int, dict[str, Any]]) -> Iterator[Event]:
    """Train and write what happened, then say it. times: an epoch's record of the team's first."""
    folder = start.run.folder
    for event in train_epochs(engine, start.run.spec, start.epoch):
        if isinstance(event, Epoch):
            if start.members > 1:
                event = _with_share(event, start, times)
            # The checkpoint comes last: where it is there, so are the metrics up to it.
            folder.append_metrics(event.record)
            folder.save_checkpoint(event.record["epoch"], engine.state())
        yield event
    records = folder.metrics()
    result = {key: value for key, value in records[-1].items() if not key.endswith("seconds")}
    result["seconds"] = round(sum(record["seconds"] for record in records), 3)
    folder.write_result({"status": "ok", **result})


def _with_share(event: Epoch, start: Start, times: dict[int, dict[str, Any]]) -> Epoch:
    """A member's epoch. Its seconds are its share of the team's, which the first member to end the
    epoch has measured: the clocks of the others run on while the first evaluates all of them."""
    first = times.setdefault(event.record["epoch"], event.record)
    shares = {
        key: round(first[key] / start.members, 3) for key in ("seconds", "evaluation_seconds")
    }
    return Epoch(event.record | shares, start.run.id)


def _write_failure(folder: RunFolder, error: Exception) -> None:
    failure = {"status": "failed", "error": f"{error}" or type(error).__name__}
    if not isinstance(error, GammabetaError):
        failure["traceback"] = traceback.format_exc()
    with contextlib.suppress(RunError):  # a full disk, say: `error` is what the user must see
        folder.write_result(failure)
