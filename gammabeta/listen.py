"""Listeners for `train`: what is said while it works, all of it on stderr.

`TrainDisplay` is the command line's: a bar on a terminal, plain lines elsewhere. `progress` is for
Python.
"""

import sys
import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from gammabeta.display import counted, duration, make_console, percent, subset_table
from gammabeta.run import Event, Start
from gammabeta.train import Epoch, Step

PLAIN_SECONDS = 30  # between two lines of progress where there is no terminal


class TrainDisplay:
    """Listens to training and shows it on stderr; use it as a context manager.

    labels: of several runs that follow each other under one bar; call `next_run` before each.
    """

    def __init__(self, labels: tuple[str, ...] = ()) -> None:
        self.console = make_console(sys.stderr)
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
        print_notes(self.console, event)
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


def progress(event: Event) -> None:
    """Say what begins and how each epoch ended: `train(spec, listen=gammabeta.progress)`.

    No bar: after an error or Ctrl-C nobody would take it away.
    """
    console = make_console(sys.stderr)
    if isinstance(event, Start):
        print_start(console, event)
        print_notes(console, event)
    elif isinstance(event, Epoch):
        record = event.record
        train, test = percent(record["train_accuracy"]), percent(record["test_accuracy"])
        seconds = duration(record["seconds"] + record["evaluation_seconds"])
        console.print(f"epoch {record['epoch']}: train {train}, test {test}, {seconds}")


def print_notes(console: Console, event: Start) -> None:
    for note in event.notes:
        console.print(f"note: {note}")


def print_start(console: Console, event: Start) -> None:
    """What trains, what is frozen, what only drifts, and how long it will take."""
    spec, data = event.run.spec, event.data
    count = len(data.train.labels)
    console.print(f"run {event.run.id}: {spec.model}, training {spec.trainable}, on {data.name}")
    used = "" if spec.subsample is None else f"; the first {count:,} are trained on"
    console.print(f"data: {data.source}{used}")
    console.print(subset_table(event.subset.table))
    steps = -(-count // spec.batch_size)
    # Evaluation is forward only: about a third of a training step for as many images.
    evaluation = len(data.test.labels) / count / 3
    epochs = spec.epochs - event.epoch
    seconds = event.step_seconds * steps * (1 + evaluation) * epochs
    console.print(
        f"{event.engine} engine ({event.why}) on {event.device}, {spec.precision}: "
        f"{event.step_seconds * 1000:.0f} ms a step, {counted(steps, 'step')} an epoch, "
        f"{counted(epochs, 'epoch')}: about {duration(seconds)}"
    )
