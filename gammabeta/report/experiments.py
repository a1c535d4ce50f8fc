"""The experiments of the paper, chapter by chapter: what the template shows of each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gammabeta.analysis import DAMAGED, RunRow, run_rows
from gammabeta.figures import drawings
from gammabeta.paper import experiments
from gammabeta.paper.points import View, views
from gammabeta.report.answers import answer
from gammabeta.report.chapter import Chapter, ShownView
from gammabeta.report.notebooks import notebook_views
from gammabeta.report.origins import published_sources
from gammabeta.report.pictures import picture
from gammabeta.report.settings import (
    axis_name,
    caption,
    common_recipe,
    count_of_missing,
    headline,
    line_name,
    measured_columns,
    missing,
    recipe_in_short,
    setting,
    table_rows,
    view_id,
)
from gammabeta.report.sources import sources
from gammabeta.store import RunFolder


@dataclass(frozen=True)
class OpenQuestion:
    """One that has runs but no answer yet. there: how many of its points have a value."""

    name: str
    question: str
    there: str


def chapters(runs: Sequence[RunFolder]) -> tuple[list[Chapter], list[OpenQuestion]]:
    """The questions that these runs answer, in the order of the paper, and those that they begin
    to answer."""
    rows = {run.path: row for run, row in zip(runs, run_rows(runs), strict=True)}
    readable = [run for run in runs if rows[run.path].status != DAMAGED]
    told, still_open = [], []
    for experiment in experiments().values():
        found = views(experiment, readable)
        if experiment.name == "report":  # told run by run, not setting by setting
            shown = notebook_views(found, rows)
        else:
            shown = [
                _shown(view, each, rows, view_id(view, alone=len(found) == 1))
                for view in found
                if (each := answer(view)) is not None
            ]
        if shown:
            told.append(Chapter(experiment.name, experiment.question, shown))
        elif any(view.done for view in found):
            best = max(found, key=lambda view: len(view.done))
            still_open.append(
                OpenQuestion(experiment.name, experiment.question, count_of_missing(best))
            )
    return told, still_open if told else []


def _shown(view: View, answer: str, rows: Mapping[Path, RunRow], id: str) -> ShownView:
    experiment = view.experiment
    runs = list({run.path: run for run in view.runs}.values())
    others = [run for point in view.points for run in point.others]
    told = table_rows(view)
    done = [row["point"] for row in told]
    return ShownView(
        id=id,
        headline=headline(view),
        recipe_in_short=recipe_in_short(view),
        answer=answer,
        setting=setting(view),
        pictures=[
            picture(
                f"{id}-{drawing.key or 'figure'}", drawing.title,
                f"{experiment.question} {headline(view)}", caption(view, drawing.key),
                drawing.draw,
            )
            for drawing in drawings(view)
        ],
        rows=told,
        line=line_name(view),
        axis=axis_name(view),
        has={
            "published": experiment.axis != "threshold"
            and any(point.published is not None for point in done),
            "top5": any(point.top5 for point in done),
        },
        measured=measured_columns(view),
        missing=missing(view),
        sources=[
            ("Published", published_sources(view)),
            *sources(runs, [rows[run.path] for run in runs]),
        ],
        recipe=common_recipe(view),
        folders=[*runs, *others],
    )  # fmt: skip
