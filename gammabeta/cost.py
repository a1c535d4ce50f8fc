"""How long runs will take on this machine, from steps that it has measured.

Best is what a run like it took: of the same network, subset, precision and batch, on this hardware,
read from the store; runs of a few steps say nothing about it, nor do those that shared their time,
as several processes or as a team that trains in step. Else one step of the family's smallest
network is timed, with the spec's own batch and a subset that needs the same gradients, and scaled
by operations. That takes a second or two for each, so these times can be kept (step_times.py); an
estimate says how old they are, and how busy the machine was.
"""

import functools
import json
import math
import statistics
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from gammabeta import step_times
from gammabeta.build import make_network
from gammabeta.data import load_dataset
from gammabeta.engine import choose_engine
from gammabeta.environment import hardware
from gammabeta.errors import RunError
from gammabeta.models import architecture
from gammabeta.names import parse_name
from gammabeta.spec import RunSpec
from gammabeta.step_times import StepTime
from gammabeta.store import RunFolder
from gammabeta.subset import Verdict, select
from gammabeta.train import seconds_per_step

_SMALLEST = {
    "cifar_resnet": "cifar_resnet_14", "cifar_vgg": "cifar_vgg_11",
    "imagenet_resnet": "imagenet_resnet_18", "report_resnet20": "report_resnet20",
}  # fmt: skip
_FORWARD = {"none": 1, "output": 1, "bn": 1 / 2, "random:2": 1 / 3, "all": 1 / 3}  # of a step
_LARGEST_BATCH = 128  # that is timed: three steps of larger ones take too long
# Steps of a run that is to tell how long one takes: if the first is five times as long as the
# others (a cold process), the mean over 50 is less than a tenth too long. A smoke run has four.
_FEWEST_STEPS = 50
_IMAGES = {  # training and test images as published, height
    "cifar10": (50_000, 10_000, 32), "cifar100": (50_000, 10_000, 32), "digits": (4_000, 1_000, 32),
    "synthetic": (2_048, 512, 32), "imagenet": (1_281_167, 50_000, 224),
}  # fmt: skip


@dataclass(frozen=True)
class Estimate:
    """seconds: of the runs that are left and of measurements; measured: how many of these runs from
    a run like it; timed: in seconds since 1970, when the oldest step was timed that an earlier call
    had kept; None: all were timed by this one. load: the largest at which a step was timed, see
    `step_times.load`; 0 without any."""

    seconds: float
    runs: int
    measured: int
    timed: float | None = None
    load: float = 0.0


