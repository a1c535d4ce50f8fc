"""What the template shows of a question: plain values, no sentence is made in the template."""

from dataclasses import dataclass

from gammabeta.report.pictures import Picture
from gammabeta.store import RunFolder


@dataclass(frozen=True)
class ShownView:
    """An experiment as a store has it at one scale. headline: what sets it apart from the others of
    its chapter. recipe_in_short: what of the published one was changed. has: which columns its
    table needs. folders: the runs it shows or names."""

    id: str
    headline: str
    recipe_in_short: str
    answer: str
    setting: list[str]
    pictures: list[Picture]
    rows: list[dict[str, object]]
    line: str
    axis: str
    has: dict[str, bool]
    measured: list[tuple[str, dict[str, str]]]
    missing: list[str]
    sources: list[tuple[str, list[str]]]
    recipe: list[tuple[str, str]]
    folders: list[RunFolder]


@dataclass(frozen=True)
class Chapter:
    """One question of the paper that the store can answer."""

    id: str
    question: str
    views: list[ShownView]

    @property
    def fullest(self) -> ShownView:
        """The view with most points, of as many the first: what the page begins with."""
        return max(self.views, key=lambda view: len(view.rows))
