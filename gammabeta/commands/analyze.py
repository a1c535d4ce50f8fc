"""`gammabeta analyze`: measurements on trained runs, written beside them."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from gammabeta.arguments import (
    add_command,
    add_data,
    add_runs_folder,
    execution,
    finish,
    reader,
    runs_folder,
)
from gammabeta.errors import InputError
from gammabeta.parser import as_flag


def add(commands: Any) -> None:
    text = "measure trained runs: gammas, clamping, ReLU activity, feature maps"
    parser = add_command(commands, "analyze", _analyze, text)
    parser.add_argument("run", nargs="+", metavar="RUN", help="a run's id, or the start of it")
    parser.add_argument(
        "--probe",
        metavar="A,B",
        help="of gammas, clamp, activity and maps: only these (default: all)",
    )
    parser.add_argument(
        "--images",
        type=reader("batch_size"),
        metavar="N",
        help="first N test images (default: all)",
    )
    add_data(parser)
    add_runs_folder(parser)
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1")
    parser.add_argument(
        "--again", action="store_true", help="also what is there already and still holds"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    finish(parser)


def _analyze(options: argparse.Namespace) -> None:
    from gammabeta.engine import choose_device
    from gammabeta.errors import about
    from gammabeta.listen import Portions
    from gammabeta.probe import PROBES
    from gammabeta.probe.make import carry_out, check_probes, load, named, plan
    from gammabeta.run import load_run

    names = list(PROBES) if options.probe is None else options.probe.replace(",", " ").split()
    with about("probe"):
        check_probes(names)
    if not any(PROBES[name].needs_images for name in names):
        for name in ("images", "data_dir", "workers", "image_store", "skip_broken"):
            if vars(options).get(name) is not None:
                asked = ", ".join(names)
                raise InputError(f"{asked} needs no images: leave out {as_flag(name)}")
    how = execution(options)
    where, reading = how.get("data_dir"), how.get("reading")
    with about("device"):
        choose_device(options.device)
    root = runs_folder(options)
    runs = {run.id: run for run in (load_run(each, root) for each in options.run)}
    plans = [plan(run, names, images=options.images, again=options.again) for run in runs.values()]
    loaded: dict[str, Any] = {}
    for todo in plans:  # what is wrong with the data of any run is said before the work begins
        load(todo, where, loaded, reading)
    made, tell = [], Portions()
    for todo in plans:
        data = load(todo, where, loaded, reading)
        made.append((todo.run, carry_out(todo, data, options.device, named(todo, tell))))
    if options.json:
        shown = [
            {"id": run.id, "probes": _summaries(probes, run.folder.path / "probe")}
            for run, probes in made
        ]
        print(json.dumps(shown, indent=1))
        return
    _print_runs(made)
    if alone := len(made) == 1:
        _print_layers(made[0][1])
    where = made[0][0].folder.path / "probe" if alone else "probe/ of each run's folder"
    print(f"kept in {where}")


def _summaries(probes: dict[str, dict[str, Any]], folder: Path) -> dict[str, Any]:
    return {
        name: {"path": str(folder / f"{name}.json"), **found["made_from"], **found["summary"]}
        for name, found in probes.items()
    }


def _table(left: tuple[str, ...], right: tuple[str, ...]) -> Any:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name in left:
        table.add_column(name)
    for name in right:
        table.add_column(name, justify="right")
    return table


def _print_runs(made: list[tuple[Any, dict[str, dict[str, Any]]]]) -> None:
    """One row a run: what each probe found in the whole network."""
    from gammabeta.display import make_console, percent
    from gammabeta.probe.read import ROUNDING

    columns: dict[str, tuple[tuple[str, str], ...]] = {
        "gammas": (("gammas", "gammas"), ("|gamma| < 0.01", "small_share")),
        "clamp": (
            ("accuracy", "test_accuracy"),
            ("small ones at 0", "clamped_accuracy"),
            ("as many random", "random_accuracy"),
        ),
        "activity": (
            ("features", "features"),
            ("off", "share"),
            ("off > 99 %", "mostly_off"),
            ("dead", "dead"),
            ("constant", "constant"),
        ),
        "maps": (("maps of", "convolutions"),),
    }
    chosen = [(probe, *pair) for probe, pairs in columns.items() for pair in pairs]
    chosen = [each for each in chosen if each[0] in made[0][1]]
    table = _table(("id", "model", "subset"), tuple(title for _, title, _ in chosen))
    notes = []
    for run, probes in made:
        cells = []
        for probe, _, key in chosen:
            value = probes[probe]["summary"][key]
            share = value is None or isinstance(value, float)
            text = ", ".join(value) if isinstance(value, list) else f"{value}"
            cells.append(percent(value) if share else text)
        table.add_row(run.id, run.spec.model, run.spec.trainable, *cells)
        recorded = probes.get("clamp", {}).get("recorded")
        if recorded is not None:
            ours = probes["clamp"]["summary"]["test_accuracy"]
            if abs(recorded - ours) > ROUNDING:
                notes.append(
                    f"{run.id}: {percent(ours)} here, {percent(recorded)} when it was trained: "
                    "more than another machine's rounding would explain"
                )
    make_console(sys.stdout).print(table)
    for note in notes:
        print(note)


def _print_layers(probes: dict[str, dict[str, Any]]) -> None:
    """Tables by layer, and the clamp curve."""
    from gammabeta.display import make_console, percent

    tables = []
    if "gammas" in probes:
        titles = ("gammas", "mean", "std", "|gamma| < 0.01", "beta mean", "beta std")
        table = _table(("layer",), titles)
        for row in probes["gammas"]["layers"]:
            gamma, beta = row["gamma"], row["beta"]
            values = [_number(gamma["mean"]), _number(gamma["std"]), percent(gamma["small_share"])]
            values += [_number(beta["mean"]), _number(beta["std"])] if beta else ["-", "-"]
            table.add_row(row["name"], str(row["channels"]), *values)
        tables.append(table)
    if "clamp" in probes:
        table = _table(("clamped below",), ("gammas", "share", "accuracy", "as many random"))
        for point in probes["clamp"]["points"]:
            random = sum(point["random"]) / len(point["random"])
            shares = (point["share"], point["test_accuracy"], random)
            cells = [percent(share) for share in shares]
            table.add_row(f"{point['threshold']:g}", str(point["clamped"]), *cells)
        tables.append(table)
    if "activity" in probes:
        table = _table(("ReLU",), ("features", "off", "off > 99 %", "dead", "constant"))
        for row in probes["activity"]["layers"]:
            counts = [str(row[key]) for key in ("mostly_off", "dead", "constant")]
            table.add_row(row["name"], str(len(row["off"])), percent(row["share"]), *counts)
        tables.append(table)
    for table in tables:
        print()
        make_console(sys.stdout).print(table)


def _number(value: float | None) -> str:
    return "nan" if value is None else f"{value:.3f}"
