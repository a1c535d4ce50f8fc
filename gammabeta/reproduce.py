"""Experiments of the paper, one call each: what is to be run and how long it will take, the runs,
and the points they make. What is in the store already is never run again."""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from gammabeta.analysis import damage_of
from gammabeta.cost import Costs, Estimate
from gammabeta.data import Dataset, Reading
from gammabeta.data.imagenet import count_images
from gammabeta.disk import no_folder
from gammabeta.engine import choose_device, fast_precision
from gammabeta.errors import GammabetaError, InputError, RunError, about, suggest
from gammabeta.figures import write_figures
from gammabeta.paper import Experiment, Scale, choose_scale, experiments
from gammabeta.paper.points import STAND_INS, View, collect, recipe, views
from gammabeta.probe import make as probe
from gammabeta.probe.make import PROBES
from gammabeta.run import Event, Run, load_run, waiting
from gammabeta.spec import RunSpec
from gammabeta.store import list_runs
from gammabeta.sweep import IN_STEP, check_networks, sweep


@dataclass(frozen=True)
class Plan:
    """What one experiment needs at a scale. runs: all of them; left: those that have not finished;
    unmeasured: (id of a finished run, probe) of what is still to be measured; estimate: of these
    and those, on this machine; None where it was not asked for."""

    experiment: Experiment
    scale: Scale
    precision: str
    data: str | None
    runs: tuple[RunSpec, ...]
    left: tuple[RunSpec, ...]
    estimate: Estimate | None
    unmeasured: tuple[tuple[str, str], ...] = ()
    image_size: int | None = None

    @property
    def seeds(self) -> int:
        """How many a point has."""
        return len({spec.seed for spec in self.runs})


def choose_experiments(names: Sequence[str]) -> list[Experiment]:
    """Experiments by name, each once; all of them for no name at all. Raises InputError."""
    known = experiments()
    for name in names:
        if name not in known:
            raise InputError(f"unknown experiment '{name}': {suggest(name, known)}", "name")
    return [known[name] for name in dict.fromkeys(names)] if names else list(known.values())


def plan(
    chosen: Sequence[Experiment], runs: str | Path = "runs", *, scale: str = "paper",
    precision: str | None = None, data: str | None = None, replicates: int | None = None,
    image_size: int | None = None, networks: Sequence[str] = (), subsets: Sequence[str] = (),
    engine: str = "auto", device: str = "auto", data_dir: str | Path | None = None,
    estimate: bool = True, say: Callable[[str], None] = lambda line: None, keep: bool = False,
) -> list[Plan]:  # fmt: skip
    """What the experiments need.

    precision: by default fp32 at the paper's scale, as published, and `fast_precision` at others.
    data: one of `STAND_INS` instead of the published data set, to try. image_size: of ImageNet's
    images in pixels, instead of the published 224: a changed recipe, beside which nothing published
    stands.
    networks, subsets: of the experiments' points, only these. data_dir: of imagenet, so that the
    estimate counts the images that are there. estimate: whether to make one. say: called with a
    line before each step that is timed for it, which takes seconds. keep: such times are kept in
    the cache folder, and those of earlier calls taken. Raises InputError for what is wrong.
    """
    size = choose_scale(scale)
    with about("device"):
        place = choose_device(device)
    if replicates is not None and replicates < 1:
        raise InputError(f"replicates is {replicates}: write 1 or more", "replicates")
    if data is not None and data not in STAND_INS:
        raise InputError(
            f"data is {data}: the published data set is used where none is given, and to try, "
            f"write {' or '.join(STAND_INS)}",
            "data",
        )
    if image_size is not None:
        _check_image_size(chosen, data)
    if precision is None:
        precision = "fp32" if size.epochs is None else fast_precision(place)
    folders = list_runs(Path(runs))
    costs = Costs(folders, engine, device=place, say=say, keep=keep,
                  images=_images_in(chosen, data, data_dir)) if estimate else None  # fmt: skip
    plans = []
    for experiment in chosen:
        some = experiment.only(networks, subsets)
        wanted = [recipe(spec, precision, data, image_size) for spec in some.at(size, replicates)]
        left, other = waiting(wanted, runs), _other_size(some, image_size)
        there = collect(some, folders, size, precision, data, other) if some.probes else None
        unmeasured = _unmeasured(there) if there is not None else []
        known = None
        if costs is not None:
            to_come = [(spec, name) for spec in left for name in some.probes]
            known = costs.estimate(left, [
                (spec, PROBES[name].evaluations)
                for spec, name in [*to_come, *((run.spec, name) for run, name in unmeasured)]
            ])  # fmt: skip
        names = tuple((run.id, name) for run, name in unmeasured)
        plans.append(
            Plan(some, size, precision, data, tuple(wanted), tuple(left), known, names, other)
        )
    return plans


def _unmeasured(view: View) -> list[tuple[Run, str]]:
    """What `write` will measure of finished runs."""
    found = []
    for folder in view.runs:
        with contextlib.suppress(GammabetaError):  # cannot be measured: `write` says why
            run = load_run(folder.path)
            todo = probe.plan(run, view.experiment.probes)
            found += [(run, name) for name in todo.missing]
    return found


def _images_in(
    chosen: Sequence[Experiment], data: str | None, data_dir: str | Path | None
) -> dict[str, tuple[int, int]]:
    """How many training and test images of imagenet are in a folder that is given."""
    wanted = any(point.data == "imagenet" for each in chosen for point in each.points)
    if data_dir is None or data is not None or not wanted:
        return {}
    with contextlib.suppress(InputError):  # another data set's folder; else said when it is read
        return {"imagenet": count_images(data_dir)}
    return {}


