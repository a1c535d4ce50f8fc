"""What the command line prints: results and tables, on stdout."""

import json
import math
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console
from rich.table import Table

from gammabeta.analysis import DAMAGED, counted, in_percent, plain, run_rows, spread
from gammabeta.errors import InputError, no_runs
from gammabeta.names import PAPER_NETWORKS
from gammabeta.paper import published_accuracy
from gammabeta.paper.networks import model_row
from gammabeta.run import Run, find, load_run
from gammabeta.spec import RunSpec
from gammabeta.store import RunFolder
from gammabeta.subset import Verdict
from gammabeta.tune import Tuned


def subset_table(verdicts: Iterable[Verdict]) -> Table:
    """The verdicts by role, with names; `runs show --tensors` has a line for every tensor."""
    groups: dict[tuple[str, str], list[Verdict]] = {}
    count = total = 0
    for row in verdicts:
        count += row.trained
        total += row.size if row.role != "statistics" else 0
        groups.setdefault((row.role, row.verdict), []).append(row)
    table = Table(box=None, pad_edge=False)
    for column in ("role", "verdict"):
        table.add_column(column)
    for column in ("tensors", "values", "trained"):
        table.add_column(column, justify="right")
    table.add_column("which", overflow="fold")
    order = {"trained": 0, "sparse": 1, "frozen": 2, "drifts": 3}
    for (role, verdict), rows in sorted(groups.items(), key=lambda each: order[each[0][1]]):
        sums = (len(rows), sum(row.size for row in rows), sum(row.trained for row in rows))
        names = [row.name for row in rows]
        which = ", ".join(names) if len(names) < 3 else f"{names[0]} ... {names[-1]}"
        table.add_row(role, verdict, *(f"{number:,}" for number in sums), which)
    share = count / total if total else 0.0
    table.add_row("", "", "", f"{total:,}", f"{count:,} ({share:.2%})")
    return table


def result_dict(run: Run) -> dict[str, Any]:
    """The result of a run with its id, spec and subset, as JSON values."""
    return {"id": run.id, **(run.result or {}), "path": str(run.folder.path)} | {
        "subset": run.folder.inputs["subset"],
        "data": run.folder.inputs["data"],
        "spec": run.spec.to_dict(),
    }


def print_result(run: Run) -> None:
    epochs = counted((run.result or {})["epoch"], "epoch")
    print(f"run {run.id}: {run.spec.model}, {run.spec.trainable}, {epochs}")
    _print_pairs(_result_pairs(run))


def _result_pairs(run: Run) -> dict[str, str]:
    """The result of a finished run as a reader wants it."""
    result, inputs = run.result or {}, run.folder.inputs
    data, subset = inputs["data"], inputs["subset"]
    pairs = {"test accuracy": percent(result["test_accuracy"])}
    published = published_accuracy(run.spec)
    if published is not None and (data["train"], data["test"]) == (50_000, 10_000):
        pairs["the paper says"] = f"{published:.1%} (mean of five runs)"
    if "test_top5" in result:
        pairs["test top-5"] = percent(result["test_top5"])
    return pairs | {
        "test loss": f"{result['test_loss']:.4f}",
        "train accuracy": percent(result["train_accuracy"]),
        "trained": f"{subset['trained']:,} of {subset['total']:,} parameters",
        "|gamma| < 0.01": percent(result["small_gammas"]),
        "training time": duration(result["seconds"]),
    }


def _print_pairs(pairs: dict[str, str]) -> None:
    """An indented list of two columns."""
    width = max(14, *map(len, pairs))
    for name, value in pairs.items():
        print(f"  {name:<{width}}  {value}")


