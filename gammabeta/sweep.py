"""Many runs from one spec: the product of what varies, trained in teams that step together.

A team is one program for several runs (engine/fused.py); each still has a folder of its own and is
what it would be alone, up to rounding. Runs that cannot be members are trained one after another.
"""

import contextlib
import functools
import itertools
import json
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gammabeta.build import check, check_network, load_data
from gammabeta.data import Dataset, Reading
from gammabeta.data.imagenet import processors
from gammabeta.engine import choose_device, choose_engine
from gammabeta.engine.fused import OWN, FusedEngine
from gammabeta.errors import GammabetaError, HeldError, InputError, RunError, about
from gammabeta.fused.plan import make_plan
from gammabeta.jobs import in_processes
from gammabeta.models import architecture
from gammabeta.run import Ended, Event, Run, load_run, train_team, waiting
from gammabeta.spec import RunSpec, check_specs

IN_STEP = 32  # members of a team, at most
# Fields on which neither what a network has nor what data it gets depends.
_NEVER_WRONG = ("seed", "lr", "weight_decay", "norm_init", "weight_init", "random_labels")


def grid(
    spec: RunSpec, axes: Mapping[str, Iterable[Any]] | Iterable[tuple[str, Iterable[Any]]]
) -> list[RunSpec]:
    """Every combination of the values of some fields, as in
    `grid(spec, {"lr": [0.01, 0.1], "seed": range(3)})`.

    The last field varies fastest; the same run is there once. Fields whose default follows from a
    varied one take it, as in `RunSpec.replace`.
    """
    check_specs([spec], "grid")
    pairs = [
        (name, values if isinstance(values, str) or not isinstance(values, Iterable) else [*values])
        for name, values in (axes.items() if isinstance(axes, Mapping) else axes)
    ]
    names = [name for name, _ in pairs]
    for name, values in pairs:
        if names.count(name) > 1:
            raise InputError(f"{name} is given twice: write it once, with all its values", name)
        if not isinstance(values, list) or not values:
            some = f": write [{values!r}]" if values or values == 0 else ""
            raise InputError(f"{name} needs a list of values, not {values!r}{some}", name)
    made = [
        spec.replace(**dict(zip(names, combination, strict=True)))
        for combination in itertools.product(*(values for _, values in pairs))
    ]
    return list({each.id: each for each in made}.values())


def teams(
    specs: Sequence[RunSpec], *, engine: str = "auto", device: str = "auto", in_step: int = IN_STEP
) -> list[list[RunSpec]]:
    """Runs that train in step, together; the others each alone. Members are equal but for what
    `engine.fused.OWN` names, and `engine` has to be (or to choose) the fused one.

    in_step: the most members of a team; on a GPU also no more than its memory holds.
    """
    if in_step < 1:
        raise InputError(f"in_step is {in_step}: write 1 or more", "in_step")
    with about("device"):
        chosen = choose_device(device)
    network = functools.cache(architecture)
    groups: dict[str, list[RunSpec]] = {}
    for spec in specs:
        with about("engine"):
            fused = choose_engine(engine, spec, network(spec.model), chosen)[0] is FusedEngine
        groups.setdefault(_without(spec, OWN) if fused else spec.id, []).append(spec)
    planned = []
    for group in groups.values():
        if len(group) > 1:
            most = _most(group[0], network(group[0].model), chosen, in_step)
            planned += _split(group, most)
        else:
            planned.append(group)
    return planned


def why_alone(
    planned: Sequence[Sequence[RunSpec]], *, engine: str = "auto", device: str = "auto"
) -> dict[str, str]:
    """Of the runs that `teams`, asked the same, has left alone: why, in half a sentence, by id."""
    place = choose_device(device)
    alike = Counter(_without(spec, OWN) for team in planned for spec in team)
    found = {}
    for spec in (team[0] for team in planned if len(team) == 1):
        chosen, why = choose_engine(engine, spec, architecture(spec.model), place)
        if chosen is not FusedEngine:
            reason = f"the {chosen.name} engine trains one run at a time ({why})"
        elif alike[_without(spec, OWN)] > 1:
            reason = "a team has no room for it (--in-step; on a GPU also its memory)"
        else:
            reason = f"no other run to train differs from it in nothing but {', '.join(OWN)}"
        found[spec.id] = reason
    return found


def sweep(
    specs: Sequence[RunSpec],
    runs: str | Path = "runs",
    *,
    data_dir: str | Path | None = None,
    reading: Reading | None = None,
    engine: str = "auto",
    device: str = "auto",
    in_step: int = IN_STEP,
    jobs: int = 1,
    listen: Callable[[Event], None] = lambda event: None,
) -> list[Run]:
    """Train many runs, in `teams` where they allow it. Otherwise as `train`: what has finished is
    not trained again, what was stopped goes on.

    jobs: teams that train at once, in processes that share the processor's threads; of those,
    `listen` hears only that a run has Ended.
    Raises InputError before anything is created. A run that fails does not stop the others: what
    failed, and why, is said as it happens (Ended), and is one RunError at the end. So is a run that
    another process trains and has not finished when all the others are done.
    """
    check_specs(specs, "sweep")
    if jobs < 1:
        raise InputError(f"jobs is {jobs}: write 1 or more", "jobs")
    left = waiting(specs, runs)
    planned = teams(left, engine=engine, device=device, in_step=in_step)
    loaded: dict[str, Dataset] = {}
    for spec in _distinct(left):
        check(spec, load_data(spec, data_dir, loaded, reading))
    how = {"data_dir": data_dir, "reading": reading, "engine": engine, "device": device}
    errors = _train_all(planned, runs, how, jobs, listen, loaded)
    if held := [spec for spec in left if isinstance(errors.get(spec.id), HeldError)]:
        # By another process, which may have finished some of them since, or have stopped.
        open_now = waiting(held, runs)
        for spec in held:
            del errors[spec.id]
            if spec not in open_now:
                listen(Ended(spec, None))
        more = teams(open_now, engine=engine, device=device, in_step=in_step)
        errors |= _train_all(more, runs, how, jobs, listen, loaded, again=True)
    if errors:
        raise RunError(_failures(errors, len(left))) from next(iter(errors.values()))
    return [load_run(Path(runs) / spec.id) for spec in specs]