def _check_image_size(chosen: Sequence[Experiment], data: str | None) -> None:
    if data is not None:
        raise InputError(f"image_size belongs to imagenet: leave it out with {data}", "image_size")
    if not any(point.data == "imagenet" for each in chosen for point in each.points):
        names = [each.name for each in experiments().values()
                 if any(point.data == "imagenet" for point in each.points)]  # fmt: skip
        raise InputError(
            f"image_size belongs to experiments on imagenet: leave it out, or name "
            f"{' or '.join(names)}",
            "image_size",
        )


def _other_size(experiment: Experiment, image_size: int | None) -> int | None:
    """The size, if this experiment's published one is another."""
    own = {point.image_size for point in experiment.points if point.data == "imagenet"}
    return image_size if own - {image_size} else None


def reproduce(
    plans: Sequence[Plan], runs: str | Path = "runs", *, data_dir: str | Path | None = None,
    reading: Reading | None = None, engine: str = "auto", device: str = "auto", jobs: int = 1,
    listen: Callable[[Event], None] = lambda event: None,
) -> None:  # fmt: skip
    """Train what the plans have left, an experiment's first seed of every point before the second.

    Raises InputError before anything is created, and at the end one RunError that says which runs
    failed; the next call tries them again.
    """
    left = list({spec.id: spec for each in plans for spec in each.left}.values())
    if not left:
        return
    check_networks(left)
    # On a CPU a team is no faster than its members, and whole runs one by one tell more, sooner.
    in_step = 1 if choose_device(device).type == "cpu" else IN_STEP
    sweep(left, runs, data_dir=data_dir, reading=reading, engine=engine, device=device, jobs=jobs,
          in_step=in_step, listen=listen)  # fmt: skip


def view(plan: Plan, runs: str | Path = "runs") -> View:
    """The points of a planned experiment, as the store has them now."""
    return _view(plan, plan.experiment, runs)


def whole_view(plan: Plan, runs: str | Path = "runs") -> View:
    """The same with the points of all networks and subsets: what a figure shows, so that a call for
    a few of them never replaces a fuller figure by a narrower one."""
    return _view(plan, experiments()[plan.experiment.name], runs)


def _view(plan: Plan, experiment: Experiment, runs: str | Path) -> View:
    return collect(experiment, list_runs(Path(runs)), plan.scale, plan.precision, plan.data,
                   plan.image_size)  # fmt: skip


@dataclass(frozen=True)
class Written:
    """files: by experiment. failed: what could not be measured, in a line each."""

    files: dict[str, list[Path]]
    failed: list[GammabetaError]


def write(
    plans: Sequence[Plan], runs: str | Path, out: Path, *, data_dir: str | Path | None = None,
    reading: Reading | None = None, device: str = "auto",
    say: Callable[[str], None] = lambda line: None,
    tell: Callable[[str, float], None] = lambda what, share: None,
) -> Written:  # fmt: skip
    """Measure the finished runs of the plans as their experiment wants it (`gammabeta.probe`; what
    is there is not measured again), and write each experiment's table and figure, of all its points
    that the store has, into the folder `out`. A run that cannot be measured, or read, keeps no
    other, and no table, from being written: `say` is called with the reason. tell: called with what
    is measured of which run and how much of it is done, 0..1."""
    loaded: dict[str, Dataset] = {}
    asked = [view(each, runs) for each in plans]
    failed = _unreadable(asked)
    for error in failed:
        say(str(error))
    for each in asked:
        for folder in each.runs if each.experiment.probes else []:
            try:
                todo = probe.plan(load_run(folder.path), each.experiment.probes)
                found = probe.load(todo, data_dir, loaded, reading)
                probe.carry_out(todo, found, device, probe.named(todo, tell))
            except GammabetaError as error:
                say(f"{folder.id}: {error}")
                failed.append(error)
    files = {plan.experiment.name: write_figures(whole_view(plan, runs), out) for plan in plans}
    return Written(files, failed)


def _unreadable(views: Sequence[View]) -> list[GammabetaError]:
    """Finished runs of which a file is damaged: they are in no point."""
    others = {run.path: run for view in views for point in view.points for run in point.others}
    return [
        RunError(f"run {run.id}, which has finished: {damage}")
        for run in others.values()
        if run.status == "ok" and (damage := damage_of(run)) is not None
    ]


def write_all(runs: str | Path, out: Path) -> list[Path]:
    """Write the tables and figures of every experiment of which the store has finished runs, at
    each scale, precision and data it has them, and the table of networks, into the folder `out`.
    Reads only the store: no data, no network, nothing is measured. Returns what was written."""
    found = [run for run in list_runs(Path(runs)) if damage_of(run) is None]
    written: list[Path] = []
    for experiment in experiments().values():
        some = [view for view in views(experiment, found) if view.done]
        if not experiment.points:  # the table of networks needs no run
            some = [collect(experiment, [], choose_scale("paper"), "fp32")]
        written += [file for view in some for file in write_figures(view, out)]
    return written


def check_out(folder: Path, what: str = "out") -> None:
    """Raise InputError for a folder in which no figures can be written."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file: name a folder for the figures", what)
    if not (folder if folder.exists() else folder.parent).is_dir():
        raise InputError(f"{no_folder(folder.parent)}, or name another", what)
