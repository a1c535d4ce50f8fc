"""The figures of an experiment as files, for a paper or a slide, with the numbers behind them."""

import io
import json
from pathlib import Path

from matplotlib.figure import Figure

from gammabeta.disk import replace_file
from gammabeta.errors import RunError
from gammabeta.figures.drawings import drawings
from gammabeta.figures.house import WIDE, house_style
from gammabeta.figures.svg import svg_text
from gammabeta.paper.networks import network_rows
from gammabeta.paper.points import View, table


def write_figures(view: View, folder: Path) -> list[Path]:
    """NAME.json (a row a point, accuracies in 0..1; of the table of networks, a row a network) and,
    for each figure, NAME.svg and NAME.pdf, or NAME-KEY.svg and .pdf from the second one on; the
    folder is made. Returns what was written.

    Raises RunError when the disk refuses.
    """
    name = view.experiment.name
    told = {
        "experiment": name,
        "question": view.experiment.question,
        "scale": view.scale.name,
        "precision": view.precision,
        "data": view.data,
        "points": table(view.points),
    }
    if name == "networks":  # nothing trains: its numbers are counts
        told["networks"] = network_rows()
    files = {f"{name}.json": (json.dumps(told, indent=1) + "\n").encode()}
    for drawing in drawings(view):
        stem = f"{name}-{drawing.key}" if drawing.key else name
        figure = drawing.draw(WIDE)
        files[f"{stem}.svg"] = svg_text(figure).encode()
        files[f"{stem}.pdf"] = _pdf(figure)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for file, content in files.items():
            replace_file(folder / file, content)
    except OSError as error:
        raise RunError(f"could not write {folder} ({error.strerror or error})") from error
    return [folder / file for file in files]


def _pdf(figure: Figure) -> bytes:
    with house_style(), io.BytesIO() as file:
        figure.savefig(file, format="pdf", metadata={"CreationDate": None})
        return file.getvalue()