def _train_all(
    planned: Sequence[Sequence[RunSpec]], runs: str | Path, how: Mapping[str, Any], jobs: int,
    listen: Callable[[Event], None], loaded: dict[str, Dataset], again: bool = False,
) -> dict[str, Exception]:  # fmt: skip
    """Train all teams, and say how each of their runs ended; what failed, by id. again: that others
    train one of them was said before."""
    errors: dict[str, Exception] = {}
    if jobs > 1 and len(planned) > 1:
        finished = _at_once(planned, runs, how, min(jobs, len(planned)))
    else:
        finished = ((team, _train(team, runs, how, listen, loaded)) for team in planned)
    with contextlib.closing(finished):  # after Ctrl-C its processes end now, not at some later time
        for team, failed in finished:
            errors |= failed
            for spec in team:
                error = failed.get(spec.id)
                if not isinstance(error, HeldError):
                    listen(Ended(spec, None if error is None else _reason(error)))
                elif not again:
                    listen(Ended(spec, None, error.by))
    return errors


def _train(
    team: Sequence[RunSpec], runs: str | Path, how: Mapping[str, Any],
    listen: Callable[[Event], None], loaded: dict[str, Dataset] | None,
) -> dict[str, Exception]:  # fmt: skip
    """Train one team; what failed, by id."""
    try:
        return train_team(team, runs, **how, listen=listen, loaded=loaded)
    except Exception as error:  # before the first step: of the whole team
        return {spec.id: error for spec in waiting(team, runs)}


def _at_once(
    planned: Sequence[Sequence[RunSpec]], runs: str | Path, how: Mapping[str, Any], jobs: int
) -> Generator[tuple[Sequence[RunSpec], dict[str, Exception]]]:
    """`_train` in `jobs` processes, which share the threads that decode images, too."""
    reading = how["reading"] or Reading()
    if any(spec.data == "imagenet" for team in planned for spec in team):
        workers = reading.workers or processors(jobs)
        how = {**how, "reading": replace(reading, workers=workers)}
    for team, failed in in_processes(functools.partial(_alone, runs, dict(how)), planned, jobs):
        if failed is None:
            died = RunError("its process was killed, perhaps for want of memory: try fewer jobs")
            yield team, {spec.id: died for spec in waiting(team, runs)}
        else:
            yield team, dict(failed)


def _alone(runs: str | Path, how: dict[str, Any], team: Sequence[RunSpec]) -> dict[str, RunError]:
    """In a process of its own: `_train`, with errors that every process can read."""
    failed = _train(team, runs, how, lambda event: None, None)
    return {
        name: error if isinstance(error, HeldError) else RunError(_reason(error))
        for name, error in failed.items()
    }


def check_networks(specs: Sequence[RunSpec]) -> None:
    """Raise what `sweep` would raise, as far as it is known without the data."""
    for spec in _distinct(specs):
        check_network(spec)


def _distinct(specs: Sequence[RunSpec]) -> list[RunSpec]:
    """One of those that are right or wrong together."""
    return list({_without(spec, _NEVER_WRONG): spec for spec in specs}.values())


def _without(spec: RunSpec, names: Sequence[str]) -> str:
    """What two specs have in common that differ in `names` only."""
    return json.dumps({key: value for key, value in spec.to_dict().items() if key not in names})


def _most(spec: RunSpec, model: nn.Module, device: torch.device, in_step: int) -> int:
    """How many members fit. On a CPU they take turns within a step, and memory is no limit."""
    if device.type != "cuda" or in_step == 1:
        return in_step
    half = torch.cuda.get_device_properties(device).total_memory // 2
    one = make_plan(model).saved_bytes(spec.batch_size, 2 if spec.precision == "bf16" else 4)
    return max(1, min(in_step, half // one))


def _split(group: list[RunSpec], most: int) -> list[list[RunSpec]]:
    """Parts of nearly equal size. Members with one backbone share work: they stay together."""
    count = -(-len(group) // most)
    if count > 1:
        group = sorted(group, key=lambda spec: (spec.seed, spec.weight_init))
    bounds = [round(len(group) * part / count) for part in range(count + 1)]
    return [group[start:stop] for start, stop in itertools.pairwise(bounds)]


def _failures(errors: Mapping[str, Exception], count: int) -> str:
    """One line; runs that failed for the same reason, or that one process trains, are together."""
    reasons: dict[str, list[str]] = {}
    others: dict[str, list[str]] = {}
    for name, error in errors.items():
        if isinstance(error, HeldError):
            others.setdefault(error.by, []).append(name)
        else:
            reasons.setdefault(_reason(error), []).append(name)
    failed = "; ".join(f"{', '.join(names)} ({reason})" for reason, names in reasons.items())
    told = [f"{sum(map(len, reasons.values()))} of {count} runs failed: {failed}"] * bool(reasons)
    for process, names in others.items():
        told.append(
            f"{len(names)} of {count} runs left to {process}, which is training "
            f"{', '.join(names)}: when it has ended, the same command again has them all"
        )
    return "; ".join(told)


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, GammabetaError) else f"{type(error).__name__}: {error}"
