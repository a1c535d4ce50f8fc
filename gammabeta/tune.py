"""Fine-tuning of subsets, compared fairly: each gets the same learning rates and the same epochs.

A subset of gammas and betas at the rate that suits all weights looks dead, so a rate is chosen for
each subset, by training images held out for that. Test images are looked at once, by the run at the
chosen rate on all training images.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gammabeta.delta import save_delta
from gammabeta.delta_file import Delta
from gammabeta.errors import InputError, RunError
from gammabeta.events import Event
from gammabeta.run import Run, load_run
from gammabeta.spec import RunSpec, check_specs
from gammabeta.store import RunFolder
from gammabeta.subset import select
from gammabeta.sweep import grid, sweep


@dataclass(frozen=True)
class Trial:
    """One rate. accuracy: on the held out images, in 0..1; None where training failed."""

    lr: float
    accuracy: float | None
    run: str


@dataclass(frozen=True)
class Tuned:
    """One subset: every rate that was tried, and the run at the best of them."""

    trials: tuple[Trial, ...]
    best: Trial
    run: Run

    @property
    def subset(self) -> str:
        return self.run.spec.trainable

    @property
    def hint(self) -> str:
        """ "lower" or "higher" where the best rate is at that end of those tried, else "". A rate
        beyond one that failed is none to try."""
        rates = sorted(trial.lr for trial in self.trials if trial.accuracy is not None)
        tried = sorted(trial.lr for trial in self.trials)
        if self.best.lr == tried[-1] and len(tried) > 1:
            return "higher"
        return "lower" if self.best.lr == rates[0] and len(rates) > 1 else ""


def plan(
    spec: RunSpec, subsets: Sequence[str], lrs: Sequence[float], validation: float = 0.1
) -> list[list[RunSpec]]:
    """The runs among which the rate of each subset is chosen: a list for each subset."""
    check_specs([spec], "plan")
    if not subsets:
        raise InputError("tune needs subsets: write for example bn+output,output,all", "subsets")
    if not lrs:
        raise InputError("tune needs learning rates: write for example 0.01,0.1", "lrs")
    if 0 in lrs:
        raise InputError("lrs has 0, at which nothing trains: write rates above it", "lrs")
    if not validation:
        message = "validation is 0: write a share to choose the rate by, as 0.1"
        raise InputError(message, "validation")
    rates = sorted(set(lrs))
    found = {
        each.trainable: grid(each, {"lr": rates})
        for each in grid(spec.replace(validation=validation), {"trainable": subsets})
    }
    return list(found.values())


def tune(
    spec: RunSpec,
    subsets: Sequence[str],
    lrs: Sequence[float],
    *,
    validation: float = 0.1,
    runs: str | Path = "runs",
    listen: Callable[[Event], None] = lambda event: None,
    **execution: Any,
) -> list[Tuned]:
    """Train each subset at each rate without a share of the training images, then once more with
    all of them at the rate that was best on this share.

    execution: keywords of `sweep`. What has finished is not trained again. Raises RunError, after
    everything else has been trained, where a subset failed at every rate.
    """
    groups = plan(spec, subsets, lrs, validation)
    failures = _sweep([each for group in groups for each in group], runs, listen, execution)
    trials = [tuple(_trial(each, Path(runs)) for each in group) for group in groups]
    finals, dead = [], []
    for group, tried in zip(groups, trials, strict=True):
        best = choose(tried)
        if best is None:
            dead.append(group[0].trainable)
        else:
            finals.append((tried, best, group[0].replace(lr=best.lr, validation=0.0)))
    failures += _sweep([final for *_, final in finals], runs, listen, execution)
    found = []
    for tried, best, final in finals:
        run = load_run(Path(runs) / final.id)
        if _trial(final, Path(runs)).accuracy is None:
            dead.append(final.trainable)
        else:
            found.append(Tuned(tried, best, run))
    if dead:
        raise RunError(f"{', '.join(dead)}: no rate is left. {' '.join(failures)}")
    return found


def choose(trials: Sequence[Trial]) -> Trial | None:
    """The trial with the best accuracy; of equal ones that with the smallest rate."""
    good = [trial for trial in trials if trial.accuracy is not None]
    return max(good, key=lambda trial: (trial.accuracy, -trial.lr), default=None)


def delta_name(subset: str) -> str:
    """A file name for the delta of a subset; of name:REGEX only what every system accepts."""
    return re.sub(r"[^A-Za-z0-9+._-]+", "_", subset) + ".delta"


def save(tuned: Tuned, path: str | Path) -> Delta:
    """Write the delta of a tuned subset. It belongs to the weights that training started from."""
    spec, network = tuned.run.spec, tuned.run.network()
    subset = select(network, spec.trainable, seed=spec.seed, statistics=spec.statistics)
    info = {"run": tuned.run.id, "test_accuracy": tuned.run.accuracy, "spec": spec.to_dict()}
    return save_delta(network, subset, path, info=info)


def _sweep(
    specs: Sequence[RunSpec], runs: str | Path, listen: Callable[[Event], None],
    execution: dict[str, Any],
) -> list[str]:  # fmt: skip
    """A run that diverges is one rate less; that it failed, `listen` has heard. Returns why. One
    without any result, which another process trains perhaps, is no rate to leave out."""
    try:
        sweep(specs, runs, listen=listen, **execution)
    except RunError as error:
        if any(RunFolder(Path(runs) / spec.id, {}).result is None for spec in specs):
            raise
        return [str(error)]
    return []


def _trial(spec: RunSpec, runs: Path) -> Trial:
    result = RunFolder.open(runs / spec.id).result or {}
    accuracy = result["test_accuracy"] if result.get("status") == "ok" else None
    return Trial(spec.lr, accuracy, spec.id)
