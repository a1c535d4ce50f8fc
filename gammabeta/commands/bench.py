"""`gammabeta bench`: one training step, side by side."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from gammabeta.arguments import REPLACED, add_command, finish, reader
from gammabeta.disk import check_file, replaces, write_files
from gammabeta.errors import RunError, about


def add(commands: Any) -> None:
    text = "time one training step by plain torch, by others and by our engines, side by side"
    parser = add_command(commands, "bench", _bench, text)
    parser.add_argument("--model", default="cifar_resnet_14", metavar="NETWORK", help="the network")
    parser.add_argument("--trainable", default="bn", metavar="SUBSET", help="what trains")
    parser.add_argument(
        "--precision", default="both", metavar="PRECISION", help="fp32, bf16 or both"
    )
    parser.add_argument(
        "--batch-size", type=reader("batch_size"), metavar="N",
        help="images a step (default: 128; of ImageNet networks on a CPU: 8)",
    )  # fmt: skip
    parser.add_argument(
        "--contenders", metavar="A,B",
        help="only these, such as torch,torch-compile,fused (default: all but torch-compile-max)",
    )  # fmt: skip
    parser.add_argument(
        "--repeats",
        type=reader("batch_size"),
        default=7,
        metavar="N",
        help="timed rounds, 5 or more",
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1")
    parser.add_argument(
        "--memory", action="store_true", help="on a CPU: peak memory, in a process each"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--out",
        metavar="FILE",
        help=f"write the JSON to a file too; {REPLACED} (default: none)",
    )
    finish(parser)


def _bench(options: argparse.Namespace) -> None:
    from gammabeta import bench
    from gammabeta.display import make_console
    from gammabeta.engine import choose_device

    with about("device"):
        device = choose_device(options.device)
    case = bench.make_case(options.model, options.trainable, options.batch_size, device)
    with about("contenders"):
        contenders = bench.choose_contenders(options.contenders, case)
    out = None if options.out is None else Path(options.out)
    if out is not None:
        with about("out"):
            check_file(out, "bench.json")
    with about("precision"):
        precisions = bench.choose_precisions(options.precision)
    result = bench.measure(
        case, contenders, precisions, repeats=options.repeats, memory=options.memory,
        say=lambda line: print(line, file=sys.stderr),
    )  # fmt: skip
    text = json.dumps(result, indent=1)
    if out is not None:
        note = replaces(out)
        write_files({out: f"{text}\n".encode()})
        print(f"wrote {out}{note}", file=sys.stderr)
    if options.json:
        print(text)
    else:
        make_console(sys.stdout).print(bench.bench_table(result))
        print("", *bench.bench_lines(result), sep="\n")
    if wrong := bench.faults(result):
        raise RunError("; ".join(wrong))
