"""The figures of an experiment as files, for a paper or a slide, with the numbers behind them."""

import io
import json
import re
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from gammabeta.disk import replace_file
from gammabeta.errors import RunError
from gammabeta.figures.drawings import drawings
from gammabeta.figures.house import INK, WIDE, house_style
from gammabeta.figures.svg import svg_text
from gammabeta.paper.beside import any_recalled, checked_table
from gammabeta.paper.networks import network_rows
from gammabeta.paper.points import View, other_data
from gammabeta.paper.unlike import changes, stem_parts


def write_figures(view: View, folder: Path) -> list[Path]:
    """STEM.json and, for each figure, STEM.svg and STEM.pdf, or STEM-KEY.svg and .pdf from the
    second one on; the folder is made. Returns what was written.

    STEM.json holds the points, a row each, accuracies in 0..1 (of the table of networks, a row a
    network), and under "figures" what each figure shows (`Chart.numbers`): {file, title, x, y,
    series}, a series being what `Series` says: label, x, y, low, high, n. Feature maps are
    {subset, title, low, high, shape, uint8} under "pictures".

    STEM is the experiment's name and what is not as published: depth-short-bf16,
    depth-smoke-digits, or, where the runs saw another set of pictures than ImageNet,
    imagenet-short-128px-piece-10-classes-9469-images. A figure says it too, in a small line below.

    Raises RunError when the disk refuses.
    """
    name = view.experiment.name
    told = {
        "experiment": name,
        "question": view.experiment.question,
        "scale": view.scale.name,
        "precision": view.precision,
        "data": view.data,
        "other_data": other_data(view.runs),
        "points": checked_table(view.points),
    }
    if name == "networks":  # nothing trains: its numbers are counts
        told["networks"] = network_rows()
    else:
        name = "-".join([name, *stem_parts(view)])
    recalled = any_recalled(view.points)
    note = ", ".join(
        filter(None, [changes(view), "the start of published ones_ones is recalled" * recalled])
    )
    files: dict[str, bytes] = {f"{name}.json": b""}
    shown = []
    for drawing in drawings(view):
        stem = f"{name}-{drawing.key}" if drawing.key else name
        figure = drawing.draw(WIDE)
        shown.append({"file": stem, "title": drawing.title} | figure.numbers())
        if note:
            figure.supxlabel(note, x=0.01, ha="left", fontsize=8, color=INK)
        files[f"{stem}.svg"] = svg_text(figure).encode()
        files[f"{stem}.pdf"] = _pdf(figure)
    files[f"{name}.json"] = _json(told | ({"figures": shown} if shown else {}))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for file, content in files.items():
            replace_file(folder / file, content)
    except OSError as error:
        raise RunError(f"could not write {folder} ({error.strerror or error})") from error
    return [folder / file for file in files]


def _json(told: dict[str, Any]) -> bytes:
    """A line for each list of numbers: curves of a hundred values each stay readable."""
    text = json.dumps(told, indent=1)
    return (re.sub(r"\[[^\[\]{}\"]*\]", _one_line, text) + "\n").encode()


def _one_line(found: re.Match[str]) -> str:
    return " ".join(found[0].split()).replace("[ ", "[").replace(" ]", "]")


def _pdf(figure: Figure) -> bytes:
    with house_style(), io.BytesIO() as file:
        figure.savefig(file, format="pdf", metadata={"CreationDate": None})
        return file.getvalue()
