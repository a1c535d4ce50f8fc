"""Everything that waits for a GPU, in one command that stops in time and can be continued.

    python benchmarks/gpu.py --data-dir DIR --runs RUNS --out results/gpu.json [--limit 540]

In this order: check that every engine computes there what eager computes on the CPU; time steps,
and members; train the paper-scale runs that RUNS does not hold yet, going on from the checkpoints
it holds (kilobytes). The JSON is written after every piece, and what it holds is left alone unless
it is told --again; what fails is written to it with its message, and the rest goes on. `--parts`
picks parts; `--device cpu --limit 60 --smoke` tries the script itself.
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from gammabeta import GammabetaError, InputError, RunSpec, bench, create_model, select, train
from gammabeta.bench.members import KINDS, measure_members
from gammabeta.data import load_dataset
from gammabeta.data.augment import epoch_plan
from gammabeta.engine import ENGINES, Engine, choose_device, choose_engine
from gammabeta.environment import environment
from gammabeta.models import architecture
from gammabeta.train import Epoch, Step

PARTS = ("check", "steps", "members", "runs")
# What is timed, most wanted first, and with which of the contenders that compile: a deep network
# compiles for many minutes.
STEPS = [
    ("cifar_resnet_14", "bn", ("torch-compile", "torch-compile-max")),
    ("cifar_resnet_866", "bn", ()),
    ("cifar_resnet_110", "bn", ("torch-compile",)),
    ("imagenet_resnet_50", "bn", ("torch-compile",)),
    ("cifar_resnet_14", "all", ("torch-compile",)),
    ("cifar_resnet_14", "bn+output", ()),
    ("cifar_resnet_110", "all", ()),
    ("cifar_resnet_110", "bn+output", ()),
    ("imagenet_resnet_50", "all", ()),
    ("imagenet_resnet_50", "bn+output", ()),
    ("cifar_resnet_866", "bn+output", ()),
    ("cifar_resnet_866", "all", ()),
]
SUBSETS = ("bn", "bn+output", "gamma", "random:2", "all")  # that are checked
MEMBERS = ["cifar_resnet_14", "cifar_resnet_110"]
# What waits, most wanted first: the paper's recipe, precision as its code's fp16 option.
PAPER = [
    RunSpec(model=f"cifar_resnet_{network}", trainable=subset, seed=seed, precision="bf16")
    for seeds, networks, subset in (
        (range(1), ("14", "110", "866"), "bn"),  # whose times are asked for
        (range(5), ("14", "32", "56", "110"), "bn"),
        (range(3), ("14_32", "14_64", "14_128"), "bn"),
        (range(1), ("218", "434"), "bn"),
        (range(5), ("14", "110"), "random:2"),
        (range(5), ("14", "110"), "bn+shortcut+output"),
        (range(5), ("14", "110"), "all"),
        (range(1, 3), ("218", "434", "866"), "bn"),
    )
    for network in networks
    for seed in seeds
]
SMOKE = [RunSpec(model="cifar_resnet_8_4", data="synthetic", epochs=2, subsample=256)]
# How far from the judge: the first losses, and how what trains changed in a step, as a whole.
TOLERANCE = {"fp32": (1e-3, 0.03), "bf16": (3e-2, 0.3)}


def message(error: Exception) -> str:
    lines = str(error).strip().splitlines() or ["no message"]
    return f"{type(error).__name__}: {lines[0]}"[:500]


def make_engine(name: str, spec: RunSpec, device: torch.device) -> Engine:
    data = load_dataset("synthetic")
    model = create_model(spec.model, seed=spec.seed)
    engine_class, _ = choose_engine(name, spec, model, device)
    subset = select(model, spec.trainable, seed=spec.seed)
    return engine_class(model, subset, spec, data, device)


def take_steps(engine: Engine) -> tuple[dict[str, Any], list[float]]:
    """Two epochs of three steps, the second at half the rate. State after one step, the losses."""
    spec, count, losses = engine.spec, len(engine.data.train.labels), []
    for epoch, factor in enumerate((1.0, 0.5)):
        plan = epoch_plan(0, epoch, count, crop_padding=spec.crop_padding, flip=spec.flip)
        engine.begin_epoch(plan)
        for start in range(0, 3 * spec.batch_size, spec.batch_size):
            engine.step(start, start + spec.batch_size, factor)
            if epoch == start == 0:
                state = engine.state()
        losses.append(engine.totals()[0])
    return state, losses


def check(device: torch.device, subsets: Sequence[str] = SUBSETS) -> list[dict[str, Any]]:
    """Every engine on the device against eager on the CPU in fp32: what the first step changes, and
    the losses of two epochs of three steps, in which CUDA graphs are captured and replayed."""
    rows = []
    for subset in subsets:
        spec = RunSpec(model="cifar_resnet_8", trainable=subset, data="synthetic", batch_size=64)
        judge = make_engine("eager", spec, torch.device("cpu"))
        begun, expected, losses = judge.state(), *take_steps(judge)
        for name in ENGINES:
            for precision, (near, like) in TOLERANCE.items():
                row = {"engine": name, "subset": subset, "precision": precision}
                try:
                    engine = make_engine(name, spec.replace(precision=precision), device)
                    found, mine = take_steps(engine)
                    loss = max(abs(a / b - 1) for a, b in zip(mine, losses, strict=True))
                    change = changed(begun, expected, found)
                    row |= {"loss_off": loss, "change_off": change}
                    rows.append(row | {"good": loss <= near and change <= like})
                except InputError as error:  # it takes no such run
                    rows.append(row | {"good": True, "refused": str(error)})
                except Exception as error:
                    rows.append(row | {"good": False, "error": message(error)})
    return rows


def passed(engine: str, rows: Sequence[dict[str, Any]]) -> bool:
    """Whether an engine computes what it should wherever it computes anything."""
    good = [row["good"] for row in rows if row["engine"] == engine and "refused" not in row]
    return bool(good) and all(good)


def changed(begun: dict[str, Any], expected: dict[str, Any], found: dict[str, Any]) -> float:
    """How far apart two steps went, as a share of the way."""
    names = [name for name in expected if name.startswith("trained/")]
    way = torch.cat([(expected[name] - begun[name]).flatten() for name in names])
    ours = torch.cat([(found[name] - begun[name]).flatten() for name in names])
    return float((ours - way).norm() / way.norm())


def engines_for(spec: RunSpec, good: Sequence[str], device: torch.device) -> list[str]:
    """The engines among `good` that take the run, and eager, for where they fail."""
    found = []
    for name in good:
        try:
            choose_engine(name, spec, architecture(spec.model), device)
            found.append(name)
        except InputError:
            continue
    return [*found, "eager"]


def train_until(
    specs: list[RunSpec], good: Sequence[str], deadline: float, options: argparse.Namespace
) -> list[dict[str, Any]]:
    """Train what is missing until the deadline; the run under way stops and can be resumed."""

    def listen(event: object) -> None:
        if isinstance(event, Step | Epoch) and time.monotonic() > deadline:
            raise KeyboardInterrupt

    rows: list[dict[str, Any]] = []
    for spec in specs:
        for name in engines_for(spec, good, choose_device(options.device)):
            if time.monotonic() > deadline:
                return rows
            data_dir = options.data_dir if spec.data.startswith("cifar") else None
            row: dict[str, Any] = {"id": spec.id, "model": spec.model, "trainable": spec.trainable}
            row |= {"seed": spec.seed, "engine": name}
            rows.append(row)
            try:
                run = train(
                    spec, options.runs,
                    data_dir=data_dir, engine=name, device=options.device, listen=listen,
                )  # fmt: skip
                row |= {"status": "ok", "test_accuracy": run.accuracy}
                row |= {"seconds": run.metrics[-1]["seconds"], "epochs": len(run.metrics)}
                break
            except KeyboardInterrupt:
                row |= {"status": "stopped in time"}
                return rows
            except InputError as error:  # the same for every other run: no data, say
                row |= {"status": f"refused: {error}"}
                return rows
            except GammabetaError as error:  # the run itself: another engine would not help
                row |= {"status": f"failed: {error}"}
                break
            except Exception as error:
                row |= {"status": f"failed: {message(error)}"}
    return rows


class Report:
    """The JSON: what it holds, and when it was measured."""

    def __init__(self, path: Path, device: torch.device, again: bool) -> None:
        self.path, self.device, self.again = path, device, again
        self.values: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}

    def write(self) -> None:
        part = self.path.with_suffix(".part")
        part.write_text(json.dumps(self.values, indent=1) + "\n")
        part.replace(self.path)

    def add(self, part: str, piece: str, work: Callable[[], Any]) -> None:
        """Do one piece of a part and write what came of it, or what its error said."""
        pieces = self.values.setdefault(part, {})
        if not self.again and "result" in pieces.get(piece, {}):
            return
        print(f"{part}: {piece}", flush=True)
        started = time.monotonic()
        try:
            found: dict[str, Any] = {"result": work()}
        except Exception as error:
            found = {"error": message(error)}
        found["seconds"] = round(time.monotonic() - started, 1)
        pieces[piece] = found | {"environment": environment(self.device)}
        self.write()


def timed(
    model: str, subset: str, compiled: tuple[str, ...], deadline: float, options: argparse.Namespace
) -> dict[str, Any]:
    batch = 16 if options.smoke else options.imagenet_batch if "imagenet" in model else None
    case = bench.make_case(model, subset, batch, choose_device(options.device))
    slow = {"torch-compile", "torch-compile-max"} - set(compiled)
    names = bench.possible(case, without=sorted(slow))
    names.sort(key=lambda name: name in compiled)  # if time runs out, it is theirs
    found = bench.measure(
        case, names, ["fp32", "bf16"], deadline=deadline, say=lambda line: print(" ", line)
    )
    return enough(found, found["rows"])


def enough(result: Any, rows: list[dict[str, Any]]) -> Any:
    """The result, if there was time for enough repeats."""
    repeats = max(row["repeats"] for row in rows)
    if repeats < bench.FEWEST:
        raise TimeoutError(f"{repeats} of {bench.FEWEST} repeats before the time was over")
    return result


def team(case: bench.Case, changes: list[dict[str, Any]], deadline: float) -> Any:
    rows = measure_members(case, changes, deadline=deadline)
    return enough(rows, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir")
    parser.add_argument("--runs", default="runs")
    parser.add_argument("--out", type=Path, default=Path("gpu.json"))
    parser.add_argument("--limit", type=float, default=540, help="seconds for all of it")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--parts", default=",".join(PARTS), help=",".join(PARTS))
    parser.add_argument("--models", help="A,B: steps and members of these networks only")
    parser.add_argument("--imagenet-batch", type=int, default=64)
    parser.add_argument("--again", action="store_true", help="measure what is there, too")
    parser.add_argument("--smoke", action="store_true", help="tiny: to try the script itself")
    options = parser.parse_args()
    parts = options.parts.split(",")
    if set(parts) - set(PARTS):
        raise SystemExit(f"--parts is {options.parts}: write some of {','.join(PARTS)}")
    deadline = time.monotonic() + options.limit
    device = choose_device(options.device)
    report = Report(options.out, device, options.again)
    steps, members = STEPS, MEMBERS
    if options.smoke:
        steps, members = [("cifar_resnet_8", "bn", ())], ["cifar_resnet_8"]
    if options.models is not None:
        only = options.models.split(",")
        steps = [each for each in steps if each[0] in only]
        members = [each for each in members if each in only]

    def until(share: float, part: str) -> float:
        """When a part must end, so that those behind it have time too."""
        last = part == parts[-1]
        return deadline if last else time.monotonic() + share * (deadline - time.monotonic())

    if "check" in parts or "runs" in parts:  # what trains is chosen by it
        tf32, torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.allow_tf32, False
        report.add("check", "engines", lambda: check(device))
        torch.backends.cudnn.allow_tf32 = tf32
    if "steps" in parts:
        end = until(0.6, "steps")
        for model, subset, compiled in steps:
            if time.monotonic() < end:
                report.add(
                    "steps", f"{model}, {subset}",
                    lambda each=(model, subset, compiled): timed(*each, end, options),
                )  # fmt: skip
    if "members" in parts:
        end = until(0.5, "members")
        for model in members:
            case = bench.make_case(model, "bn", 16 if options.smoke else None, device)
            for kind, changes in KINDS.items():
                for precision in ("bf16", "fp32"):
                    each = replace(case, precision=precision)
                    if time.monotonic() < end:
                        report.add(
                            "members", f"{model}, {kind}, {precision}",
                            lambda each=each, changes=changes: team(each, changes, end),
                        )  # fmt: skip
    if "runs" in parts:
        rows = report.values["check"]["engines"].get("result", [])
        good = [name for name in ("fused", "lean") if passed(name, rows)]
        report.again = True  # what is trained already costs nothing
        specs = SMOKE if options.smoke else PAPER
        report.add("runs", "paper", lambda: train_until(specs, good, deadline, options))
    print(json.dumps({part: list(report.values.get(part, {})) for part in PARTS}))
    if any(not row["good"] for row in report.values.get("check", {}).get("engines", {})
           .get("result", [])):  # fmt: skip
        raise SystemExit(f"the device computes something else than the CPU: see {options.out}")


if __name__ == "__main__":
    main()
