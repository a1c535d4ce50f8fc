"""The points of an experiment, filled in from a store: ours, published, and how many replicates.

A run belongs to a point if its spec is the point's at that scale but for the seed, so runs of more
seeds than an experiment asks for count too. Those of one point saw the same data: where a store has
runs on several (another folder of pictures, JPEG copies), the others are left out and named.
"""

import functools
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from gammabeta.analysis import Spread, counted, damage_of, finite, spread
from gammabeta.paper.experiment import Experiment
from gammabeta.paper.published import (
    IMAGENET_CLASSES,
    IMAGENET_IMAGES,
    PUBLISHED_IMAGENET_TOP5,
    is_recalled,
    published_accuracy,
)
from gammabeta.paper.report import report_accuracy
from gammabeta.paper.scales import SCALES, Scale
from gammabeta.spec import CHOICES, RunSpec
from gammabeta.store import RunFolder

_TOLD_APART = ("epochs", "subsample", "precision", "data")
STAND_INS = ("digits", "synthetic")  # data sets on which no experiment was published


@dataclass(frozen=True)
class Point:
    """One point of a figure. spec: as it was run, with seed 0. published, published_top5: of the
    point's published recipe, in 0..1, however short our own runs are; None where a run of ours is
    of other data. runs: those that have finished, by seed, all on the same data; left: those that
    have finished on other data; others: those that have begun and not finished, or that cannot be
    read. trained: how many values train."""

    spec: RunSpec
    published: float | None
    published_top5: float | None
    runs: tuple[RunFolder, ...]
    others: tuple[RunFolder, ...]
    trained: int | None
    accuracy: Spread | None
    top5: Spread | None
    left: tuple[RunFolder, ...] = ()

    @property
    def unfinished(self) -> int:
        """How many have begun and not finished."""
        return len(self.others)

    @property
    def difference(self) -> float | None:
        """Ours less published, in 0..1; None where either is missing. None too where the published
        number is only recalled to be of this recipe: a difference reads as a check."""
        if self.accuracy is None or self.published is None or is_recalled(self.spec):
            return None
        return self.accuracy.mean - self.published


@dataclass(frozen=True)
class View:
    """One experiment at one scale, in one precision, on one data set. image_size: of ImageNet's
    images, in pixels, where that is not the published one."""

    experiment: Experiment
    scale: Scale
    precision: str
    data: str
    points: tuple[Point, ...]
    image_size: int | None = None

    @property
    def done(self) -> list[Point]:
        """The points that have a value."""
        return [point for point in self.points if point.accuracy is not None]

    @property
    def runs(self) -> list[RunFolder]:
        """The finished runs of all points."""
        return [run for point in self.points for run in point.runs]


def views(experiment: Experiment, runs: Iterable[RunFolder]) -> list[View]:
    """Every way in which a store holds runs of an experiment: the published scale first, then those
    with more points. Empty when it holds none."""
    runs = list(runs)
    index = _index(runs)
    there = {tuple(run.spec.get(key) for key in _TOLD_APART) for run in runs}
    sizes = _other_sizes(experiment, runs)
    found = []
    # other images answer questions on networks, not one on other data: a hundred classes, ImageNet
    stand_ins = STAND_INS if {point.data for point in experiment.points} == {"cifar10"} else ()
    for scale in SCALES.values():
        for precision in CHOICES["precision"]:
            for data, size in ((None, None), *((each, None) for each in stand_ins),
                               *((None, each) for each in sizes)):  # fmt: skip
                if not any(
                    (*_lengths(point, scale), precision, data or point.data) in there
                    for point in experiment.points
                ):
                    continue  # making the recipes only to find no run of them takes seconds
                view = _view(experiment, scale, precision, data, index, size)
                if view.runs or any(point.unfinished for point in view.points):
                    found.append(view)
    order = list(SCALES.values())
    return sorted(found, key=lambda view: (order.index(view.scale), -len(view.done)))


