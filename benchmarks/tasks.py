"""Ten tasks on one random network: each class of CIFAR-10 against the rest. What a bank of their
deltas weighs, and what it answers to a batch in which every image has a task of its own.

    python benchmarks/tasks.py --out results/tasks.json --data-dir DIR --deltas FOLDER

Each task trains on all images of its class and as many of the others, so chance is one half, and is
kept as a delta in FOLDER; a delta that is there already is not trained again. They are trained one
after another: members in step see the same images, and balanced tasks have each their own (on a CPU
nothing is lost, see results/members_cpu.json). Then all test images of all tasks are answered
twice: in mixed batches by the bank, and by a network of its own for every task, rebuilt from its
delta. The two take turns, so that a busy machine is busy for both.

Beside it, what the classifier does without gammas and betas: each task again with `output` alone,
on the same images, epochs and rate, kept as a delta too.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gammabeta import Bank, RunSpec, create_model, load_network, rng, save_delta, select
from gammabeta.data import Dataset, Split, load_dataset, make_dataset
from gammabeta.data.augment import normalise
from gammabeta.delta_file import read_delta
from gammabeta.engine import choose_device, choose_engine, fast_precision
from gammabeta.environment import environment
from gammabeta.train import Epoch, train_epochs

CLASSES = {
    "cifar10": ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship",
                "truck"),
    "digits": tuple("0123456789"),
}  # fmt: skip
HEAD = "output"


def one_against_the_rest(data: Dataset, label: int) -> Dataset:
    """All images of a class (label 1) and as many of the others (label 0), drawn at random."""

    def balanced(split: Any, title: str) -> Split:
        own = np.flatnonzero(split.labels == label)
        others = np.flatnonzero(split.labels != label)
        draw = rng.generator(0, f"task.{title}", label)
        rows = np.concatenate([own, draw.choice(others, len(own), replace=False)])
        return Split(split.images[rows], (split.labels[rows] == label).astype(np.int64))

    train, test = balanced(data.train, "train"), balanced(data.test, "test")
    return make_dataset(data.name, train, test, num_classes=2, origin=data.source)


def train(spec: RunSpec, data: Dataset, task: str, path: Path, device: torch.device) -> None:
    """Train one task from the seed's random network and keep its delta; all about it is in it."""
    model = create_model(spec.model, num_classes=2, norm_init=spec.norm_init, seed=spec.seed)
    subset = select(model, spec.trainable, seed=spec.seed)
    engine_class, _ = choose_engine("auto", spec, model, device)
    about = {"task": task, "spec": spec.to_dict(), "data": data.sha256}
    if path.exists() and about.items() <= read_delta(path).info.items():
        return
    session = environment(device) | {"engine": engine_class.name}
    engine = engine_class(model, subset, spec, data, device)
    records = [e.record for e in train_epochs(engine, spec, 0) if isinstance(e, Epoch)]
    engine.close()
    about |= {"seconds": round(sum(record["seconds"] for record in records), 1)}
    about |= {"train_loss": [round(record["train_loss"], 4) for record in records]}
    save_delta(engine.model, subset, path, info={**about, "session": session})
    print(
        f"{task}, {spec.trainable}: {records[-1]['test_accuracy']:.2%}, {about['seconds']} s",
        flush=True,
    )


def head_alone(question: "Question", deltas: dict[str, Path], size: int) -> dict[str, Any]:
    """Task -> what a network of which the classifier alone trained answers, and how it trained."""
    networks = {task: load_network(path) for task, path in deltas.items()}
    in_turn = torch.arange(len(question.tasks))
    way = partial(apart, networks.__getitem__)
    logits, _ = answers(question, {"head": (in_turn, way)}, size)
    right = question.correct(logits["head"])
    return {
        task: {"correct": right[task], "trained": read_delta(path).count} | read_delta(path).info
        for task, path in deltas.items()
    }


def bytes_of(module: nn.Module) -> int:
    return sum(tensor.nbytes for tensor in module.state_dict().values())


def spread(values: list[float], name: str) -> dict[str, float]:
    return {
        f"median_{name}": statistics.median(values), f"low_{name}": min(values),
        f"high_{name}": max(values), "repeats": len(values),
    }  # fmt: skip


class Question:
    """All test images of all tasks, task after task, with what each is asked and the answer."""

    def __init__(self, data: dict[str, Dataset]) -> None:
        self.tasks = [task for task, each in data.items() for _ in each.test.labels]
        self.labels = torch.cat([torch.from_numpy(each.test.labels) for each in data.values()])
        splits: list[Any] = [each.test for each in data.values()]
        self.pixels = torch.cat([torch.from_numpy(split.images) for split in splits])
        first = next(iter(data.values()))
        self.mean, self.std = first.mean, first.std

    def batch(self, rows: Tensor) -> tuple[Tensor, list[str]]:
        """float32 images (B, C, H, W), normalised as in training, and the task of each."""
        images = normalise(self.pixels[rows], self.mean, self.std)
        return images, [self.tasks[row] for row in rows.tolist()]

    def correct(self, logits: Tensor) -> dict[str, float]:
        """Task -> the share of its images whose answer is right. logits: (N, 2)."""
        found: dict[str, list[bool]] = {}
        right = logits.argmax(1) == self.labels
        for task, each in zip(self.tasks, right.tolist(), strict=True):
            found.setdefault(task, []).append(each)
        return {task: statistics.fmean(each) for task, each in found.items()}


