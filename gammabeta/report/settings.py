"""How the runs of an experiment were made, what is missing, how to read its figures: in words."""

from collections.abc import Sequence
from typing import Any

from gammabeta.analysis import counted, plain, run_rows
from gammabeta.figures.drawings import chance_of
from gammabeta.figures.measured import (
    clamped,
    not_measured,
    not_read,
    pools_by_network,
    probed,
    quiet,
)
from gammabeta.figures.series import are_subsets, is_deep_against_wide, series
from gammabeta.gammas import small_share
from gammabeta.names import readable
from gammabeta.paper.beside import any_recalled
from gammabeta.paper.points import STAND_INS, Point, View, from_jpeg, left_out, other_data
from gammabeta.paper.published import ALTERNATE_CAVEAT
from gammabeta.paper.unlike import changes
from gammabeta.probe.read import ROUNDING
from gammabeta.report.captions import caption_measured
from gammabeta.report.origins import has_published
from gammabeta.sentences import percent, reason
from gammabeta.spec import RunSpec, differing

_AS_TRAINED = "As trained, on these"  # the heading of a column


def view_id(view: View, *, alone: bool) -> str:
    """What a link to a view says. alone: whether it is the only one of its chapter."""
    name = view.experiment.name
    if alone:
        return name
    size = f"-{view.image_size}" if view.image_size is not None else ""
    return f"{name}-{view.scale.name}-{view.precision}-{view.data.replace(', ', '-')}{size}"


def headline(view: View) -> str:
    """The scale, precision and data of a view, in a few words: what sets two of them apart."""
    epochs = _range(sorted({point.spec.epochs for point in view.points}))
    data = "; ".join([f"{view.data}, but {each}" for each in other_data(view.runs)]) or view.data
    size = f"{view.image_size} pixels, " if view.image_size is not None else ""
    return f"{data}, {size}{epochs} epochs, {view.precision}"


def setting(view: View) -> list[str]:
    """What a reader must know before comparing: shortened, other data, JPEG, half precision."""
    asked = sorted({point.epochs for point in view.experiment.points})
    done = sorted({point.spec.epochs for point in view.points})
    said = []
    if done == asked and view.scale.images is None:
        but = ", but for what follows" if view.image_size is not None else ""
        along = _along(view)
        own = f" but for the {along}" if along else ""
        said.append(f"The published recipe{own}, {_range(done)} epochs{but}.")
    else:
        length = f"{_range(done)} epochs instead of {_range(asked)}"
        if done == [1]:
            length = length.replace("epochs", "epoch", 1)
        few = f"the first {view.scale.images or 0:,}"
        part = f" of {few} images, tested on {few}" if view.scale.images else ""
        end = ", so the published numbers are no target for these" if has_published(view) else ""
        said.append(f"A shortened recipe: {length}{part}{end}.")
    if view.data in STAND_INS:
        own = ", ".join(dict.fromkeys(point.data for point in view.experiment.points))
        said.append(f"Trained on {view.data} instead of {own}: nothing was published for that.")
    if view.image_size is not None:
        sizes = {point.image_size for point in view.experiment.points if point.image_size}
        said.append(
            f"The recipe was changed: images of {view.image_size} pixels instead of "
            f"{_range(sorted(sizes))}, so no published number stands beside these."
        )
    if other := other_data(view.runs):
        said.append(_not_imagenet(other))
    if view.precision != "fp32":
        said.append(f"Computed in {view.precision}, not in fp32.")
    sources = {str(run.inputs["data"].get("source", "")) for run in view.runs}
    if from_jpeg(view.runs) and view.data.startswith("cifar"):
        copies = "JPEG copies of the images" if len(sources) == 1 else "JPEG copies in some runs"
        said.append(f"The data was {copies}, whose pixels are not quite the original ones.")
    return said + _tested_twice(view) + left_out(view.points)


