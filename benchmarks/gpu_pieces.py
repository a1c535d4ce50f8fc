"""One piece of what gpu.py does, in a process of its own: a check, times, or trainings.

    python benchmarks/gpu_pieces.py PIECE.json ANSWER.json      gpu.py starts these

The answer is written as the work goes on, so that a process that hangs leaves what it had.
"""

# ruff: noqa: E402  (the root comes first)

import functools
import importlib.metadata
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

import torch
from torch import Tensor

from gammabeta import GammabetaError, InputError, RunSpec, bench, create_model, select, train
from gammabeta.bench.members import KINDS, measure_members
from gammabeta.bench.rounds import exact_convolutions
from gammabeta.data import Dataset, load_dataset
from gammabeta.data.augment import epoch_plan
from gammabeta.engine import Engine, choose_device, choose_engine
from gammabeta.engine.fused import make_members
from gammabeta.environment import environment
from gammabeta.models import architecture
from gammabeta.train import Epoch, Step

# How far from the judge: losses; how what trains changed in a step, the whole and the worst tensor.
# One without its gradient is off by 1, which in a whole of many is less than what bf16 is allowed.
TOLERANCE = {"fp32": (1e-3, 0.03, 0.1), "bf16": (3e-2, 0.3, 0.7)}
FACTORS = (1.0, 0.5, 0.25, 0.25, 0.5, 0.25)  # of the rate, an epoch each
LOADED = 4  # epochs before all engines are put back to the judge's first step, to go on from there
STEPS_OF_A_RUN = 62_560  # 160 epochs of CIFAR-10 in batches of 128
Tell = Callable[..., None]
BROKEN = ("CUDA error", "AcceleratorError", "illegal memory", "[CUDA]", "CUBLAS_STATUS_EXEC")


def message(error: Exception) -> str:
    lines = str(error).strip().splitlines() or ["no message"]
    return f"{type(error).__name__}: {lines[0]}"[:500]


def broken(text: str) -> bool:
    """Whether an error says that this process can use the GPU no more."""
    return any(sign in text for sign in BROKEN)


@dataclass(frozen=True)
class Check:
    """Epochs of one step for each batch. Graphs are made for two sizes of batches, and replayed.
    changes: of the members, if there are some, that train in step."""

    model: str
    subset: str
    batches: Sequence[int] = (64, 64, 40)
    changes: Sequence[dict[str, Any]] = ()

    def specs(self, precision: str) -> list[RunSpec]:
        spec = RunSpec(
            model=self.model, trainable=self.subset, data="synthetic", precision=precision,
            batch_size=max(self.batches),
        )  # fmt: skip
        return [spec.replace(**change) for change in self.changes or ({},)]


CHECKS = (
    *(Check("cifar_resnet_8", subset)
      for subset in ("bn", "bn+output", "gamma", "random:2", "bn+shortcut+output", "all")),
    *(Check("cifar_resnet_14", subset) for subset in ("bn", "bn+output", "all")),
    Check("cifar_resnet_14", "bn", (128, 128, 80)),
    Check("cifar_resnet_8", "bn", changes=({"seed": 0}, {"seed": 1})),
    Check("cifar_resnet_8", "bn", changes=({"lr": 0.1}, {"lr": 0.05})),
)  # fmt: skip
SMOKE = (
    Check("cifar_resnet_8_4", "bn", (16, 16, 8)),
    Check("cifar_resnet_8_4", "bn", (16, 16, 8), ({"seed": 0}, {"seed": 1})),
)


@functools.cache
def synthetic() -> Dataset:
    return load_dataset("synthetic")


def engines_of(name: str, check: Check, precision: str, device: torch.device) -> list[Engine]:
    """One, or the members of a check, in step where the engine can do that."""
    engines = []
    for spec in check.specs(precision):
        model = create_model(spec.model, seed=spec.seed)
        engine_class, _ = choose_engine(name, spec, model, device)
        subset = select(model, spec.trainable, seed=spec.seed)
        engines.append(engine_class(model, subset, spec, synthetic(), device))
    if len(engines) > 1 and name == "fused":
        make_members(engines)
    return engines