def collect(
    experiment: Experiment, runs: Iterable[RunFolder], scale: Scale, precision: str,
    data: str | None = None, image_size: int | None = None,
) -> View:  # fmt: skip
    """The experiment as a store has it. data: another data set than the experiment's own;
    image_size: another size than the published one."""
    return _view(experiment, scale, precision, data, _index(runs), image_size)


@functools.cache  # experiments share points, and a checked spec takes its time
def recipe(
    spec: RunSpec, precision: str, data: str | None = None, image_size: int | None = None
) -> RunSpec:
    """What is run for a spec of `Experiment.at`. image_size: of runs on imagenet."""
    spec = spec.replace(precision=precision)
    if image_size is not None and spec.data == "imagenet":
        spec = spec.replace(image_size=image_size)
    return spec if data is None else spec.replace(data=data)


def _view(
    experiment: Experiment, scale: Scale, precision: str, data: str | None,
    index: dict[str, list[RunFolder]], size: int | None,
) -> View:  # fmt: skip
    asked: dict[RunSpec, list[RunSpec]] = {}
    for point in experiment.points:
        asked.setdefault(recipe(scale.apply(point), precision, data, size), []).append(point)
    as_published = data is None and size is None
    points = tuple(
        # points that a scale makes one run stand for no published number
        _point(
            spec, *(_published(own[0]) if as_published and len(own) == 1 else (None, None)), index
        )
        for spec, own in asked.items()
    )
    own = ", ".join(dict.fromkeys(point.data for point in experiment.points))
    return View(experiment, scale, precision, data or own, points, size)


def _other_sizes(experiment: Experiment, runs: Sequence[RunFolder]) -> list[int]:
    """At which sizes other than the published one there are runs on imagenet."""
    own = {point.image_size for point in experiment.points if point.data == "imagenet"}
    found = {run.spec.get("image_size") for run in runs if run.spec.get("data") == "imagenet"}
    return sorted(each for each in found - own if isinstance(each, int)) if own else []


def _published(point: RunSpec) -> tuple[float | None, float | None]:
    """Accuracy and top-5 accuracy, in 0..1."""
    found = published_accuracy(point)
    top5 = PUBLISHED_IMAGENET_TOP5.get((point.model, point.trainable))
    return (
        report_accuracy(point) if found is None else found,
        top5 if point.data == "imagenet" else None,
    )


def other_data(runs: Iterable[RunFolder]) -> list[str]:
    """What the data was of those runs on `imagenet` that were not given ImageNet itself but another
    set of pictures, in words, each once: "10 classes, 3,000 training images"."""
    return [
        f"{classes:,} classes, {images:,} training images" for classes, images in other_sets(runs)
    ]


def other_sets(runs: Iterable[RunFolder]) -> list[tuple[int, int]]:
    """The same in numbers: (classes, training images)."""
    found = []
    for run in runs:
        data = run.inputs["data"]
        classes, images = data.get("num_classes"), data.get("train")
        if run.spec.get("data") != "imagenet" or classes is None or images is None:
            continue
        subsample = run.spec.get("subsample")
        whole = IMAGENET_IMAGES if subsample is None else subsample
        if classes != IMAGENET_CLASSES or abs(images - whole) > whole / 100:  # some cannot be read
            found.append((classes, images))
    return list(dict.fromkeys(found))


def from_jpeg(runs: Iterable[RunFolder]) -> bool:
    """Whether the images of any of these runs came as JPEG."""
    return any("JPEG" in str(run.inputs["data"].get("source", "")) for run in runs)


