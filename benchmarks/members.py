"""Runs in step, in one fused program, against the same runs one after another: eight learning rates
over one backbone, and five replicates.

    python benchmarks/members.py --out results/members_cpu.json [--model cifar_resnet_14]
"""

import argparse
import json
from pathlib import Path

from gammabeta.bench.members import KINDS, cases, measure_members
from gammabeta.engine import choose_device
from gammabeta.environment import environment


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", default="cifar_resnet_14")
    parser.add_argument("--trainable", default="bn")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    device = choose_device(options.device)
    result = {"environment": environment(device), "rows": []}
    for kind, changes in KINDS.items():
        for case in cases(options.model, options.trainable, options.batch_size, device):
            for row in measure_members(case, changes, repeats=options.repeats):
                result["rows"].append({"kind": kind, **row})
                print(kind, row["precision"], row["how"], f"{row['median_ms']:.1f} ms", flush=True)
            options.out.write_text(json.dumps(result, indent=1) + "\n")
    if any(row["wrong"] for row in result["rows"]):
        raise SystemExit(f"some members compute something else than alone: see {options.out}")


if __name__ == "__main__":
    main()