Way = Callable[[Tensor, list[str]], Tensor]


def apart(network: Callable[[str], nn.Module], images: Tensor, tasks: list[str]) -> Tensor:
    """Each task's images in one batch, by the network that a name stands for."""
    logits = torch.empty(len(tasks), 2)
    for task in dict.fromkeys(tasks):
        rows = torch.tensor([row for row, each in enumerate(tasks) if each == task])
        logits[rows] = network(task)(images[rows])
    return logits


@torch.no_grad()
def answers(
    question: Question, ways: dict[str, tuple[Tensor, Way]], size: int
) -> tuple[dict[str, Tensor], dict[str, list[float]]]:
    """How -> logits (N, 2) in the question's order; ms of each full batch. ways: how -> (the order
    in which it meets the images, the way)."""
    count = len(question.tasks)
    logits = {how: torch.empty(count, 2) for how in ways}
    times: dict[str, list[float]] = {how: [] for how in ways}
    for order, way in ways.values():  # warms up
        way(*question.batch(order[:size]))
    for start in range(0, count, size):
        for how, (order, way) in ways.items():
            rows = order[start : start + size]
            batch = question.batch(rows)
            begin = time.perf_counter()
            logits[how][rows] = way(*batch)
            if len(rows) == size:
                times[how].append(1e3 * (time.perf_counter() - begin))
    return logits, times


def measure(question: Question, deltas: dict[str, Path], size: int) -> dict[str, Any]:
    """What the bank of these deltas holds, answers and takes."""
    networks = {task: load_network(path) for task, path in deltas.items()}
    recipe = read_delta(deltas[question.tasks[0]]).network
    assert recipe is not None
    bank = Bank(create_model(**recipe))
    bank.module.eval()
    for task, path in deltas.items():
        bank.add(task, path)
    in_turn = torch.arange(len(question.tasks))
    mixed = torch.from_numpy(rng.generator(0, "tasks.mixed").permutation(len(in_turn)))
    logits, times = answers(
        question,
        {
            "mixed": (mixed, lambda images, tasks: bank.forward(images, tasks=tasks)),
            "alone": (in_turn, partial(apart, networks.__getitem__)),
        },
        size,
    )
    switches = []
    for number in range(200):
        begin = time.perf_counter()
        bank.activate(bank.tasks[number % len(bank.tasks)])
        switches.append(1e6 * (time.perf_counter() - begin))
    right = {how: question.correct(each) for how, each in logits.items()}
    off = (logits["mixed"] - logits["alone"]).abs().max() / logits["alone"].abs().max()
    return {
        "images": len(question.tasks),
        "batch": size,
        "times": {how: spread(each, "ms") for how, each in times.items()},
        "activate": spread(switches, "us"),
        "bytes": {
            "deltas": sum(path.stat().st_size for path in deltas.values()),
            "bank": bank.nbytes,
            "network": bytes_of(bank.module),
            "networks": sum(map(bytes_of, networks.values())),
        },
        "other_answers": int((logits["mixed"].argmax(1) != logits["alone"].argmax(1)).sum()),
        "largest_difference": float(off),
        "tasks": [
            {
                "task": task, "correct": {how: each[task] for how, each in right.items()},
                "delta_bytes": deltas[task].stat().st_size,
                **read_delta(deltas[task]).info,
            }
            for task in deltas
        ],
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--deltas", type=Path, required=True, help="a folder, made if need be")
    parser.add_argument("--data", choices=CLASSES, default="cifar10")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--model", default="cifar_resnet_14")
    parser.add_argument("--trainable", default="bn+output")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--tasks", type=int, default=10, help="the first so many classes")
    parser.add_argument("--batch-size", type=int, default=64, help="of training")
    parser.add_argument("--mixed", type=int, default=100, help="images in a mixed batch")
    options = parser.parse_args()
    device = choose_device("cpu")
    result: dict[str, Any] = {"environment": environment(device)}
    whole = load_dataset(options.data, options.data_dir)
    result["data"] = {"name": whole.name, "source": whole.source, "sha256": whole.sha256}
    names = CLASSES[options.data][: options.tasks]
    data = {name: one_against_the_rest(whole, label) for label, name in enumerate(names)}
    options.deltas.mkdir(parents=True, exist_ok=True)
    spec = RunSpec(
        model=options.model, trainable=options.trainable, data=options.data, epochs=options.epochs,
        batch_size=options.batch_size, precision=fast_precision(device),
    )  # fmt: skip
    deltas = {name: options.deltas / f"{name}.{options.trainable}.delta" for name in names}
    heads = {name: options.deltas / f"{name}.{HEAD}.delta" for name in names}
    for name in names:
        train(spec, data[name], name, deltas[name], device)
        train(spec.replace(trainable=HEAD), data[name], name, heads[name], device)
    question = Question(data)
    result |= measure(question, deltas, options.mixed)
    found = head_alone(question, heads, options.mixed)
    for row in result["tasks"]:
        row["head"] = found[row["task"]]
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    for row in result["tasks"]:
        shares = row["correct"] | {"head alone": row["head"]["correct"]}
        print(row["task"], *(f"{how} {each:.2%}" for how, each in shares.items()))
    if result["largest_difference"] > 1e-5 or result["other_answers"]:
        raise SystemExit(f"the bank answers otherwise than each task alone: see {options.out}")


if __name__ == "__main__":
    main()
