"""What the figures of what was measured on finished runs show, and how to read them."""

from collections.abc import Sequence

from gammabeta.analysis import counted
from gammabeta.figures.measured import (
    Probed,
    by_network,
    clamp_curves,
    off_by_layer,
    pools_by_network,
    probed,
    small_by_layer,
)
from gammabeta.names import readable
from gammabeta.paper.points import Point, View
from gammabeta.probe.read import ClampCurve
from gammabeta.sentences import caption_gammas, caption_small

_SPREAD = "Lines are means over n runs, bands reach from the lowest to the highest."
_ALONE = "One run of each subset, so no spread is known."
_BY_LAYER = (
    "layer by layer, those of all seeds together: the line is the median, the dark band holds the "
    "middle half, the light one 5 to 95 %. Layers stand in the order of the network, those on "
    "shortcuts too."
)
_TEXTS = {
    ("gammas", "layers"): "The share of gammas below 0.01 in size, layer by layer.",
    ("gammas", "bands"): f"The values of gamma after training {_BY_LAYER}",
    ("gammas", "beta-bands"): f"The values of beta after training {_BY_LAYER}",
    ("gammas", "depth"): "The share of all gammas of a network that are below 0.01 in size. Points "
    "are means over n runs, whiskers reach from the lowest to the highest.",
    ("activity", ""): "The share of each layer\u2019s ReLU features that are off, that is zero, on "
    "more than 99 % of their inputs (test images, at every position), layer by layer.",
    ("activity", "histogram"): "On which share of its inputs (test images, at every position) each "
    "ReLU feature is off, features of all runs together, in bins of 5 %: at the right those that "
    "are nearly always off, at the left those that are never.",
    ("activity", "depth"): "The share of all ReLU features of a network that are off on more than "
    "99 % of their inputs. Points are means over n runs, whiskers reach from the lowest to the "
    "highest.",
}


def caption_measured(view: View, key: str) -> str:
    """The caption of a figure of `gammas`, `clamp` or `activity`. key: of its drawing."""
    models = by_network(view.done)
    model = next((each for each in models if key == each or key.startswith(f"{each}-")), None)
    kind = key.removeprefix(model or "").removeprefix("-")
    name = view.experiment.name
    if name == "gammas" and kind in ("", "small", "beta"):
        return _caption_pools(view, model, kind)
    points = models[model] if model else next(iter(models.values()))
    said = [_TEXTS.get((name, kind), view.experiment.caption)]
    if name == "clamp":
        said.append(_draws([found for point in points if (found := clamp_curves(point))]))
    elif kind in ("", "layers"):
        alone = all(_runs(name, point) < 2 for point in points)
        said.append(_ALONE if alone else _SPREAD)
    return " ".join([*said, *told_images(view)])


def _runs(name: str, point: Point) -> int:
    values = small_by_layer(point) if name == "gammas" else off_by_layer(point)
    return 0 if values is None else len(values)


def _draws(curves: Sequence[Sequence[ClampCurve]]) -> str:
    """What the lines of a clamp figure are means over, and its bands the ends of."""
    counts = sorted({len(run.random) for runs in curves for run in runs})
    draws = " to ".join(map(str, counts[:1] + counts[1:][-1:]))
    text = f"Which gammas are chosen at random was drawn {draws} times in each run"
    if all(len(runs) < 2 for runs in curves):
        return (
            f"{text}: their line is the mean over the draws, their band reaches from the lowest to "
            f"the highest draw. {_ALONE.replace('no spread', 'no spread between runs')}"
        )
    return (
        f"{text}. Lines are means over n runs, and over the draws in each; bands reach from the "
        "lowest to the highest run, those of random ones to the highest of all draws."
    )


def _caption_pools(view: View, model: str | None, kind: str) -> str:
    """Of the network `model`, or of the first one that is known."""
    found = pools_by_network(view, "beta" if kind == "beta" else "gamma")
    pools = found[model] if model else next(iter(found.values()))
    if kind == "small":
        return caption_small(pools, view.points[0].spec.norm_init == "uniform")
    if kind == "":
        return caption_gammas(pools)
    counts = " and ".join(f"{pool.values.size:,} under {pool.trainable}" for pool in pools)
    return f"The values of beta after training, all layers and seeds together: {counts}."


def told_images(view: View) -> list[str]:
    """Sentences: on how many test images the probes of a view were made, and which runs are left
    out because theirs saw another number. None where a probe needs no images."""
    known = [
        (point, each)
        for probe in view.experiment.probes
        for point in view.done
        if (each := probed(point, probe)).images
    ]
    counts = sorted({each.images for _, each in known})
    if not counts:
        return []
    if len(counts) == 1:
        said = [f"Measured on {counts[0]:,} test images."]
    else:
        told = [f"{images:,} ({_who(images, known)})" for images in counts]
        said = [f"Measured on different numbers of test images: {', '.join(told)}."]
    for point, each in known:
        said += [
            f"Left out: {counted(runs, 'run')} of {_name(point)} measured on {images:,}."
            for images, runs in sorted(each.left.items())
        ]
    return said


def _who(images: int, known: Sequence[tuple[Point, Probed]]) -> str:
    return ", ".join(_name(point) for point, each in known if each.images == images)


def _name(point: Point) -> str:
    return f"{readable(point.spec.model)} under {point.spec.trainable}"