def _tested_twice(view: View) -> list[str]:
    """A sentence where the accuracy of the same runs on the same images stands in a table twice and
    reads differently."""
    if "clamp" not in view.experiment.probes:
        return []
    found = [(point, each) for point in view.done if (each := clamped(point))]
    told = [
        f"{readable(point.spec.model)} under {point.spec.trainable}: {percent(each.recorded)} and "
        f"{percent(each.before)}"
        for point, each in found
        if each.recorded is not None
        and each.n == len(point.runs)
        and percent(each.recorded) != percent(each.before)
        and abs(each.recorded - each.before) <= ROUNDING
    ]
    if not told:
        return []
    return [
        f"\u201cOurs\u201d and \u201c{_AS_TRAINED}\u201d are of the same images: tested by the "
        "run itself, and once more by plain torch when it was analysed; rounding differs between "
        f"engines and machines ({'; '.join(told)})."
    ]


def recipe_in_short(view: View) -> str:
    """What of the published recipe was changed, in a few words, for a sentence on its own."""
    told = changes(view)
    if view.scale.epochs is not None:
        return told
    return f"The published recipe, but {told}" if told else "The published recipe"


def told_before_comparing(view: View) -> list[str]:
    """`setting`, and of which published numbers the recipe is only recalled: what belongs beside a
    table of ours and published that stands alone."""
    return setting(view) + ([ALTERNATE_CAVEAT] if any_recalled(view.points) else [])


def _along(view: View) -> str:
    """The part of the recipe that the experiment itself changes from point to point; "" of none."""
    axis = view.experiment.axis
    return (
        axis_name(view).lower() if axis in RunSpec.__dataclass_fields__.keys() - {"model"} else ""
    )


def _range(numbers: Sequence[int]) -> str:
    return str(numbers[0]) + (f" to {numbers[-1]}" if len(numbers) > 1 else "")


def _not_imagenet(other: Sequence[str]) -> str:
    return f"Not ImageNet: {'; '.join(other)}, so no published number stands beside these."


def place(view: View, point: Point) -> str:
    """Where on the axis a point is, in words."""
    axis = view.experiment.axis
    if axis == "parameters" and not is_deep_against_wide(view):
        return point.spec.trainable
    if axis in RunSpec.__dataclass_fields__ and axis != "model":
        return plain(getattr(point.spec, axis))
    return readable(point.spec.model)


def axis_name(view: View) -> str:
    """What `place` names: the heading of its column."""
    axis = view.experiment.axis
    if axis == "parameters":
        return "Network" if is_deep_against_wide(view) else "Subset"
    if axis in RunSpec.__dataclass_fields__ and axis != "model":
        return {"lr": "Learning rate"}.get(axis, axis.replace("_", " ").capitalize())
    return "Network"


def line_name(view: View) -> str:
    """What the lines of the figure are: the heading of their column."""
    if is_deep_against_wide(view):
        return "Networks grow"
    return "Subset" if are_subsets(view) else "Network"


def missing(view: View) -> list[str]:
    """What the figure lacks, a line each: points without a run, points with too few seeds, and the
    runs that did not finish, with their reasons."""
    wanted = view.experiment.seeds(view.scale)
    none: dict[str, list[str]] = {}
    few: dict[str, list[str]] = {}
    for name, points in series(view).items():
        for point in points:
            n = len(point.runs)
            if n == 0:
                none.setdefault(name, []).append(place(view, point))
            elif n < wanted:
                few.setdefault(name, []).append(f"{place(view, point)} ({n})")
    said = [f"No run yet of {name}: {', '.join(places)}." for name, places in none.items()]
    said += [f"Fewer than {wanted} seeds of {name}: {', '.join(p)}." for name, p in few.items()]
    others = list(dict.fromkeys(run for point in view.points for run in point.others))
    for row in run_rows(others):
        said.append(f"{row.id} ({row.model}, {row.trainable}, seed {row.seed}): {reason(row)}.")
    return said + not_read(view) + not_measured(view)


def common_recipe(view: View) -> list[tuple[str, str]]:
    """(field, value) of every field of the recipe; "varies" for those that differ."""
    specs = [point.spec for point in view.points]
    various = {*differing(specs), "seed"}
    return [
        (key.replace("_", " "), "varies" if key in various else plain(value))
        for key, value in specs[0].to_dict().items()
        if key != "format"
    ]


