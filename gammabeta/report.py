"""Runs to one self-contained HTML page that answers the question before it shows the numbers.

The same runs give the same page. Assembly is here, wording in sentences.py, looks in
report.html.jinja, pictures in figures.py, numbers in analysis.py.
"""

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from gammabeta import figures
from gammabeta.analysis import (
    Section,
    compared,
    counted,
    headings,
    is_paper_recipe,
    plain,
    sections,
)
from gammabeta.curves import curves, gamma_pools
from gammabeta.disk import replace_file
from gammabeta.errors import InputError, RunError
from gammabeta.sentences import (
    answer,
    caption_bars,
    caption_curves,
    caption_gammas,
    caption_small,
    data_of,
    page_title,
    percent,
    reason,
    seconds,
    share,
)
from gammabeta.store import RunFolder, list_runs

Published = Mapping[tuple[str, str], float]

_TEMPLATE = Path(__file__).with_name("report.html.jinja")
_DASHES = {"-": "none", "--": "7 3.5", ":": "2.5 2.5", "-.": "9 3 2.5 3"}  # of 26 units


@dataclass(frozen=True)
class Picture:
    """One figure of the page, drawn twice: for a laptop and for a phone."""

    id: str
    title: str
    wide: str
    narrow: str
    caption: str


def write_report(
    runs: str | Path | Sequence[RunFolder],
    out: str | Path,
    title: str | None = None,
    published: Published | None = None,
) -> None:
    """Write the page about `runs`, a folder of runs or the runs themselves, to the file `out`.

    title: None: what the page is about. published: (model, trainable) -> the paper's test accuracy
    in 0..1, shown beside runs of the paper's recipe and beside no others. Raises InputError when
    there is nothing to report or `out` is no file name, RunError when it cannot be written; an
    older page is then still there.
    """
    out = Path(out)
    check_out(out)
    found = list_runs(Path(runs)) if isinstance(runs, str | Path) else list(runs)
    if not found:
        where = f" in {runs}" if isinstance(runs, str | Path) else ""
        raise InputError(f"there are no runs{where}: train one first, for example gammabeta demo")
    text = report_html(found, title, published)
    try:
        replace_file(out, text.encode())
    except OSError as error:
        raise RunError(f"could not write {out} ({error.strerror or error})") from error


def check_out(out: Path) -> None:
    """Raise InputError for a file name under which no page can be written."""
    try:
        is_folder, has_parent = out.is_dir(), out.parent.is_dir()
    except (OSError, ValueError) as error:  # a path that no system accepts
        raise InputError(f"{str(out)!r} is no file name ({error}): name another") from None
    if is_folder:
        raise InputError(f"{out} is a folder: name a file, for example {out / 'report.html'}")
    if not has_parent:
        raise InputError(f"there is no folder {out.parent}: make it, or name another file")
    if not os.access(out.parent, os.W_OK):
        raise InputError(f"no file can be written in {out.parent}: name another folder")


def report_html(
    runs: Sequence[RunFolder], title: str | None = None, published: Published | None = None
) -> str:
    """The page as text."""
    for key, value in (published or {}).items():
        if not 0 <= value <= 1:
            raise InputError(f"published {key} is {value}: write a share of 1, as in 0.931")
    parts = sections(runs)
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(percent=percent, share=share, seconds=seconds, breakable=breakable)
    subsets = {group.trainable for part in parts for group in part.groups}
    views = [
        _view(part, f"part-{number}", heading, published or {}, subsets)
        for number, (part, heading) in enumerate(zip(parts, headings(parts), strict=True), start=1)
    ]
    template = environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))
    return template.render(title=title or page_title(subsets), parts=views, count=len(runs))


def breakable(subset: str) -> Markup:
    """The name of a subset, which may go on in the next line after a +."""
    return Markup("+<wbr>").join(subset.split("+"))


def _view(
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
        "pictures": _pictures(section, id, look),
        "rows": rows,
        "unfinished": [(row, reason(row)) for row in rows if row.status != "ok"],
        "sources": _sources(section),
        "recipe": [(key.replace("_", " "), plain(each)) for key, each in section.recipe.items()],
    }


def _pictures(section: Section, id: str, look: Mapping[str, figures.Style]) -> list[Picture]:
    """The figures for which there is something to show."""
    classes = data_of(section).get("num_classes")
    chance = 1 / classes if classes else None
    found = []

    def add(name: str, title: str, caption: str, draw: Callable[[float], Figure]) -> None:
        wide, narrow = (
            Markup(figures.inline_svg(draw(width), f"{id}-{name}-{size}", title))
            for size, width in (("wide", figures.WIDE), ("narrow", figures.NARROW))
        )
        found.append(Picture(f"{id}-{name}", title, wide, narrow, caption))

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


def _sources(section: Section) -> list[tuple[str, list[str]]]:
    """Where the numbers come from: (what, lines)."""
    inputs = [run.inputs["data"] for run in section.runs]
    sessions = [session for run in section.runs for session in _sessions(run)]
    marks = sorted({data["sha256"] for data in inputs})
    lines = sorted(
        {
            f"{data['train']:,} training and {data['test']:,} test images, "
            f"{data['num_classes']} classes; {data['source']}"
            for data in inputs
        }
    )
    if len(marks) > 1:
        lines.append(f"Beware: these runs read {len(marks)} different versions of the data.")
    lines += [f"sha256 {mark}" for mark in marks]
    executed = Counter(
        f"{session.get('hardware', 'unknown hardware')}; {session.get('device', '?')}, "
        f"{_threads(session)}, engine {session.get('engine', '?')}"
        for session in sessions
    )
    times = [row.seconds or 0 for row in section.rows if row.status == "ok"]
    found = [
        ("Data", lines),
        ("Seeds", [", ".join(map(str, sorted({row.seed for row in section.rows})))]),
        ("Hardware", sorted(executed)),
        ("Software", sorted({_software(session) for session in sessions})),
    ]
    started = sorted(str(session["started"]) for session in sessions if session.get("started"))
    if started:
        found.append(("Trained", [" to ".join(sorted({started[0][:10], started[-1][:10]}))]))
    if times:
        total = f"{seconds(sum(times))} seconds of training, evaluation left out"
        found.append(("Time", [f"{total}, in {counted(len(times), 'finished run')}"]))
    return [(what, each) for what, each in found if each]


def _sessions(run: RunFolder) -> list[dict[str, Any]]:
    """Nothing for a damaged env.json: the numbers of the run are good without it."""
    try:
        sessions: list[dict[str, Any]] = run.env["sessions"]
    except RunError:
        return []
    return sessions


def _threads(session: Mapping[str, Any]) -> str:
    threads = session.get("threads")
    return counted(threads, "thread") if isinstance(threads, int) else "? threads"


def _software(session: Mapping[str, Any]) -> str:
    names = ("gammabeta", "torch", "numpy", "python")
    text = ", ".join(f"{name} {session[name]}" for name in names if session.get(name))
    if session.get("commit"):
        changed = " with local changes" if session.get("dirty") else ""
        text += f", commit {str(session['commit'])[:12]}{changed}"
    return text
