"""What the command line prints: tables, a progress bar on a terminal, plain lines elsewhere.

Results go to stdout, everything that only accompanies the work to stderr.
"""

import json
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from gammabeta.analysis import run_rows
from gammabeta.models import architecture
from gammabeta.names import PAPER_NETWORKS
from gammabeta.paper import published_accuracy
from gammabeta.roles import roles
from gammabeta.run import Event, Run, Start
from gammabeta.store import RunFolder
from gammabeta.subset import Subset, Verdict
from gammabeta.train import Step

PLAIN_SECONDS = 30  # between two lines of progress where there is no terminal


class TrainDisplay:
    """Listens to training and shows it on stderr; use it as a context manager.

    labels: of several runs that follow each other under one bar; call `next_run` before each.
    """

    def __init__(self, labels: tuple[str, ...] = ()) -> None:
        self.console = _console(sys.stderr)
        self.labels = labels
        self.index = -1 if labels else 0
        self.bar: Progress | None = None
        self.record: dict[str, Any] = {}
        self.began = self.printed = time.perf_counter()
        self.work_began = False
        self.skipped = 0.0  # share of all the work that was there already

    def __enter__(self) -> "TrainDisplay":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self.bar is not None:
            self.bar.stop()
        if kind is KeyboardInterrupt:
            self.console.print("the same command again goes on from the last whole epoch")

    def next_run(self) -> None:
        self.index += 1
        self.record = {}

    def __call__(self, event: Event) -> None:
        if isinstance(event, Start):
            self._start(event)
        elif isinstance(event, Step):
            self._step(event)
        else:
            self.record = event.record

    def _start(self, event: Start) -> None:
        if not self.labels:
            print_start(self.console, event)
        for note in event.notes:
            self.console.print(f"note: {note}")
        start = (self.index + event.epoch / event.run.spec.epochs) / self._runs
        if not self.work_began:
            self.work_began, self.skipped, self.began = True, start, time.perf_counter()
        if self.console.is_terminal and self.bar is None:
            self.bar = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                TextColumn("{task.percentage:>3.0f}%"),
                TimeRemainingColumn(),
                TextColumn("left"),
                console=self.console,
                transient=True,
            )
            self.bar.start()
            self.bar.add_task("training", total=1.0)
            self.bar.update(TaskID(0), completed=start)

    def _step(self, event: Step) -> None:
        share = (self.index + event.done / event.total) / self._runs
        text = self._text()
        if self.bar is not None:
            self.bar.update(TaskID(0), completed=share, description=text)
            return
        now = time.perf_counter()
        if now - self.printed >= PLAIN_SECONDS and share < 1:
            left = (1 - share) * (now - self.began) / (share - self.skipped)
            self.console.print(f"{text}, {share:.0%} done, {duration(left)} left")
            self.printed = now

    @property
    def _runs(self) -> int:
        return max(1, len(self.labels))

    def _text(self) -> str:
        words = []
        if self.labels:
            words.append(f"{self.index + 1}/{self._runs} {self.labels[self.index]}")
        if self.record:
            words.append(f"epoch {self.record['epoch']}")
            words.append(f"test {percent(self.record['test_accuracy'])}")
        return ", ".join(words) or "training"