def epochs(
    engines: Sequence[Engine], check: Check, which: Iterable[int]
) -> tuple[list[Any], list[float]]:
    """Train these epochs. The states after the first step of all, the losses of the epochs."""
    states: list[Any] = []
    losses = []
    for epoch in which:
        for engine in engines:
            spec = engine.spec
            plan = epoch_plan(
                spec.seed, epoch, len(synthetic().train.labels),
                crop_padding=spec.crop_padding, flip=spec.flip,
            )  # fmt: skip
            engine.begin_epoch(plan)
        start = 0
        for size in check.batches:
            for engine in engines:
                engine.step(start, start + size, FACTORS[epoch])
            start += size
            states = states or [engine.state() for engine in engines]
        losses += [engine.totals()[0] for engine in engines]
    return states, losses


def judged(check: Check, cache: Path) -> dict[str, Any]:
    """What eager computes of a check on the CPU in fp32; kept in a file for the next engine."""
    path = cache / f"judge, {check_name(check)}.pt"
    if not path.exists():
        engines = engines_of("eager", check, "fp32", torch.device("cpu"))
        begun = [engine.state() for engine in engines]
        first, early = epochs(engines, check, range(LOADED))
        tests = [engine.evaluate()["test_loss"] for engine in engines]
        for engine, state in zip(engines, first, strict=True):
            engine.load(state)
        _, late = epochs(engines, check, range(LOADED, len(FACTORS)))
        found = {"begun": begun, "first": first, "early": early, "tests": tests,
                 "late": late}  # fmt: skip
        torch.save(found, path.with_suffix(".part"))
        path.with_suffix(".part").replace(path)
    loaded: dict[str, Any] = torch.load(path, weights_only=True)
    return loaded


def check_name(check: Check) -> str:
    parts = [check.model, check.subset, f"batches {' '.join(map(str, check.batches))}"]
    parts += [f"{key} {value}" for each in check.changes for key, value in each.items()]
    return ", ".join(parts)


def one_check(engines: Sequence[Engine], check: Check, judge: dict[str, Any]) -> dict[str, Any]:
    """How far these engines are from the judge."""
    first, early = epochs(engines, check, range(LOADED))
    tests = [engine.evaluate()["test_loss"] for engine in engines]
    reloaded = True
    for engine, state in zip(engines, judge["first"], strict=True):
        engine.load(state)
        again = engine.state()
        reloaded &= state.keys() == again.keys()
        reloaded &= all(torch.equal(state[name], again[name]) for name in again)
    _, late = epochs(engines, check, range(LOADED, len(FACTORS)))
    offs = list(map(changed, judge["begun"], judge["first"], first))
    return {
        "loss_off": apart(early, judge["early"]),
        "change_off": max(whole for whole, _ in offs),
        "tensor_off": max(worst for _, worst in offs),
        "test_off": apart(tests, judge["tests"]),
        "loaded_off": apart(late, judge["late"]),
        "reloaded": reloaded,
    }


def apart(found: Sequence[float], expected: Sequence[float]) -> float:
    """The largest difference, as a share of what is expected; nan where one is."""
    shares = [a / b - 1 for a, b in zip(found, expected, strict=True)]
    return float(torch.tensor(shares).abs().max())


def changed(
    begun: dict[str, Tensor], expected: dict[str, Tensor], found: dict[str, Tensor]
) -> tuple[float, float]:
    """How far apart two steps went, as a share of the way: as a whole, and the worst tensor."""
    names = [name for name in expected if name.startswith("trained/")]
    way = torch.stack([(expected[name] - begun[name]).norm() for name in names])
    off = torch.stack([(found[name] - expected[name]).norm() for name in names])
    return float(off.norm() / way.norm()), float((off / way.clamp(min=1e-30)).max())