def print_demo(runs: list[Run], as_json: bool) -> None:
    """The table of the demonstration: what training each subset alone can do."""
    rows = [
        {
            "trainable": run.spec.trainable,
            **{key: run.folder.inputs["subset"][key] for key in ("trained", "total")},
            "test_accuracy": run.accuracy,
            "seconds": (run.result or {})["seconds"],
            "id": run.id,
        }
        for run in runs
    ]
    if as_json:
        print(json.dumps(rows, indent=1))
        return
    table = Table(box=None, pad_edge=False)
    table.add_column("subset")
    for name in ("parameters trained", "share of the network", "test accuracy", "seconds"):
        table.add_column(name, justify="right")
    for row in rows:
        share = f"{row['trained'] / row['total']:.2%}"
        accuracy, seconds = percent(row["test_accuracy"]), f"{row['seconds']:.1f}"
        table.add_row(row["trainable"], f"{row['trained']:,}", share, accuracy, seconds)
    make_console(sys.stdout).print(table)


def print_sweep(specs: Sequence[RunSpec], varied: Sequence[str], root: Path, as_json: bool) -> None:
    """What came of each run, in the order of `specs`; of nothing but seeds also the mean."""
    found = [spec for spec in specs if (root / spec.id).exists()]
    runs = [load_run(root / spec.id) for spec in found]
    if as_json:
        shown = [{"status": run.folder.status} | result_dict(run) for run in runs]
        print(json.dumps(shown, indent=1))
        return
    table = Table(box=None, pad_edge=False)
    for name in (*varied, "test accuracy", "seconds"):
        table.add_column(name, justify="right")
    table.add_column("id")
    rows = run_rows(run.folder for run in runs)
    for spec, row in zip(found, rows, strict=True):
        good = row.status == "ok"
        accuracy = percent(row.test_accuracy) if good else row.status
        seconds = f"{row.seconds:.1f}" if good and row.seconds is not None else "-"
        table.add_row(*spec_values(spec, varied), accuracy, seconds, row.id)
    done = [row for row in rows if row.status == "ok"]
    accuracies = spread(row.test_accuracy for row in done)
    times = spread(row.seconds for row in done)
    if list(varied) == ["seed"] and len(done) > 1 and accuracies and times:
        for name in ("mean", "low", "high"):
            accuracy = percent(getattr(accuracies, name))
            table.add_row(name, accuracy, f"{getattr(times, name):.1f}", "")
    make_console(sys.stdout).print(table)


def print_tuned(
    tuned: Sequence[Tuned], files: Sequence[Path], as_json: bool
) -> list[dict[str, Any]]:
    """What came of each subset at each rate; returned as JSON values too."""
    rows: list[dict[str, Any]] = [
        {
            "subset": each.subset,
            "trained": each.run.folder.inputs["subset"]["trained"],
            "total": each.run.folder.inputs["subset"]["total"],
            "rates": [asdict(trial) for trial in each.trials],
            "best_lr": each.best.lr,
            "test_accuracy": each.run.accuracy,
            "run": each.run.id,
            "delta": str(path),
            "delta_bytes": path.stat().st_size,
        }
        for each, path in zip(tuned, files, strict=True)
    ]
    if as_json:
        print(json.dumps(rows, indent=1))
        return rows
    table = Table(box=None, pad_edge=False)
    table.add_column("subset")
    rates = sorted({trial.lr for each in tuned for trial in each.trials})
    for name in ("trained", *(f"lr {rate:g}" for rate in rates), "test accuracy", "delta bytes"):
        table.add_column(name, justify="right")
    table.add_column("run")
    for row, each in zip(rows, tuned, strict=True):
        found = [
            ("failed" if trial.accuracy is None else percent(trial.accuracy))
            + "*" * (trial == each.best)
            for trial in each.trials
        ]
        sizes = f"{row['trained']:,}", f"{row['delta_bytes']:,}"
        table.add_row(
            each.subset, sizes[0], *found, percent(row["test_accuracy"]), sizes[1], row["run"]
        )
    make_console(sys.stdout).print(table)
    print("lr: accuracy on held out training images; *: the rate of the run that was tested")
    for each in tuned:
        if each.hint:
            print(f"{each.subset} was best at the {each.hint[:-2]}est rate: add a {each.hint} one")
    return rows