def print_start(console: Console, event: Start) -> None:
    """What trains, what is frozen, what only drifts, and how long it will take."""
    spec, data = event.run.spec, event.data
    count = len(data.train.labels)
    console.print(f"run {event.run.id}: {spec.model}, training {spec.trainable}, on {data.name}")
    used = "" if spec.subsample is None else f"; the first {count:,} are trained on"
    console.print(f"data: {data.source}{used}")
    console.print(subset_table(event.subset))
    steps = -(-count // spec.batch_size)
    # Evaluation is forward only: about a third of a training step for as many images.
    evaluation = len(data.test.labels) / count / 3
    seconds = event.step_seconds * steps * (1 + evaluation) * (spec.epochs - event.epoch)
    console.print(
        f"{event.engine} engine on {event.device}, {spec.precision}: "
        f"{event.step_seconds * 1000:.0f} ms a step, {steps} steps an epoch, "
        f"{spec.epochs - event.epoch} epochs: about {duration(seconds)}"
    )


def subset_table(subset: Subset) -> Table:
    """The verdicts by role, with the names of each; `runs show` has a line for every tensor."""
    groups: dict[tuple[str, str], list[Verdict]] = {}
    for row in subset.table:
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
    share = subset.count / subset.total if subset.total else 0.0
    table.add_row("", "", "", f"{subset.total:,}", f"{subset.count:,} ({share:.2%})")
    return table


def result_dict(run: Run) -> dict[str, Any]:
    """The result of a run with its id, spec and subset, as JSON values."""
    return {"id": run.id, **(run.result or {}), "path": str(run.folder.path)} | {
        "subset": run.folder.inputs["subset"],
        "data": run.folder.inputs["data"],
        "spec": run.spec.to_dict(),
    }


def print_result(run: Run) -> None:
    result = run.result or {}
    subset = run.folder.inputs["subset"]
    print(f"run {run.id}: {run.spec.model}, {run.spec.trainable}, {result['epoch']} epochs")
    print(f"  test accuracy   {percent(result['test_accuracy'])}")
    data = run.folder.inputs["data"]
    published = published_accuracy(run.spec)
    if published is not None and (data["train"], data["test"]) == (50_000, 10_000):
        print(f"  the paper says  {published:.1%} (mean of five runs)")
    if "test_top5" in result:
        print(f"  test top-5      {percent(result['test_top5'])}")
    print(f"  test loss       {result['test_loss']:.4f}")
    print(f"  train accuracy  {percent(result['train_accuracy'])}")
    print(f"  trained         {subset['trained']:,} of {subset['total']:,} parameters")
    print(f"  |gamma| < 0.01  {percent(result['small_gammas'])}")
    print(f"  training time   {duration(result['seconds'])}")


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
    _console(sys.stdout).print(table)


def print_runs(folders: list[RunFolder], root: Path, as_json: bool) -> None:
    rows = run_rows(folders)
    if as_json:
        print(json.dumps([asdict(row) for row in rows], indent=1))
        return
    if not rows:
        print(f"there are no runs in the folder {root}")
        return
    table = Table(box=None, pad_edge=False)
    for name in ("id", "status", "model", "subset", "data", "seed", "epochs", "accuracy"):
        table.add_column(
            name, justify="right" if name in ("seed", "epochs", "accuracy") else "left"
        )
    for row in rows:
        table.add_row(
            row.id,
            row.status,
            row.model,
            row.trainable,
            row.data,
            str(row.seed),
            f"{row.epochs_done}/{row.epochs}",
            percent(row.test_accuracy),
        )
    _console(sys.stdout).print(table)
    for row in rows:
        if row.error:
            print(f"{row.id} {row.status}: {row.error}")


def print_run(folder: RunFolder, as_json: bool) -> None:
    """Everything a run holds but its checkpoint; as JSON it is what results/ keeps."""
    shown = {
        "id": folder.id,
        "status": folder.status,
        "spec": folder.spec,
        "inputs": {k: v for k, v in folder.inputs.items() if k != "tensors"},
        "environment": folder.env,
        "result": folder.result,
        "metrics": folder.metrics(),
    }
    if as_json:
        print(json.dumps(shown, indent=1, sort_keys=True))
        return
    print(f"run {folder.id} ({folder.status}), {folder.epochs_done} epochs done")
    print(json.dumps(folder.spec, sort_keys=True))
    if folder.result:
        print(json.dumps(folder.result, sort_keys=True))
    table = Table(box=None, pad_edge=False)
    for name in ("tensor", "role", "shape", "trained", "verdict"):
        table.add_column(name, justify="right" if name == "trained" else "left")
    for tensor in folder.inputs["tensors"]:
        shape = "x".join(map(str, tensor["shape"]))
        trained = f"{tensor['trained']:,}"
        table.add_row(tensor["name"], tensor["role"], shape, trained, tensor["verdict"])
    _console(sys.stdout).print(table)


def model_row(name: str) -> dict[str, Any]:
    """Parameter counts of one network, with the columns of the paper's table of networks."""
    counts = dict.fromkeys(("total", "bn", "shortcut_bn", "output", "shortcut"), 0)
    for role in roles(architecture(name)):
        counts["total"] += role.size
        if role.role in ("gamma", "beta"):
            counts["bn"] += role.size
            counts["shortcut_bn"] += role.size if role.on_shortcut else 0
        elif role.role in ("output", "shortcut"):
            counts[role.role] += role.size
    return {"name": name, **counts}


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
    _console(sys.stdout).print(table)


def _console(stream: TextIO) -> Console:
    """User text is never markup. Where there is no terminal, lines must not be folded at 80."""
    width = None if stream.isatty() else 200
    return Console(file=stream, highlight=False, markup=False, emoji=False, width=width)


def percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.2%}"


def duration(seconds: float) -> str:
    """'8 s', '3 min 20 s', '2 h 05 min'."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"