def check(
    name: str, device: torch.device, checks: Sequence[Check], cache: Path, tell: Tell
) -> list[dict[str, Any]]:
    """An engine on the device against eager on the CPU in fp32."""
    rows: list[dict[str, Any]] = []
    for each in checks:
        if each.changes and name != "fused":
            continue
        judge = judged(each, cache)
        for precision, (near, like, alike) in TOLERANCE.items():
            row: dict[str, Any] = {"engine": name, "check": check_name(each)}
            row |= {"subset": each.subset, "precision": precision, "good": False}
            rows.append(row)
            try:
                with exact_convolutions():
                    found = one_check(engines_of(name, each, precision, device), each, judge)
                close = all(found[key] <= near for key in ("loss_off", "test_off", "loaded_off"))
                close &= found["change_off"] <= like and found["tensor_off"] <= alike
                row |= found | {"good": close and found["reloaded"]}
            except InputError as error:  # it takes no such run
                row |= {"good": True, "refused": str(error)}
            except Exception as error:
                row["error"] = message(error)
                if broken(row["error"]):
                    raise
            finally:
                tell(partial=rows)
    return rows


def licensed(engine: str, spec: RunSpec, rows: Sequence[dict[str, Any]]) -> bool:
    """Whether an engine computes what it should in every check of the run's precision and subset;
    of all subsets, where that one is not among them."""
    rows = [row for row in rows if row["engine"] == engine and row["precision"] == spec.precision]
    rows = [row for row in rows if row["subset"] == spec.trainable] or rows
    return all(row["good"] for row in rows) and any("refused" not in row for row in rows)


def engines_for(
    spec: RunSpec, rows: Sequence[dict[str, Any]], device: torch.device, avoid: Sequence[str] = ()
) -> list[str]:
    """The engines that the checks license for the run, and eager, for where they fail."""
    found = []
    for name in ("fused", "lean"):
        try:
            choose_engine(name, spec, architecture(spec.model), device)
        except InputError:
            continue
        if licensed(name, spec, rows) and name not in avoid:
            found.append(name)
    return [*found, "eager"]


def train_until(
    specs: Sequence[RunSpec],
    rows: Sequence[dict[str, Any]],
    deadline: float,
    options: dict[str, Any],
    tell: Tell,
) -> list[dict[str, Any]]:
    """Train what is missing until the deadline; the run under way stops and can be resumed. rows:
    of the checks. An error of the GPU ends the process: the next one goes on without the engine."""

    def listen(event: object) -> None:
        if isinstance(event, Step | Epoch) and time.monotonic() > deadline:
            raise KeyboardInterrupt

    device = choose_device(options["device"])
    found: list[dict[str, Any]] = []
    for spec in specs:
        for name in engines_for(spec, rows, device, options["avoid"]):
            if time.monotonic() > deadline:
                return found
            row: dict[str, Any] = {"id": spec.id, "model": spec.model, "trainable": spec.trainable}
            row |= {"seed": spec.seed, "engine": name, "status": "under way"}
            found.append(row)
            tell(partial=found, under_way=name)
            try:
                run = train(
                    spec, options["runs"], engine=name, device=options["device"], listen=listen,
                    data_dir=options["data_dir"] if spec.data.startswith("cifar") else None,
                )  # fmt: skip
                row |= {"status": "ok", "test_accuracy": run.accuracy}
                row |= {"seconds": run.metrics[-1]["seconds"], "epochs": len(run.metrics)}
                break
            except KeyboardInterrupt:
                row["status"] = "stopped in time"
                return found
            except InputError as error:  # the same for every other run: no data, say
                row["status"] = f"refused: {error}"
                return found
            except GammabetaError as error:  # the run itself: another engine would not help
                row["status"] = f"failed: {error}"
                break
            except Exception as error:
                row["status"] = f"failed: {message(error)}"
                tell(partial=found)
                if broken(row["status"]):
                    tell(broke=name)
                    raise
    return found


