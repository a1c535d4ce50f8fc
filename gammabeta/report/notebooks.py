"""The chapter on the non-author report: its runs, published and ours, as they were and as meant."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from gammabeta.analysis import RunRow, counted
from gammabeta.paper.points import Point, single_points
from gammabeta.paper.report import DEFECTS, ReportRun, report_runs
from gammabeta.report.chapter import Chapter, ShownView
from gammabeta.report.sources import sources
from gammabeta.sentences import percent, points
from gammabeta.spec import CHOICES
from gammabeta.store import RunFolder

QUESTION = "What does the report on the paper find, run again?"
_NOTEBOOKS = "github.com/sayakpaul/Training-BatchNorm-and-Only-BatchNorm"


def notebook_chapter(runs: Sequence[RunFolder], rows: Mapping[Path, RunRow]) -> Chapter | None:
    """A view a precision in which there are finished runs of it; None if there is none."""
    shown = [view for precision in CHOICES["precision"] if (view := _shown(runs, rows, precision))]
    return Chapter("report", QUESTION, shown) if shown else None


def _shown(
    runs: Sequence[RunFolder], rows: Mapping[Path, RunRow], precision: str
) -> ShownView | None:
    asked = [(each, intended) for each in report_runs() for intended in (False, True)
             if each.intended or not intended]  # fmt: skip
    specs = [
        ((each.intended if intended and each.intended else each.published), intended, each)
        for each, intended in asked
    ]
    found = single_points(
        [(spec.replace(precision=precision), None if intended else each.final / 100)
         for spec, intended, each in specs],
        runs,
    )  # fmt: skip
    pairs = list(zip(asked, found, strict=True))
    done = [(each, intended, point) for (each, intended), point in pairs if point.accuracy]
    if not done:
        return None
    folders = list({run.path: run for *_, point in done for run in point.runs}.values())
    defects = {name for each, intended, _ in done if not intended for name in each.defects}
    return ShownView(
        id=f"report-{precision}",
        headline=precision,
        answer=_answer(done),
        setting=[
            "75 epochs of each notebook's own recipe.",
            *(["Computed in bf16, not in fp32."] if precision != "fp32" else []),
            *(f"In some, {DEFECTS[name]}." for name in sorted(defects)),
        ],
        pictures=[],
        rows=[
            {"line": each.name, "place": _place(point, intended), "point": point}
            for each, intended, point in done
        ],
        line="Run of the report",
        axis="Recipe",
        has={"published": True, "top5": False},
        measured=[],
        missing=_missing(pairs),
        sources=[
            ("Published", [f"the notebooks in {_NOTEBOOKS}: validation accuracy after epoch 75"]),
            *sources(folders, [rows[run.path] for run in folders]),
        ],
        recipe=[],
        folders=[*folders, *(run for _, point in pairs for run in point.others)],
    )


def _answer(done: Sequence[tuple[ReportRun, bool, Point]]) -> str:
    """How far ours are from the published ones, and bn from everything among them."""
    differences = [point.difference for *_, point in done if point.difference is not None]
    text = f"Of {len(report_runs())} published runs {len(differences)} have a counterpart here"
    if differences:
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