def _point(
    spec: RunSpec, published: float | None, top5: float | None, index: dict[str, list[RunFolder]]
) -> Point:
    runs = index.get(_seedless(spec.to_dict()), [])
    done, left = _same_data([run for run in runs if run.status == "ok" and damage_of(run) is None])
    if other_data(done):
        published = top5 = None
    results = [run.result or {} for run in done]
    trained = next((run.inputs["subset"]["trained"] for run in done), None)
    return Point(
        spec=spec,
        published=published,
        published_top5=top5,
        runs=tuple(done),
        others=tuple(run for run in runs if run not in done and run not in left),
        trained=trained,
        accuracy=spread(finite(result.get("test_accuracy")) for result in results),
        top5=spread(finite(result.get("test_top5")) for result in results),
        left=tuple(left),
    )


def _same_data(done: Sequence[RunFolder]) -> tuple[list[RunFolder], list[RunFolder]]:
    """(kept, left out): those on the data set, by its sha256, of most runs; of two with as many,
    the one that is as published, else the one of the first run."""
    of = {run: run.inputs["data"].get("sha256") for run in done}
    count = Counter(of.values())
    if len(count) < 2:
        return list(done), []

    def rank(sha: object) -> tuple[int, bool]:
        own = [run for run in done if of[run] == sha]
        return len(own), not other_data(own) and not from_jpeg(own)

    best = max(count, key=rank)  # a Counter keeps the order of the runs, and max takes the first
    return [run for run in done if of[run] == best], [run for run in done if of[run] != best]


def left_out(points: Iterable[Point]) -> list[str]:
    """The finished runs that are in no mean because they saw other data than most of their point,
    a line for each point that has any."""
    told = []
    for point in points:
        if point.left:
            names = ", ".join(run.id for run in point.left)
            told.append(
                f"Left out of {point.spec.model} under {point.spec.trainable}: "
                f"{counted(len(point.left), 'run')} on other data than the rest ({names})."
            )
    return told


def single_points(
    specs: Iterable[tuple[RunSpec, float | None]], runs: Iterable[RunFolder]
) -> list[Point]:
    """Points of no experiment: of specs as they were run, each with what was published of it."""
    index = _index(runs)
    return [_point(spec, published, None, index) for spec, published in specs]


def _lengths(point: RunSpec, scale: Scale) -> tuple[int, int | None]:
    """(epochs, subsample) of a point at a scale, as `Scale.apply` sets them."""
    if scale.epochs is None:
        return point.epochs, point.subsample
    return scale.epochs, point.subsample if scale.images is None else scale.images


def _index(runs: Iterable[RunFolder]) -> dict[str, list[RunFolder]]:
    """Runs by their spec without its seed, in the order of their seeds."""
    found: dict[str, list[RunFolder]] = {}
    for run in sorted(runs, key=lambda run: _seed(run.spec)):
        found.setdefault(_seedless(run.spec), []).append(run)
    return found


def _seedless(spec: dict[str, object]) -> str:
    return json.dumps({key: each for key, each in spec.items() if key != "seed"}, sort_keys=True)


def _seed(spec: dict[str, object]) -> int:
    seed = spec.get("seed")
    return seed if isinstance(seed, int) else 0


def table(points: Sequence[Point]) -> list[dict[str, object]]:
    """A row a point, plain values; accuracies in 0..1, the difference too."""
    return [
        {
            "model": point.spec.model,
            "trainable": point.spec.trainable,
            **{key: value for key, value in point.spec.chosen().items() if key in SHOWN},
            "trained": point.trained,
            "n": len(point.runs),
            "left_out": [run.id for run in point.left],
            "mean": point.accuracy.mean if point.accuracy else None,
            "low": point.accuracy.low if point.accuracy else None,
            "high": point.accuracy.high if point.accuracy else None,
            "published": point.published,
            "difference": point.difference,
            "top5": point.top5.mean if point.top5 else None,
            "published_top5": point.published_top5,
        }
        for point in points
    ]


SHOWN = (
    "lr", "norm_init", "weight_init", "optimizer", "schedule", "schedule_steps", "batch_size",
    "subsample", "test_subsample", "statistics", "image_size",
)  # fmt: skip