def timed(piece: dict[str, Any], device: torch.device, deadline: float, tell: Tell) -> Any:
    """The contenders of a piece side by side."""
    case = bench.make_case(piece["model"], piece["subset"], piece["batch"], device)
    slow = {"torch-compile", "torch-compile-max"} - set(piece["compiled"])
    names = bench.possible(case, without=sorted(slow | set(piece["avoid"])))
    if piece["compiled"]:  # beside the fastest of ours
        ours = [name for name in ("fused", "lean") if name in names][:1]
        names = [*ours, *(name for name in piece["compiled"] if name in names)]
    found = bench.measure(
        case, names, ["bf16", "fp32"], deadline=deadline,
        say=lambda line: print(" ", line, flush=True), begin=lambda name: tell(under_way=name),
    )  # fmt: skip
    if (case.batch, case.image) == (128, 32):
        found["estimate"] = {
            "what": f"an estimate, not a measurement: {STEPS_OF_A_RUN:,} steps (160 epochs) at the "
            "median time of a step, without evaluations and data",
            "minutes": {
                f"{row['contender']} {row['precision']}": row["median_ms"] * STEPS_OF_A_RUN / 60e3
                for row in found["rows"]
                if row["median_ms"] and row["contender"] != bench.CONVOLUTIONS and not row["wrong"]
            },
        }
    lost = [row["error"] for row in found["rows"] if row["error"] and broken(row["error"])]
    if lost:
        tell(partial=found, broke=found["failed"][0])
        raise RuntimeError(f"{found['failed'][0]}: {lost[0]}")
    return enough(found, found["rows"], tell)


def enough(result: Any, rows: Sequence[dict[str, Any]], tell: Tell) -> Any:
    """The result, if there was time for enough repeats; else it is kept as a part of one."""
    repeats = max(row["repeats"] for row in rows)
    if repeats < bench.FEWEST:
        tell(partial=result)
        raise TimeoutError(f"{repeats} of {bench.FEWEST} repeats before the time was over")
    return result


def team(piece: dict[str, Any], device: torch.device, deadline: float, tell: Tell) -> Any:
    case = bench.make_case(piece["model"], "bn", piece["batch"], device)
    case = replace(case, precision=piece["precision"])
    rows = measure_members(
        case, KINDS[piece["kind"]], deadline=deadline, say=lambda line: print(" ", line, flush=True)
    )
    return enough(rows, rows, tell)


def software() -> dict[str, Any]:
    """Triton's version, and what is set in the environment that changes kernels or memory."""
    try:
        version = importlib.metadata.version("triton")
    except importlib.metadata.PackageNotFoundError:
        version = None
    names = ("TRITON_", "DISABLE_MMA", "CUDA_", "CUBLAS_", "NVIDIA_TF32", "PYTORCH_")
    chosen = {name: value for name, value in os.environ.items() if name.startswith(names)}
    return {"triton": version, "settings": chosen}


def work(piece: dict[str, Any], tell: Tell) -> Any:
    seconds = piece["end"] - time.time()  # to start has taken some
    deadline, cache = time.monotonic() + seconds, Path(piece["cache"])
    if piece["part"] == "compile":
        from gpu_compile import in_parallel

        return in_parallel(piece["jobs"], cache, seconds)
    device = choose_device(piece["device"])
    tell(environment=environment(device) | software())
    if piece["part"] == "check":
        return check(piece["engine"], device, SMOKE if piece["smoke"] else CHECKS, cache, tell)
    if piece["part"] == "runs":
        specs = [RunSpec.from_dict(each) for each in piece["specs"]]
        return train_until(specs, piece["checks"], deadline, piece, tell)
    return (team if piece["part"] == "members" else timed)(piece, device, deadline, tell)


def main() -> None:
    piece, path = json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2])
    answer: dict[str, Any] = {}

    def tell(**found: Any) -> None:
        answer.update(found)
        part = path.with_suffix(".part")
        part.write_text(json.dumps(answer))
        part.replace(path)

    try:
        tell(result=work(piece, tell))
    except Exception as error:
        tell(error=message(error))
    tell(under_way=None)


if __name__ == "__main__":
    main()
