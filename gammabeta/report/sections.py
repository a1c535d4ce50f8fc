"""The runs that can be compared, section by section: what the template shows of each."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from gammabeta import figures
from gammabeta.analysis import (
    Section,
    compared,
    headings,
    is_paper_recipe,
    plain,
)
from gammabeta.curves import curves, gamma_pools
from gammabeta.report.pictures import Picture, picture
from gammabeta.report.sources import sources
from gammabeta.sentences import (
    answer,
    caption_bars,
    caption_curves,
    caption_gammas,
    caption_small,
    data_name,
    data_of,
    reason,
)

Published = Mapping[tuple[str, str], float]

_DASHES = {"-": "none", "--": "7 3.5", ":": "2.5 2.5", "-.": "9 3 2.5 3"}  # of 26 units


def parts_of(found: Sequence[Section], published: Published) -> list[dict[str, Any]]:
    """What the template shows of each section, with one look a subset on the whole page."""
    subsets = {group.trainable for part in found for group in part.groups}
    return [
        _part(part, f"part-{number}", _named(part, heading), published, subsets)
        for number, (part, heading) in enumerate(zip(found, headings(found), strict=True), start=1)
    ]


def _named(section: Section, heading: str) -> str:
    """The heading with what the data was in truth."""
    return heading.replace(f" on {section.data}, ", f" on {data_name(section)}, ", 1)


def _part(
    section: Section, id: str, heading: str, published: Published, subsets: set[str]
) -> dict[str, Any]:
    """All that the template shows of one section. subsets: of the whole page."""
    paper = {
        group.trainable: published[section.model, group.trainable]
        for group in section.groups
        if (section.model, group.trainable) in published and is_paper_recipe(section)
    }
    many = len(subsets) > figures.LOOKS  # more than a page can tell apart: at least a section can
    look = figures.styles({group.trainable for group in section.groups} if many else subsets)
    order = {group.trainable: place for place, group in enumerate(section.groups)}
    rows = sorted(section.rows, key=lambda row: (order[row.trainable], row.seed, row.id))
    return {
        "id": id,
        "heading": heading,
        "answer": answer(section),
        "groups": section.groups,
        "paper": paper,
        "top5": any(group.test_top5 for group in section.groups),
        "swatches": {name: (style.color, _DASHES[style.line]) for name, style in look.items()},
        "pictures": _pictures(section, id, heading, look),
        "rows": rows,
        "unfinished": [(row, reason(row)) for row in rows if row.status != "ok"],
        "sources": sources(section.runs, section.rows),
        "recipe": [(key.replace("_", " "), plain(each)) for key, each in section.recipe.items()],
    }


def _pictures(
    section: Section, id: str, heading: str, look: Mapping[str, figures.Style]
) -> list[Picture]:
    """The figures for which there is something to show."""
    classes = data_of(section).get("num_classes")
    chance = 1 / classes if classes else None
    found = []

    def add(name: str, title: str, caption: str, draw: Callable[[float], Figure]) -> None:
        found.append(picture(f"{id}-{name}", title, heading, caption, draw))

    drawn = curves(section.runs)
    if drawn:
        add(
            "curves",
            "How accuracy grows",
            caption_curves(section, drawn, chance),
            lambda width: figures.learning_curves(drawn, look, chance=chance, width=width),
        )
    done = [group for group in section.groups if group.test_accuracy]
    shown = {"bn", "all"}
    if done:
        shown = {compared(done)[0].trainable, "all"}
        add(
            "bars",
            "Where each subset ends",
            caption_bars(done, chance),
            lambda width: figures.accuracy_bars(done, look, chance=chance, width=width),
        )
    pools = gamma_pools(section.runs)
    pools = [pool for pool in pools if pool.trainable in shown] or pools[:2]
    if pools:
        add(
            "gammas",
            "What becomes of gamma",
            caption_gammas(pools),
            lambda width: figures.gamma_histogram(pools, look, width=width),
        )
        add(
            "small",
            "How many features are switched off",
            caption_small(pools, section.recipe.get("norm_init") == "uniform"),
            lambda width: figures.small_gamma_shares(pools, look, width=width),
        )
    return found
