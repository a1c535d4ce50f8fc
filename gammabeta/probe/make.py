"""Probes of a run, written beside it: runs/<id>/probe/<name>.json.

A file says what it was made from: {format, probe, run, made_from: {gammabeta, epoch, images,
data_sha256}, asked: the probe's settings, environment, summary, ...}. While all of this is what it
would be today (the environment and gammabeta's version may differ), and the rest can be read, it is
fresh and not made again.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from gammabeta.build import check_data, load_data
from gammabeta.checkpoint import Checkpoint
from gammabeta.data import Dataset, Reading
from gammabeta.engine import choose_device
from gammabeta.environment import environment
from gammabeta.errors import InputError, about, suggest
from gammabeta.probe import activity, clamp, gammas, maps
from gammabeta.probe.read import FORMAT, images_seen, trouble
from gammabeta.probe.subject import Subject, make_subject
from gammabeta.run import Run
from gammabeta.version import __version__


@dataclass(frozen=True)
class Probe:
    """measure: what it does; asked: its settings; evaluations: how often it looks at all test
    images, at most; needs_images: whether it looks at any."""

    measure: Callable[[Subject], dict[str, Any]]
    asked: Callable[[], dict[str, Any]]
    evaluations: int
    needs_images: bool


PROBES = {
    "gammas": Probe(gammas.measure, gammas.asked, 0, False),
    "clamp": Probe(clamp.measure, clamp.asked, clamp.EVALUATIONS, True),
    "activity": Probe(activity.measure, activity.asked, 1, True),
    "maps": Probe(maps.measure, maps.asked, 0, True),
}


@dataclass(frozen=True)
class Plan:
    """What is to be done for a run. heads: of each probe asked for, what its file begins with;
    missing: those that have to be made."""

    run: Run
    checkpoint: Checkpoint
    images: int
    heads: dict[str, dict[str, Any]]
    missing: tuple[str, ...]

    @property
    def needs_images(self) -> bool:
        return any(PROBES[name].needs_images for name in self.missing)


def analyze(
    run: Run,
    probes: Sequence[str] | None = None,
    *,
    data_dir: str | Path | None = None,
    reading: Reading | None = None,
    images: int | None = None,
    device: str = "auto",
    again: bool = False,
) -> dict[str, dict[str, Any]]:
    """The probes of a run by name (default: all of PROBES), made where they are not there and
    fresh, or `again`, and written beside the run.

    images: the first so many test images (default: all); fewer than a fresh probe has seen replace
    it only `again`. data_dir, reading: see `gammabeta.train`; what is fresh needs no data.

    Raises InputError, with nothing written, for an
    unknown probe, for fewer images than a fresh probe has seen, or data that is not there or is not
    the run's; RunError for a run without a checkpoint.
    """
    todo = plan(run, probes, images=images, again=again)
    data = load(todo, data_dir, {}, reading)
    return carry_out(todo, data, device)


def plan(
    run: Run, probes: Sequence[str] | None = None, *, images: int | None = None, again: bool = False
) -> Plan:
    """Check what is asked, and find out what is missing. Needs no data."""
    names = list(dict.fromkeys(PROBES if probes is None else probes))
    with about("probe"):
        check_probes(names)
    inputs = run.folder.inputs["data"]
    if images is not None and not 1 <= images <= inputs["test"]:
        raise InputError(
            f"images is {images}, but run {run.id} has {inputs['test']:,} test images: "
            f"write 1 to {inputs['test']}",
            "images",
        )
    checkpoint = run.checkpoint()
    heads = {
        name: {
            "format": FORMAT,
            "probe": name,
            "run": run.id,
            "made_from": {
                "gammabeta": __version__,
                "epoch": checkpoint.epoch,
                "images": (images or inputs["test"]) if PROBES[name].needs_images else 0,
                "data_sha256": inputs["sha256"],
            },
            "asked": PROBES[name].asked(),
        }
        for name in names
    }
    missing = tuple(name for name in names if again or not _is_fresh(run, heads[name]))
    for name in missing if images is not None and not again else ():
        found = images_seen(run.folder, name) or 0
        if (
            images is not None
            and found > images
            and _is_fresh(run, _with_images(heads[name], found))
        ):
            raise InputError(
                f"images is {images}, but {name} of run {run.id} was measured on {found:,} test "
                f"images, which would be lost: write {found} or more, or add --again",
                "images",
            )
    return Plan(run, checkpoint, images or inputs["test"], heads, missing)


def check_probes(names: Sequence[str]) -> None:
    """Raise InputError for a probe that does not exist."""
    for name in names:
        if name not in PROBES:
            raise InputError(f"unknown probe '{name}': {suggest(name, PROBES)}")
    if not names:
        raise InputError(f"no probe is named: write for example {','.join(PROBES)}")


def _is_fresh(run: Run, head: dict[str, Any]) -> bool:
    found = run.folder.probe(head["probe"])
    if found is None or trouble(run.folder, head["probe"]) is not None:
        return False
    found = found | {"made_from": found["made_from"] | {"gammabeta": __version__}}
    same = all(found.get(key) == value for key, value in head.items())
    return same and isinstance(found.get("summary"), dict)


def _with_images(head: dict[str, Any], images: int) -> dict[str, Any]:
    return head | {"made_from": head["made_from"] | {"images": images}}


def load(
    todo: Plan,
    data_dir: str | Path | None,
    loaded: dict[str, Dataset] | None = None,
    reading: Reading | None = None,
) -> Dataset | None:
    """The data that a plan needs, checked to be the run's; None where it needs none. loaded: see
    `build.load_data`."""
    if not todo.needs_images:
        return None
    data = load_data(todo.run.spec, data_dir, loaded, reading)
    check_data(todo.run.folder, data)
    return data


def carry_out(
    todo: Plan,
    data: Dataset | None,
    device: str = "auto",
    tell: Callable[[str, float], None] = lambda name, share: None,
) -> dict[str, dict[str, Any]]:
    """Make what is missing of a plan and read the rest: every probe asked for, by name.

    tell: called with the name of a probe and how much of it is done, 0..1: 0 before it is made, and
    more after each batch of test images; from less than all of them it jumps to the end where a
    probe needs fewer evaluations than it may. What was made before an error or Ctrl-C stays.
    """
    run = todo.run
    if todo.missing:
        with about("device"):
            chosen = choose_device(device)
        seen, name = 0, ""

        def looked(images: int) -> None:
            nonlocal seen
            seen += images
            if every := PROBES[name].evaluations * todo.images:
                tell(name, seen / every)

        subject = make_subject(run, todo.checkpoint, data, todo.images, chosen, looked)
        for name in todo.missing:
            seen = 0
            tell(name, 0.0)
            found = _measured(name, subject, todo, chosen)
            run.folder.write_probe(name, todo.heads[name] | found)
    return {name: run.folder.probe(name) or {} for name in todo.heads}


def named(todo: Plan, tell: Callable[[str, float], None]) -> Callable[[str, float], None]:
    """The same with the run before the probe, where several are measured."""
    return lambda probe, share: tell(f"{todo.run.id}: {probe}", share)


def _measured(name: str, subject: Subject, todo: Plan, device: torch.device) -> dict[str, Any]:
    found = PROBES[name].measure(subject)
    if name == "clamp":
        found["recorded"] = _recorded(todo)
    return found | {"environment": environment(device)}


def _recorded(todo: Plan) -> float | None:
    """The test accuracy that the run recorded at the checkpoint's epoch, if all its test images
    were looked at."""
    whole: int = todo.run.folder.inputs["data"]["test"]
    records = [each for each in todo.run.metrics if each["epoch"] == todo.checkpoint.epoch]
    if todo.images < whole or not records:
        return None
    return records[-1].get("test_accuracy")