def print_plan(
    specs: Sequence[RunSpec],
    teams: Sequence[Sequence[RunSpec]],
    alone: Mapping[str, str],
    varied: Sequence[str],
    root: Path,
    as_json: bool,
) -> None:
    """Which runs a sweep consists of, what is there of them, and which train in step. alone: of the
    others, by id, why they do not."""
    places = {spec.id: number for number, team in enumerate(teams, start=1) for spec in team}
    rows: list[dict[str, Any]] = [
        {
            "id": spec.id,
            "status": "new" if folder is None else folder.status,
            "team": places.get(spec.id),
            "alone": alone.get(spec.id),
            "spec": spec.to_dict(),
        }
        for spec in specs
        for folder in [find(spec, root)]
    ]
    if as_json:
        print(json.dumps(rows, indent=1))
        return
    table = Table(box=None, pad_edge=False)
    for name in varied:
        table.add_column(name, justify="right")
    for name in ("id", "status", "trains"):
        table.add_column(name)
    for spec, row in zip(specs, rows, strict=True):
        how = "alone" if spec.id in alone else f"in team {row['team']}"
        values = spec_values(spec, varied)
        table.add_row(*values, spec.id, row["status"], how if spec.id in places else "-")
    make_console(sys.stdout).print(table)
    left = len(places)
    parts = [f"{len(team)} in team {places[team[0].id]}" for team in teams if len(team) > 1]
    parts += [f"{len(alone)} alone"] * bool(alone)
    told = f"{left} of {counted(len(specs), 'run')} to train"
    print(": ".join([told, *[", ".join(parts)] * (left > 0)]))
    for reason, count in Counter(alone.values()).items():
        print(f"{count} alone: {reason}")


def spec_values(spec: RunSpec, names: Iterable[str]) -> list[str]:
    """Fields of a spec as a reader would write them."""
    values = spec.to_dict()  # leaves out what earlier runs did not have
    return [plain(values.get(name, getattr(spec, name))) for name in names]


def print_runs(folders: list[RunFolder], root: Path, as_json: bool) -> None:
    rows = run_rows(folders)
    if as_json:
        shown = [asdict(row) | {"recipe": json.loads(row.recipe)} for row in rows]
        print(json.dumps(shown, indent=1))
        return
    if not rows:
        print(no_runs(root))
        return
    table, refused = Table(box=None, pad_edge=False), _refused(folders)
    for name in ("id", "status", "model", "subset", "data", "seed", "epochs", "accuracy"):
        table.add_column(
            name, justify="right" if name in ("seed", "epochs", "accuracy") else "left"
        )
    table.add_column("chosen", overflow="fold")
    for folder, row in zip(folders, rows, strict=True):
        table.add_row(
            row.id,
            row.status,
            row.model,
            row.trainable,
            row.data,
            str(row.seed) if row.model else "",
            f"{row.epochs_done}/{row.epochs or '?'}",
            percent(row.test_accuracy),
            "" if row.status == DAMAGED or row.id in refused else _chosen(folder),
        )
    make_console(sys.stdout).print(table)
    for row in rows:
        if row.error:
            print(f"{row.id} {row.status}: {row.error}")
        if row.id in refused:
            print(f"{row.id}: {root / row.id / 'spec.json'}: {refused[row.id]}")


def _refused(folders: Sequence[RunFolder]) -> dict[str, InputError]:
    """Runs of which spec.json is a JSON object and no spec: edited, or of another version."""
    found = {}
    for folder in folders:
        try:
            RunSpec.from_dict(folder.spec)
        except InputError as error:
            found[folder.id] = error
    return found


def _chosen(folder: RunFolder) -> str:
    """What a run's spec has in place of the defaults, but for what has a column of its own."""
    chosen = RunSpec.from_dict(folder.spec).chosen()
    own = ("model", "trainable", "data", "seed", "epochs")
    return ", ".join(f"{key}={plain(each)}" for key, each in chosen.items() if key not in own)