class Costs:
    """Estimates for one engine and device; `folders` are the runs that are there. images: training
    and test images of imagenet, by its name, where that is known; else it is read from the newest
    run on imagenet, and without one taken as published. say: called with a line before a step is
    timed. keep: steps that are timed are kept for later calls, and those of earlier ones taken."""

    def __init__(
        self, folders: Iterable[RunFolder], engine: str = "auto", *, device: torch.device,
        images: Mapping[str, tuple[int, int]] | None = None,
        say: Callable[[str], None] = lambda line: None, keep: bool = False,
    ) -> None:  # fmt: skip
        folders = list(folders)
        published = {name: each[:2] for name, each in _IMAGES.items()}
        self.images = published | _images_of(folders) | dict(images or {})
        self.engine, self.device, self.say, self.keep = engine, device, say, keep
        self.hardware = hardware(device)
        found: dict[str, list[float]] = {}
        for folder in folders:
            if (seconds := self._seconds_of(folder)) is not None:
                found.setdefault(_like(folder.spec), []).append(seconds)
        # one of them may have been slow, beside something else
        self.known = {like: statistics.median(each) for like, each in found.items()}
        self.begun = {folder.id: folder.epochs_done for folder in folders}
        self.steps: dict[RunSpec, StepTime] = {}  # of the smallest networks
        self.load = step_times.load()  # before our own steps are part of it

    def estimate(
        self, specs: Sequence[RunSpec], evaluations: Sequence[tuple[RunSpec, int]] = ()
    ) -> Estimate:
        """Of all these runs, one after another, from the epochs that they have behind them, and of
        so many evaluations of the test images on runs."""
        seconds, measured = 0.0, 0
        used: list[StepTime] = []
        for spec in specs:
            step = self._seconds(spec)
            measured += _like(spec.to_dict()) in self.known
            used.append(step)
            images = self.images[spec.data]
            whole = _steps(spec, images[0]) * step.seconds * (1 + _evaluation(spec, *images))
            seconds += whole * (1 - self.begun.get(spec.id, 0) / spec.epochs)
        for spec, count in evaluations:
            step = self._seconds(spec) if count else StepTime(0.0)
            used.append(step)
            images = self.images[spec.data]
            epoch = _steps(spec, images[0]) / spec.epochs * step.seconds
            seconds += count * epoch * _evaluation(spec, *images)
        timed = min((each.when for each in used if each.when is not None), default=None)
        busiest = max((each.load for each in used), default=0.0)
        return Estimate(seconds, len(specs), measured, timed, busiest)

    def _seconds(self, spec: RunSpec) -> StepTime:
        """Of a step, as a run like it has told, else scaled."""
        known = self.known.get(_like(spec.to_dict()))
        return self._scaled(spec) if known is None else StepTime(known)

    def _seconds_of(self, folder: RunFolder) -> float | None:
        """Of one step of a finished run on this hardware."""
        result = folder.result or {}
        try:
            sessions = folder.env["sessions"]
            last = folder.metrics()[-1]["step"] if result.get("status") == "ok" else 0
            here = all(self._is_alike(each) for each in sessions)
            return float(result["seconds"] / last) if last >= _FEWEST_STEPS and here else None
        except (RunError, LookupError, TypeError):
            return None

    def _is_alike(self, session: dict[str, Any]) -> bool:
        """The same hardware and number of threads, the engine that is asked for, and one run in one
        process: the seconds of a team's member are its share."""
        threads = session.get("threads", torch.get_num_threads())
        return (
            session.get("hardware") == self.hardware
            and (threads == torch.get_num_threads() or self.device.type != "cpu")
            and self.engine in ("auto", session.get("engine"))
            and session.get("processes", 1) == session.get("members", 1) == 1
        )

    def _scaled(self, spec: RunSpec) -> StepTime:
        """Of a step, and how the step was timed that it is scaled from."""
        family = parse_name(spec.model).family
        small = RunSpec(
            model=_SMALLEST[family], trainable=_stand_in(family, spec.trainable),
            data="synthetic", precision=spec.precision, optimizer=spec.optimizer,
            batch_size=min(spec.batch_size, _LARGEST_BATCH),
        )  # fmt: skip
        if small not in self.steps:
            self.steps[small] = self._step(small)
        timed = self.steps[small]
        per_image = timed.seconds / small.batch_size
        there = operations(small.model, small.trainable, 32)
        here = operations(spec.model, small.trainable, spec.image_size or _IMAGES[spec.data][2])
        return replace(timed, seconds=per_image * spec.batch_size * here / there)

    def _step(self, spec: RunSpec) -> StepTime:
        key = step_times.step_key(spec, self.engine, self.device) if self.keep else {}
        if self.keep and (kept := step_times.find(key)) is not None:
            return kept
        self.say(f"timing a step of {spec.model}, {spec.trainable}, {spec.precision} ...")
        seconds = self._measure(spec)
        if self.keep:
            step_times.keep(key, seconds, self.load)
        return StepTime(seconds, self.load)

    def _measure(self, spec: RunSpec) -> float:
        data = load_dataset("synthetic")
        model, subset = make_network(spec, data.num_classes)
        engine = choose_engine(self.engine, spec, model, self.device)[0]
        return seconds_per_step([engine(model, subset, spec, data, self.device)], spec)


