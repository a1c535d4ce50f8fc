"""What is said while something works, all of it on stderr.

`TrainDisplay` listens to `train` for the command line: a bar on a terminal, plain lines elsewhere;
`progress` is for Python. `Phases` and `Portions` are for commands that do not train.
"""

import contextlib
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from gammabeta import passes
from gammabeta.analysis import counted
from gammabeta.cost import forward_share
from gammabeta.display import (
    duration,
    make_console,
    percent,
    spec_values,
    subset_table,
)
from gammabeta.fused import direct
from gammabeta.run import Ended, Event, Start
from gammabeta.spec import RunSpec, differing
from gammabeta.store import RunFolder
from gammabeta.train import Epoch, Step

PLAIN_SECONDS = 30  # between two lines of progress where there is no terminal


class TrainDisplay:
    """Listens to training and shows it on stderr; use it as a context manager.

    runs: how many train under one bar. labels: of runs that follow each other without a word at
    the start of each; call `next_run` before each. folders: of runs whose epochs may end out of
    our sight, in other processes.
    """

    def __init__(
        self, runs: int = 1, labels: tuple[str, ...] = (), folders: Sequence[Path] = ()
    ) -> None:
        self.console = make_console(sys.stderr)
        self.labels, self.folders = labels, {*folders}
        self.runs = max(1, runs, len(labels))
        self.behind = -1 if labels else 0  # runs before the team that trains
        self.members = 0  # of that team
        self.shown: Start | None = None  # the last that was printed in full
        self.bar: Progress | None = None
        self.records: list[dict[str, Any]] = []  # of the last epoch, one a member
        self.began = self.printed = time.perf_counter()
        self.work_began = False
        self.has_epochs = False  # is there a checkpoint to go on from
        self.seen: set[str] = set()  # ids of runs whose Start was heard
        self.skipped = 0.0  # share of all the work that was there already

    def __enter__(self) -> "TrainDisplay":
        if self.console.is_terminal and (passes.will_compile() or direct.will_compile()):
            self.console.print("compiling for this processor, once: some seconds")
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with contextlib.suppress(OSError):  # the terminal may be what has gone
            if self.bar is not None:
                self.bar.stop()
            if kind is not None and issubclass(kind, KeyboardInterrupt):
                self.console.print(
                    "the same command again goes on from the last whole epoch"
                    if self.has_epochs
                    or any(RunFolder(each, {}).epochs_done for each in self.folders)
                    else "no epoch had ended: the same command begins again"
                )

    def note(self, text: str) -> None:
        self.console.print(f"note: {text}")

    def next_run(self) -> None:
        self.behind += 1
        self.members, self.records = 0, []

    def __call__(self, event: Event) -> None:
        if isinstance(event, Start):
            self._start(event)
        elif isinstance(event, Step):
            self._step(event)
        elif isinstance(event, Ended):
            self._end(event)
        else:
            if self.records and self.records[0]["epoch"] != event.record["epoch"]:
                self.records = []
            self.records.append(event.record)
            self.has_epochs = True

    def _end(self, event: Ended) -> None:
        """A failure is said at once; a run that ended well, if it began out of our sight."""
        spec = event.spec
        self.has_epochs = True  # its epochs ended out of our sight
        what = f"run {spec.id}, {spec.model}, {spec.trainable}, seed {spec.seed}"
        if event.left_to is not None:
            self.console.print(f"{what}: left to {event.left_to}, which is training it")
        elif event.error is not None:
            self.console.print(f"{what}: failed: {event.error}")
        elif spec.id not in self.seen:
            self.console.print(f"{what}: done")

    def _start(self, event: Start) -> None:
        self.seen.add(event.run.id)
        self.folders.add(event.run.folder.path)
        self.has_epochs = self.has_epochs or event.epoch > 0
        if event.run.spec == event.team[0]:
            self.behind += self.members
            self.members, self.records = event.members, []
        self._say(event)
        start = (self.behind + self.members * event.epoch / event.run.spec.epochs) / self.runs
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

    def _say(self, event: Start) -> None:
        """A run that is like one that was told in full: what is other about it, in one line."""
        first = event.run.spec == event.team[0]
        if self.labels:
            print_notes(self.console, event)
        elif not first:
            print_other(self.console, event, event.team[0])
        elif self.shown is not None and _alike(event, self.shown):
            print_other(self.console, event, self.shown.run.spec)
        else:
            self.shown = event
            print_start(self.console, event)
            print_notes(self.console, event)

    def _step(self, event: Step) -> None:
        share = (self.behind + self.members * event.done / event.total) / self.runs
        text = self._text()
        if self.bar is not None:
            self.bar.update(TaskID(0), completed=share, description=text)
            return
        now = time.perf_counter()
        if now - self.printed >= PLAIN_SECONDS and share < 1:
            left = (1 - share) * (now - self.began) / (share - self.skipped)
            self.console.print(f"{text}, {share:.0%} done, {duration(left)} left")
            self.printed = now

    def _text(self) -> str:
        words = []
        if self.labels:
            words.append(f"{self.behind + 1}/{self.runs} {self.labels[self.behind]}")
        elif self.runs > 1:
            first, last = self.behind + 1, self.behind + self.members
            which = f"run {first}" if first == last else f"runs {first}-{last}"
            words.append(f"{which} of {self.runs}")
        if self.records:
            words.append(f"epoch {self.records[0]['epoch']}")
            accuracies = [record["test_accuracy"] for record in self.records]
            low, high = percent(min(accuracies)), percent(max(accuracies))
            words.append(f"test {low}" if low == high else f"test {low} to {high}")
        return ", ".join(words) or "training"


