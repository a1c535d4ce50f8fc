"""Runs to one self-contained HTML page that answers the question before it shows the numbers.

Every sentence is composed from the runs at hand, and the same runs give the same page. Wording and
assembly are here, looks in report.html.jinja, pictures in figures.py, numbers in analysis.py.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from gammabeta import figures
from gammabeta.analysis import (
    DAMAGED,
    Curve,
    GammaPool,
    GroupRow,
    RunRow,
    Section,
    compared,
    curves,
    gamma_pools,
    headings,
    is_above,
    is_paper_recipe,
    plain,
    sections,
)
from gammabeta.disk import replace_file
from gammabeta.errors import InputError, RunError
from gammabeta.gammas import small_share
from gammabeta.store import RunFolder, list_runs

Published = Mapping[tuple[str, str], float]

_TEMPLATE = Path(__file__).with_name("report.html.jinja")
_NOUNS = {
    "cifar10": "CIFAR-10 test images",
    "cifar100": "CIFAR-100 test images",
    "digits": "test digits",
}
_ACTIONS = {
    "all": "Training everything",
    "none": "Training nothing",
    "bn": "Training only gamma and beta",
    "gamma": "Training only gamma",
    "beta": "Training only beta",
    "output": "Training only the classifier",
}
NOTHING = "\u2013"  # an en dash, where there is no number
_SPACE = "\u202f"  # narrow, and no line breaks at it


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
    title: str = "Training only gamma and beta",
    published: Published | None = None,
) -> None:
    """Write the page about `runs`, a folder of runs or the runs themselves, to the file `out`.

    published: (model, trainable) -> the paper's test accuracy in 0..1, shown beside runs of the
    paper's recipe and beside no others. Raises InputError when there is nothing to report or `out`
    is no file name, RunError when it cannot be written; an older page is then still there.
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


def report_html(runs: Sequence[RunFolder], title: str, published: Published | None = None) -> str:
    """The page as text."""
    for key, value in (published or {}).items():
        if not 0 <= value <= 1:
            raise InputError(f"published {key} is {value}: write a share of 1, as in 0.931")
    parts = sections(runs)
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(percent=percent, share=share, seconds=seconds)
    views = [
        _view(part, f"part-{number}", heading, published or {})
        for number, (part, heading) in enumerate(zip(parts, headings(parts), strict=True), start=1)
    ]
    template = environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))
    return template.render(title=title, parts=views, count=len(runs))


def answer(section: Section) -> str:
    """One sentence: how far the subset gets, beside random weights and beside everything."""
    done = [group for group in section.groups if group.test_accuracy]
    if not done:
        states = Counter(row.status for row in section.rows)
        told = ", ".join(f"{count} {status}" for status, count in sorted(states.items()))
        return f"No run of {section.model} on {section.data} has finished yet: {told}."
    main, rivals = compared(done)
    action = _ACTIONS.get(main.trainable, f"Training only the subset {main.trainable}")
    text = f"{action} of {section.model}" if action.startswith("Training only") else action
    if main.trained is not None and main.total and main.share is not None:
        text += f" ({main.trained:,} of {main.total:,} values, {share(main.share)})"
    text += f" reaches {_accuracy(main)} on {_test_images(section)}"
    for rival in rivals:
        if rival.trainable == "all":
            text += f"; everything reaches {_accuracy(rival)}"
        elif rival.trained == main.trained:
            text += f"; the same number of randomly chosen weights reaches {_accuracy(rival)}"
        else:
            text += f"; {rival.trained:,} randomly chosen weights reach {_accuracy(rival)}"
    return f"{text} ({_seeds([main, *rivals])})."


def percent(value: float | None) -> str:
    """0.931 -> 93.1 %; an en dash for None."""
    return NOTHING if value is None else f"{100 * value:.1f}{_SPACE}%"


def share(value: float | None) -> str:
    """A share that may be tiny: 0.0064 -> 0.64 %, 1 -> 100 %."""
    if value is None:
        return NOTHING
    number = 100 * value
    digits = f"{number:.0f}" if value in (0, 1) else f"{number:.1f}" if number >= 10 else ""
    return (digits or (f"{number:.2f}" if number >= 0.1 else f"{number:.2g}")) + f"{_SPACE}%"


def seconds(value: float | None) -> str:
    """Whole seconds from ten on."""
    return NOTHING if value is None else f"{value:,.0f}" if value >= 10 else f"{value:.1f}"


def _accuracy(group: GroupRow) -> str:
    return percent(group.test_accuracy.mean if group.test_accuracy else None)


def _seeds(groups: Iterable[GroupRow]) -> str:
    counts = sorted({group.n for group in groups})
    if counts == [1]:
        return "one seed each" if len(list(groups)) > 1 else "one seed"
    if len(counts) == 1:
        return f"means over {counts[0]} seeds"
    return f"means over {counts[0]} to {counts[-1]} seeds"


def _data(section: Section) -> dict[str, Any]:
    for run in section.runs:
        data: dict[str, Any] = run.inputs["data"]
        return data
    return {}


def _test_images(section: Section) -> str:
    noun = _NOUNS.get(section.data, f"{section.data} test images")
    count = _data(section).get("test")
    return f"{count:,} {noun}" if count else noun


