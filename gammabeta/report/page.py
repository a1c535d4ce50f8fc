"""Runs to one self-contained HTML page that answers the question before it shows the numbers.

The same runs give the same page. Experiments of the paper come first (experiments.py), then the
runs that belong to none of them, sorted into those that can be compared (sections.py).
"""

from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from gammabeta.analysis import sections
from gammabeta.disk import check_file, write_files
from gammabeta.errors import InputError, no_runs
from gammabeta.report.experiments import chapters
from gammabeta.report.networks import network_table
from gammabeta.report.sections import Published, parts_of
from gammabeta.sentences import page_title, percent, points, seconds, share
from gammabeta.store import RunFolder, list_runs

_TEMPLATE = Path(__file__).with_name("page.html.jinja")


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
        raise no_runs(runs if isinstance(runs, str | Path) else None)
    text = report_html(found, title, published)
    write_files({out: text.encode()})


def check_out(out: Path) -> None:
    """Raise InputError for a file name under which no page can be written."""
    check_file(out, "report.html")


def report_html(
    runs: Sequence[RunFolder], title: str | None = None, published: Published | None = None
) -> str:
    """The page as text."""
    for key, value in (published or {}).items():
        if not 0 <= value <= 1:
            raise InputError(f"published {key} is {value}: write a share of 1, as in 0.931")
    told, open_questions = chapters(runs)
    shown = {run.path for chapter in told for view in chapter.views for run in view.folders}
    parts = parts_of(sections([run for run in runs if run.path not in shown]), published or {})
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(
        percent=percent,
        share=share,
        seconds=seconds,
        breakable=breakable,
        points=points,
    )
    template = environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))
    return template.render(
        title=title or page_title(str(run.spec.get("trainable", "")) for run in runs),
        chapters=told,
        networks=network_table() if told else None,
        open_questions=open_questions,
        parts=parts,
        count=len(runs),
    )


def breakable(subset: str) -> Markup:
    """The name of a subset, which may go on in the next line after a +."""
    return Markup("+<wbr>").join(subset.split("+"))
