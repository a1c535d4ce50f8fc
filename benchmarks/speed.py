"""The speed of a training step: every contender of `gammabeta bench` on the networks of the paper,
one group (network and subset, both precisions) after the other.

    python benchmarks/speed.py --out results/speed_cpu.json [--limit SECONDS]

The file is written after each group. The next call goes on: it leaves alone what was measured with
the same commit, unless it is told --again. With nothing else running, all of it takes about an hour
on two cores, half of that torch.compile.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from gammabeta import bench
from gammabeta.engine import choose_device
from gammabeta.environment import environment

MODELS = ("cifar_resnet_14", "cifar_resnet_56", "cifar_resnet_110", "imagenet_resnet_18",
          "imagenet_resnet_50")  # fmt: skip
SUBSETS = ("bn", "bn+output", "all")
COMPILED = ("torch-compile", "torch-compile-max")


def contenders(case: bench.Case) -> list[str]:
    """All that can take the case, except that what compiles for minutes is timed where it says
    most: the default with bn, and tuned on the smallest network."""
    small = case.model == MODELS[0]
    without = [] if small and case.trainable == "bn" else [COMPILED[1]]
    if not small and case.trainable != "bn":
        without.append(COMPILED[0])
    return bench.possible(case, without)


def key(group: dict[str, Any]) -> tuple[Any, ...]:
    return group["model"], group["trainable"], group["batch"], group["environment"]["commit"]


def complete(group: dict[str, Any]) -> bool:
    """Not cut short by the limit."""
    return all(
        row["repeats"] >= bench.FEWEST or row["error"] not in (None, bench.NO_TIME)
        for row in group["rows"]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--subsets", nargs="+", default=SUBSETS)
    parser.add_argument("--precision", default="both")
    parser.add_argument("--contenders", help="A,B instead of all")
    parser.add_argument("--batch-size", type=int, help="128; ImageNet networks on a CPU: 8")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--memory", action="store_true", help="peak memory, in a process each")
    parser.add_argument("--limit", type=float, default=7200, help="seconds")
    parser.add_argument("--again", action="store_true", help="measure what is there, too")
    options = parser.parse_args()
    deadline = time.monotonic() + options.limit
    # The seconds of a first step are to be those of somebody who compiles it for the first time.
    os.environ["TORCHINDUCTOR_FORCE_DISABLE_CACHES"] = "1"
    device = choose_device(options.device)
    groups = json.loads(options.out.read_text())["groups"] if options.out.exists() else []
    commit = environment(device)["commit"]
    wrong = []
    for model in options.models:
        for subset in options.subsets:
            case = bench.make_case(model, subset, options.batch_size, device)
            mark = (case.model, case.trainable, case.batch, commit)
            if time.monotonic() > deadline or (
                not options.again and mark in [key(group) for group in groups]
            ):
                continue
            print(f"{model}, {subset}", file=sys.stderr)
            names = contenders(case)
            if options.contenders is not None:
                names = [name for name in options.contenders.split(",") if name in names]
            group = bench.measure(
                case, names, bench.choose_precisions(options.precision),
                repeats=options.repeats, memory=options.memory, deadline=deadline,
                say=lambda line: print(f"  {line}", file=sys.stderr, flush=True),
            )  # fmt: skip
            if not complete(group):
                print("  cut short by the limit: not kept", file=sys.stderr)
                continue
            wrong += [f"{model}, {subset}, {line}" for line in bench.faults(group)]
            groups = [each for each in groups if key(each)[:3] != mark[:3]] + [group]
            part = options.out.with_suffix(".part")
            part.write_text(json.dumps({"groups": groups}, indent=1) + "\n")
            part.replace(options.out)
    if wrong:
        raise SystemExit("\n".join(wrong))


if __name__ == "__main__":
    main()