def run_dict(folder: RunFolder, tensors: bool = False) -> dict[str, Any]:
    """Everything a run holds but its checkpoint, as JSON values: what results/ keeps of it.

    tensors: with the verdict on every tensor.
    """
    return {
        "id": folder.id,
        "status": folder.status,
        "spec": folder.spec,
        "inputs": {k: v for k, v in folder.inputs.items() if tensors or k != "tensors"},
        "environment": folder.env,
        "result": folder.result,
        "metrics": folder.metrics(),
    }


def print_run(folder: RunFolder, tensors: bool = False) -> None:
    """A run at a glance: what was chosen, how it ended, what trained (tensors: each of them)."""
    run = load_run(folder.path)
    spec, result, rows = run.spec, run.result or {}, folder.inputs["tensors"]
    done = f"{folder.epochs_done} of {counted(spec.epochs, 'epoch')}"
    print(f"run {run.id}: {folder.status}, {done}")
    chosen = {"model": spec.model, "trainable": spec.trainable, "data": spec.data} | spec.chosen()
    print("\nspec (the rest is at its default; --json has all of it)")
    _print_pairs({name: plain(value) for name, value in chosen.items()})
    if result:
        print("\nresult")
        failure = {"error": " ".join(result.get("error", "").split())}
        _print_pairs(_result_pairs(run) if result["status"] == "ok" else failure)
    print()
    make_console(sys.stdout).print(tensor_table(rows) if tensors else subset_table(_verdicts(rows)))


def _verdicts(rows: list[dict[str, Any]]) -> list[Verdict]:
    """The verdicts that inputs.json keeps."""
    return [
        Verdict(
            name=row["name"],
            role=row["role"],
            shape=tuple(row["shape"]),
            size=math.prod(row["shape"]),
            trained=row["trained"],
            verdict=row["verdict"],
        )
        for row in rows
    ]


def tensor_table(tensors: list[dict[str, Any]]) -> Table:
    """A line for every tensor of inputs.json."""
    table = Table(box=None, pad_edge=False)
    for name in ("tensor", "role", "shape", "trained", "verdict"):
        table.add_column(name, justify="right" if name == "trained" else "left")
    for tensor in tensors:
        shape = "x".join(map(str, tensor["shape"]))
        trained = f"{tensor['trained']:,}"
        table.add_row(tensor["name"], tensor["role"], shape, trained, tensor["verdict"])
    return table


def print_models(as_json: bool) -> None:
    rows = [model_row(name) for name in PAPER_NETWORKS]
    if as_json:
        print(json.dumps(rows, indent=1))
        return
    table = Table(box=None, pad_edge=False)
    table.add_column("network")
    for name in (
        "parameters",
        "BatchNorm",
        "of it on shortcuts",
        "output",
        "shortcut",
        "BatchNorm %",
    ):
        table.add_column(name, justify="right")
    for row in rows:
        numbers = [row[key] for key in ("total", "bn", "shortcut_bn", "output", "shortcut")]
        share = f"{row['bn'] / row['total']:.2%}"
        table.add_row(row["name"], *(f"{number:,}" for number in numbers), share)
    make_console(sys.stdout).print(table)


def make_console(stream: TextIO) -> Console:
    """User text is never markup. Where there is no terminal, lines must not be folded at 80."""
    width = None if stream.isatty() else 200
    return Console(file=stream, highlight=False, markup=False, emoji=False, width=width)


def percent(share: float | None) -> str:
    return "-" if share is None else f"{in_percent(share, 2)}%"


def duration(seconds: float) -> str:
    """'8 s', '3 min 20 s', '2 h 05 min', '12 days', '4.1 years'."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    days = seconds / 86400
    if days < 3:
        return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"
    return f"{days:.0f} days" if days < 730 else f"{days / 365.25:,.1f} years"