class Phases:
    """What a command does that works for up to a minute; use it as a context manager, and call it
    with each phase as it begins.

    On a terminal a line a phase, which ends with the time it took. Elsewhere nothing, but after
    PLAIN_SECONDS the phase that begins then.
    """

    def __init__(self) -> None:
        self.console = make_console(sys.stderr)
        self.within = False  # a line that has not ended
        self.began = self.printed = time.perf_counter()

    def __enter__(self) -> "Phases":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._end()
        elif self.within:  # the error has a line of its own
            self.console.print()

    def __call__(self, phase: str) -> None:
        self._end()
        self.began = time.perf_counter()
        if self.console.is_terminal:
            self.console.print(f"{phase} ...", end="")
            self.within = True
        elif self.began - self.printed >= PLAIN_SECONDS:
            self.console.print(f"{phase} ...")
            self.printed = self.began

    def _end(self) -> None:
        if self.within:
            self.console.print(f" {time.perf_counter() - self.began:.1f} s")
            self.within = False


class Portions:
    """Says on stderr what is worked on, and every PLAIN_SECONDS how much of it is done; called with
    both, 0..1, and with 0 at the beginning of each."""

    def __init__(self) -> None:
        self.began = self.printed = time.perf_counter()

    def __call__(self, what: str, share: float) -> None:
        now = time.perf_counter()
        if share == 0:
            print(f"{what} ...", file=sys.stderr)
            self.began = self.printed = now
        elif now - self.printed >= PLAIN_SECONDS and share < 1:
            left = duration((1 - share) * (now - self.began) / share)
            print(f"{what}, {share:.0%} done, {left} left", file=sys.stderr)
            self.printed = now


def progress(event: Event) -> None:
    """Say what begins and how each epoch ended: `train(spec, listen=gammabeta.progress)`.

    No bar: after an error or Ctrl-C nobody would take it away.
    """
    console = make_console(sys.stderr)
    if isinstance(event, Start) and event.run.spec != event.team[0]:
        print_other(console, event, event.team[0])
    elif isinstance(event, Start):
        print_start(console, event)
        print_notes(console, event)
    elif isinstance(event, Epoch):
        record = event.record
        train, test = percent(record["train_accuracy"]), percent(record["test_accuracy"])
        seconds = duration(record["seconds"] + record["evaluation_seconds"])
        whose = "" if event.run is None else f" of {event.run}"
        console.print(f"epoch {record['epoch']}{whose}: train {train}, test {test}, {seconds}")


def print_notes(console: Console, event: Start) -> None:
    for note in event.notes:
        console.print(f"note: {note}")


def print_start(console: Console, event: Start) -> None:
    """What trains, what is frozen, what only drifts, and how long it will take."""
    spec, data = event.run.spec, event.data
    count = len(data.train.labels)
    own = "".join(f", {each}" for each in _values(spec, differing(event.team)))
    console.print(
        f"run {event.run.id}: {spec.model}, training {spec.trainable}, on {data.name}{own}"
    )
    used = "" if spec.subsample is None else f"; the first {count:,} are trained on"
    used += "" if spec.test_subsample is None else f"; tested on the first {spec.test_subsample:,}"
    console.print(f"data: {data.source}{used}")
    console.print(subset_table(event.subset.table))
    milliseconds = event.step_seconds * 1000
    together = ""
    if event.members > 1:
        share = f"{milliseconds / event.members:.3g} ms a run"
        together = f" of all {event.members} in step ({share})"
    console.print(
        f"{event.engine} engine ({event.why}) on {event.device}, {spec.precision}: "
        f"{milliseconds:.0f} ms a step{together}, "
        f"{counted(_steps(event), 'step')} an epoch, "
        f"{counted(spec.epochs - event.epoch, 'epoch')}: about {duration(expected_seconds(event))}"
    )


def print_other(console: Console, event: Start, known: RunSpec) -> None:
    """A run in one line: in what it is unlike `known` or its team, and for the first how long."""
    spec = event.run.spec
    unlike = {*differing((known, spec)), *differing(event.team)}
    told = [
        ", ".join(_values(spec, [name for name in RunSpec.__dataclass_fields__ if name in unlike]))
    ]
    if spec == event.team[0]:
        together = "" if event.members == 1 else f"{event.members} in step, "
        told.append(f"{together}about {duration(expected_seconds(event))}")
    console.print(f"run {event.run.id}: {'; '.join((*told, *event.notes))}")


def _alike(one: Start, other: Start) -> bool:
    """Whether what is trained of which network on what, and how, are the same."""
    now, then = (
        (each.run.spec.model, each.run.spec.trainable, each.run.spec.statistics, each.data.source,
         len(each.data.train.labels), each.engine, each.device)
        for each in (one, other)
    )  # fmt: skip
    return now == then


def _values(spec: RunSpec, names: Sequence[str]) -> list[str]:
    return [f"{name}={value}" for name, value in zip(names, spec_values(spec, names), strict=True)]


def _steps(event: Start) -> int:
    """Steps an epoch."""
    return -(-len(event.data.train.labels) // event.run.spec.batch_size)


def expected_seconds(event: Start) -> float:
    """How long the team's remaining epochs will take."""
    train, test = len(event.data.train.labels), len(event.data.test.labels)
    evaluation = forward_share(event.subset.trained.values()) * test / train
    epochs = event.run.spec.epochs - event.epoch
    return event.step_seconds * _steps(event) * (1 + evaluation) * epochs