def caption(view: View, key: str) -> str:
    """What a figure of a view shows and how to read it."""
    if view.experiment.axis == "threshold":
        return caption_measured(view, key)
    text = view.experiment.caption
    if view.data in STAND_INS:
        text = text.replace("CIFAR-100", view.data).replace("CIFAR-10", view.data)
    n = max((len(point.runs) for point in view.done), default=0)
    if n > 1:
        text += " Lines and points are means over n seeds, bands and whiskers reach from the lowest"
        text += " to the highest seed."
    else:
        text += " One seed for each point, so no spread is known."
    over_epochs = view.experiment.axis == "epochs"  # those of a shorter recipe are others
    whole = view.scale.epochs is None
    if key == "top5":
        whole = any(point.published_top5 is not None for point in view.points)
    elif not over_epochs:
        whole = any(point.published is not None for point in view.points)
    if whole:
        text += " Thin and grey: published"
        short = view.scale.epochs is not None
        text += ", of the whole recipe, so no target for these." if short else "."
        if key != "top5" and any_recalled(view.points):
            text += f" {ALTERNATE_CAVEAT}"
    if other := other_data(view.runs):
        text += f" {_not_imagenet(other)}"
    chance = chance_of(view)
    if not chance or key == "top5":
        return text
    text += f" Dotted: guessing, {percent(chance)}."
    nothing = [point.accuracy for point in view.done if point.spec.trainable == "none"]
    if any(each and each.low < chance for each in nothing):
        text += " Where nothing trains it may be further below that than independent guesses would"
        text += " be: the answers are those of one random network."
    return text


def measured_columns(view: View) -> list[tuple[str, dict[str, str]]]:
    """Further columns of the table, for what was measured: (heading, {id of the spec: text})."""
    return [
        (
            heading,
            {
                id: f"{each:,}" if isinstance(each, int) else percent(each)
                for id, each in of.items()
            },
        )
        for heading, of in measured_values(view).items()
    ]


def measured_values(view: View) -> dict[str, dict[str, int | float]]:
    """The same as numbers: heading -> id of the spec -> a count, or a share in 0..1."""
    columns: dict[str, dict[str, int | float]] = {}

    def put(point: Point, heading: str, value: float) -> None:
        columns.setdefault(heading, {})[point.spec.id] = value

    small = pools_by_network(view) if view.experiment.name == "gammas" else {}
    for point in view.done:
        for pool in small.get(point.spec.model, []):
            if pool.trainable == point.spec.trainable:
                put(point, "Small gammas", small_share(pool.values))
        if view.experiment.name == "clamp" and (cut := clamped(point)) and cut.images:
            # "Ours" is of all test images, these are of some: before and after stand side by side
            put(point, "Test images", cut.images)
            put(point, "Small gammas", cut.share)
            put(point, _AS_TRAINED, cut.before)
            put(point, "Without small gammas", cut.after)
            put(point, "Without as many random ones", cut.random)
        if view.experiment.name == "activity" and (off := quiet(point)):
            put(point, "Mostly off", off.mostly_off)
            put(point, "Off on all inputs", off.dead)
    for probe in view.experiment.probes:  # only where a reader must know them to compare rows
        seen = {point.spec.id: probed(point, probe) for point in view.done}
        known = {id: each.images for id, each in seen.items() if each.images}
        if probe != "clamp" and len(set(known.values())) > 1:
            columns["Test images"] = dict(known)
    return columns


def table_rows(view: View) -> list[dict[str, Any]]:
    """A row a point that has a value: line, place, and the point itself."""
    seen = set()
    rows = []
    for name, points in series(view).items():
        for point in points:
            if point.accuracy is not None and point.spec.id not in seen:
                seen.add(point.spec.id)
                rows.append({"line": name, "place": place(view, point), "point": point})
    return rows


def count_of_missing(view: View) -> str:
    """How many of the points are there, for a list of questions that are open."""
    return f"{len(view.done)} of {counted(len(view.points), 'point')}"
