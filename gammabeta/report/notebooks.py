"""The chapter on the non-author report: its runs, published and ours, as they were and as meant."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from gammabeta.analysis import RunRow, counted
from gammabeta.figures import drawings
from gammabeta.figures.maps import FILTERS, IMAGES, MAPS, maps_of
from gammabeta.figures.measured import not_measured, not_read
from gammabeta.paper.points import STAND_INS, Point, View, recipe, single_points
from gammabeta.paper.report import DEFECTS, ReportRun, report_runs
from gammabeta.report.chapter import ShownView
from gammabeta.report.pictures import picture
from gammabeta.report.settings import headline, recipe_in_short, setting, view_id
from gammabeta.report.sources import sources
from gammabeta.schedule import RAMP_EPOCHS
from gammabeta.sentences import percent, points
from gammabeta.spec import RunSpec

_NOTEBOOKS = "github.com/sayakpaul/Training-BatchNorm-and-Only-BatchNorm"
_MAPS = (
    f"What convolutions make of {IMAGES} test images, before BatchNorm and ReLU: the first {MAPS} "
    f"maps of each, each on a scale of its own. Below, their first {FILTERS} filters: those of the "
    "first convolution in colour, of the others a row each, a square for each of its first "
    f"{FILTERS} inputs, all of a row on one scale. Convolutions are counted from 1 in order of "
    "execution; the 4th is the report\u2019s layer 10."
)


def notebook_views(views: Sequence[View], rows: Mapping[Path, RunRow]) -> list[ShownView]:
    """The views of the experiment `report` that have finished runs, with a row a published run."""
    return [_shown(view, rows, view_id(view, alone=len(views) == 1)) for view in views if view.done]


def _shown(view: View, rows: Mapping[Path, RunRow], id: str) -> ShownView:
    asked = [(each, intended) for each in report_runs() for intended in (False, True)
             if each.intended or not intended]  # fmt: skip
    own_data = view.data not in STAND_INS
    wanted = []
    for each, intended in asked:
        spec = each.intended if intended and each.intended else each.published
        spec = recipe(view.scale.apply(spec), view.precision, None if own_data else view.data)
        wanted.append((spec, each.final / 100 if own_data and not intended else None))
    runs = [run for point in view.points for run in (*point.runs, *point.others)]
    found = single_points(wanted, {run.path: run for run in runs}.values())
    pairs = list(zip(asked, found, strict=True))
    done = [(each, intended, point) for (each, intended), point in pairs if point.accuracy]
    folders = list({run.path: run for *_, point in done for run in point.runs}.values())
    defects = {name for each, intended, _ in done if not intended for name in each.defects}
    return ShownView(
        id=id,
        headline=headline(view),
        recipe_in_short=recipe_in_short(view),
        answer=_answer(pairs, whole=view.scale.epochs is None),
        setting=[
            *setting(view),
            "Every run has the recipe of its own notebook.",
            *_ramps(view, [point.spec for *_, point in done]),
            *(f"In some, {DEFECTS[name]}." for name in sorted(defects)),
        ],
        pictures=[
            picture(
                f"{id}-maps",
                drawing.title,
                f"{view.experiment.question} {headline(view)}",
                f"{_MAPS} {_recipes(view)}",
                drawing.draw,
            )
            for drawing in drawings(view)
        ],
        rows=[
            {"line": each.name, "place": _place(point, intended), "point": point}
            for each, intended, point in done
        ],
        line="Run of the report",
        axis="Recipe",
        has={"published": own_data, "top5": False},
        measured=[],
        missing=[*_missing(pairs), *not_read(view), *not_measured(view)],
        sources=[
            ("Published", [f"the notebooks in {_NOTEBOOKS}: validation accuracy after epoch 75"]),
            *sources(folders, [rows[run.path] for run in folders]),
        ],
        recipe=[],
        folders=[*folders, *(run for _, point in pairs for run in point.others)],
    )


def _ramps(view: View, specs: Sequence[RunSpec]) -> list[str]:
    """What a shortened recipe does to a schedule that is told in epochs."""
    if view.scale.epochs is None or not any(spec.schedule == "ramp" for spec in specs):
        return []
    return [
        f"The rate of a ramp rises over {RAMP_EPOCHS} epochs, as in the report, which is a larger "
        f"share of {counted(view.scale.epochs, 'epoch')}."
    ]


def _recipes(view: View) -> str:
    """Which runs the maps are of."""
    told = [
        f"{subset} in batches of {point.spec.batch_size:,}, right on "
        f"{percent(point.accuracy.mean if point.accuracy else None)}"
        for subset, (point, _) in maps_of(view).items()
    ]
    return f"Trained by Adam: {', '.join(told)} of the test images."


def _answer(pairs: Sequence[tuple[tuple[ReportRun, bool], Point]], *, whole: bool) -> str:
    """How far ours are from the published ones, and bn from everything among them. whole: whether
    they trained as long as those. Settings are counted, each once: some were published more than
    once, and a shortened recipe makes more of them equal; one run of ours answers them all."""
    done = [(*asked, point) for asked, point in pairs if point.accuracy]
    asked = {point.spec.replace(seed=0) for (_, intended), point in pairs if not intended}
    there = {point.spec.replace(seed=0) for _, intended, point in done if not intended}
    shortened = "" if whole else "shortened "
    text = f"The report published {len(report_runs())} runs of {len(asked)} settings"
    text += "" if whole else ", as they are when shortened"
    text += f"; {len(there)} of these {'has' if len(there) == 1 else 'have'} a {shortened}"
    text += "counterpart here"
    differences = [point.difference for *_, point in done if point.difference is not None]
    if differences and whole:
        low, high = points(min(differences)), points(max(differences))
        text += (
            f", which differs by {low} points"
            if low == high
            else (f"; the differences are {low} to {high} points")
        )
    best = {
        subset: max(
            (point.accuracy.mean for *_, point in done
             if point.accuracy and point.spec.trainable == subset), default=None,
        )
        for subset in ("bn", "all")
    }  # fmt: skip
    if best["bn"] is not None and best["all"] is not None:
        text += f". The best here reaches {percent(best['bn'])} with gamma and beta alone, "
        text += f"{percent(best['all'])} with everything"
    return f"{text}."


def _place(point: Point, intended: bool) -> str:
    spec = point.spec
    text = f"{spec.trainable}, {spec.optimizer}, {spec.schedule} {spec.lr:g}, {spec.batch_size}"
    return f"{text}, as intended" if intended else text


def _missing(pairs: Sequence[tuple[tuple[ReportRun, bool], Point]]) -> list[str]:
    """The runs of which nothing has finished."""
    names: dict[str, list[str]] = {}
    for (each, intended), point in pairs:
        if not point.runs:
            names.setdefault("as intended" if intended else "as published", []).append(each.name)
    return [
        f"{counted(len(each), 'run')} {kind}: {', '.join(each)}." for kind, each in names.items()
    ]