@functools.cache
def _stand_in(family: str, trainable: str) -> str:
    """A subset that needs the gradients which this one needs, in the family's smallest network."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a K beyond the filters: said when it trains
        return _needs(select(architecture(_SMALLEST[family]), trainable).trained.values())


def _needs(trained: Iterable[Verdict]) -> str:
    """The subset that needs the same gradients: of whole weights ("all"), of some entries of them
    ("random:2"), of inputs alone ("bn"), of the last layer ("output"), or none."""
    roles: dict[str, set[str]] = {}
    for row in trained:
        roles.setdefault(row.role, set()).add(row.verdict)
    if "conv" in roles:
        return "all" if "trained" in roles["conv"] else "random:2"
    if {"gamma", "beta", "bias", "shortcut"} & roles.keys():
        return "bn"
    return "output" if roles else "none"


def _like(spec: dict[str, object]) -> str:
    """What the time of a step follows from."""
    names = ("model", "trainable", "precision", "batch_size", "optimizer", "data", "image_size")
    return json.dumps([spec.get(name) for name in names])


def _images_of(folders: Sequence[RunFolder]) -> dict[str, tuple[int, int]]:
    """(training, test) images of imagenet, which is whatever lies in a folder: those of the newest
    run that saw all of them. Other data sets have what they have."""
    found = {}
    for folder in folders:
        spec = folder.spec
        part = any(spec.get(name) for name in ("subsample", "test_subsample", "validation"))
        if spec.get("data") != "imagenet" or part:
            continue
        try:
            data = folder.inputs["data"]
            counts = data["train"], data["test"]
        except (RunError, LookupError):
            continue
        if all(type(each) is int and each > 0 for each in counts):
            found["imagenet"] = counts
    return found


def _steps(spec: RunSpec, train: int) -> int:
    count = min(train, spec.subsample or math.inf)
    return spec.epochs * math.ceil(count / spec.batch_size)


def forward_share(trained: Iterable[Verdict]) -> float:
    """Evaluation of an image as a share of a training step of it: forward only, which is the whole
    step where nothing trains, half of it where inputs have gradients, a third where weights have,
    too. trained: `Subset.trained.values()`."""
    return _FORWARD[_needs(trained)]


def _evaluation(spec: RunSpec, train: int, test: int) -> float:
    """Evaluation as a share of training an epoch."""
    test = min(test, spec.test_subsample or test)
    forward = _FORWARD[_stand_in(parse_name(spec.model).family, spec.trainable)]
    return forward * test / min(train, spec.subsample or train)


@functools.cache
def operations(model: str, trainable: str, height: int) -> float:
    """Multiplications and additions of a training step, of one image of height x height: every
    convolution and linear layer forward, the gradient of its input where something before it
    trains, and of its weight where that trains."""
    network, layers = _forward(model, height)
    trained = select(network, trainable).trained
    total, below = 0.0, False
    for name, count in layers:
        own = f"{name}.weight" in trained
        total += count * (1 + below + own)
        below = below or own or f"{name}.bias" in trained
    return total


@functools.cache  # subsets share it, and deep networks take a second
def _forward(model: str, height: int) -> tuple[nn.Module, list[tuple[str, int]]]:
    """A network, and its layers in the order in which an image passes them: name and operations."""
    network = architecture(model)
    names = {module: name for name, module in network.named_modules()}
    layers: list[tuple[str, int]] = []

    def see(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        count = 0
        if isinstance(module, nn.Conv2d | nn.Linear):
            count = 2 * module.weight[0].numel() * output[0].numel()
        layers.append((names[module], count))

    for module in network.modules():
        module.register_forward_hook(see)
    with torch.no_grad(), _Shapes():
        network.eval()(torch.empty(1, 3, height, height, device="meta"))
    return network, layers


class _Shapes(TorchFunctionMode):
    """Leaves out what changes no shape: without data torch does it slowly, and for ReLU it imports
    its compiler, a second."""

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if function in (functional.relu, functional.batch_norm, Tensor.add):
            return args[0]
        if function is functional.adaptive_avg_pool2d:
            return args[0].new_empty(*args[0].shape[:2], args[1], args[1])
        if function is functional.linear:
            return args[0].new_empty(*args[0].shape[:-1], len(args[1]))
        return function(*args, **(kwargs or {}))