def _view(section: Section, id: str, heading: str, published: Published) -> dict[str, Any]:
    """All that the template shows of one section."""
    paper = {
        group.trainable: published[section.model, group.trainable]
        for group in section.groups
        if (section.model, group.trainable) in published and is_paper_recipe(section)
    }
    look = figures.styles(group.trainable for group in section.groups)
    borders = {"-": "solid", "--": "dashed", ":": "dotted", "-.": "dashed"}
    order = {group.trainable: place for place, group in enumerate(section.groups)}
    rows = sorted(section.rows, key=lambda row: (order[row.trainable], row.seed, row.id))
    return {
        "id": id,
        "heading": heading,
        "answer": answer(section),
        "groups": section.groups,
        "paper": paper,
        "top5": any(group.test_top5 for group in section.groups),
        "swatches": {name: (style.color, borders[style.line]) for name, style in look.items()},
        "pictures": _pictures(section, id, look),
        "rows": rows,
        "unfinished": [(row, _reason(row)) for row in rows if row.status != "ok"],
        "sources": _sources(section),
        "recipe": [(key.replace("_", " "), plain(each)) for key, each in section.recipe.items()],
    }


def _reason(row: RunRow) -> str:
    done = f"{row.epochs_done} of {row.epochs} epochs"
    if row.status == "running":
        return f"still running, {done} done"
    if row.status == "stopped":
        return f"stopped after {done}: the same command again resumes it"
    if row.status == DAMAGED:
        return row.error or "damaged"
    return f"failed after {done}: {row.error or 'no reason was recorded'}"


def _pictures(section: Section, id: str, look: Mapping[str, figures.Style]) -> list[Picture]:
    """The figures for which there is something to show."""
    classes = _data(section).get("num_classes")
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
            _caption_curves(section, drawn, chance),
            lambda width: figures.learning_curves(drawn, look, chance=chance, width=width),
        )
    done = [group for group in section.groups if group.test_accuracy]
    if done:
        add(
            "bars",
            "Where each subset ends",
            _caption_bars(done, chance),
            lambda width: figures.accuracy_bars(done, look, chance=chance, width=width),
        )
    pools = gamma_pools(section.runs)
    pools = [pool for pool in pools if pool.trainable in ("bn", "all")] or pools[:2]
    if pools:
        add(
            "gammas",
            "What becomes of gamma",
            _caption_gammas(pools),
            lambda width: figures.gamma_histogram(pools, look, width=width),
        )
        add(
            "small",
            "How many features are switched off",
            _caption_small(pools, section.recipe.get("norm_init") == "uniform"),
            lambda width: figures.small_gamma_shares(pools, look, width=width),
        )
    return found


def _caption_curves(section: Section, drawn: Sequence[Curve], chance: float | None) -> str:
    text = f"Measured on {_test_images(section)} after every epoch. "
    if any(curve.n > 1 for curve in drawn):
        text += "Lines are means over seeds, bands reach from the lowest to the highest seed."
    else:
        text += "One seed for each line, so no spread is known."
    if not all(curve.finished for curve in drawn):
        text += " Lines marked unfinished are of runs that have not ended."
    done = [group for group in section.groups if group.test_accuracy]
    if done:
        main, rivals = compared(done)
        beside = " and ".join(_beside(main, rival) for rival in rivals)
        text += f" After the last epoch {main.trainable} is at {_accuracy(main)}"
        text += f", {beside}." if beside else "."
    return text + _dotted(chance)


def _beside(main: GroupRow, rival: GroupRow) -> str:
    assert main.test_accuracy
    assert rival.test_accuracy
    points = 100 * (main.test_accuracy.mean - rival.test_accuracy.mean)
    if abs(points) < 0.05:
        return f"level with {rival.trainable}"
    return f"{abs(points):.1f} points {'above' if points > 0 else 'below'} {rival.trainable}"


def _caption_bars(done: Sequence[GroupRow], chance: float | None) -> str:
    text = "Test accuracy after the last epoch (not the best one), the smallest subset on top."
    if any(group.n > 1 for group in done):
        text += " Bars are means over seeds, whiskers reach from the lowest to the highest seed."
    main, rivals = compared(done)
    for rival in rivals:
        if rival.trained == main.trained and is_above(main, rival):
            text += f" {main.trainable} and {rival.trainable} train {main.trained:,} values each,"
            text += f" yet every seed of {main.trainable} is above every seed of {rival.trainable}."
    return text + _dotted(chance)


def _dotted(chance: float | None) -> str:
    return f" Dotted: guessing, {percent(chance)}." if chance else ""


def _caption_gammas(pools: Sequence[GammaPool]) -> str:
    counts = " and ".join(
        f"{pool.values.size:,} under {pool.trainable} (n{_SPACE}={_SPACE}{pool.n})"
        for pool in pools
    )
    return (
        "The values of gamma after training, all layers and seeds together: "
        f"{counts}. Same bins for all, each area is 1. A peak at zero is made of features that "
        "the network has switched off."
    )


def _caption_small(pools: Sequence[GammaPool], uniform: bool) -> str:
    told = " and ".join(
        f"{percent(small_share(pool.values))} under {pool.trainable}" for pool in pools
    )
    text = (
        "The share of gammas whose size is below t, for every t. A feature counts as switched off "
        f"below 0.01 (vertical line): {told}."
    )
    return text + (" Gammas start uniform in 0 to 1, so 1 % of them start there." * uniform)


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
        f"{session.get('threads', '?')} threads, engine {session.get('engine', '?')}"
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
        found.append(("Time", [f"{total}, in {len(times)} finished runs"]))
    return [(what, each) for what, each in found if each]


def _sessions(run: RunFolder) -> list[dict[str, Any]]:
    """Nothing for a damaged env.json: the numbers of the run are good without it."""
    try:
        sessions: list[dict[str, Any]] = run.env["sessions"]
    except RunError:
        return []
    return sessions


def _software(session: Mapping[str, Any]) -> str:
    names = ("gammabeta", "torch", "numpy", "python")
    text = ", ".join(f"{name} {session[name]}" for name in names if session.get(name))
    if session.get("commit"):
        changed = " with local changes" if session.get("dirty") else ""
        text += f", commit {str(session['commit'])[:12]}{changed}"
    return text
