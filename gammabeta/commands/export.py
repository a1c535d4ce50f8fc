"""`gammabeta export`: a run's network as one file for other programs."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from gammabeta.arguments import REPLACED, add_command, add_runs_folder, finish, runs_folder
from gammabeta.commands.compact import add_data_dir, add_threshold
from gammabeta.disk import replaces, write_files
from gammabeta.errors import InputError, about
from gammabeta.small import SMALL


def add(commands: Any) -> None:
    text = "write a run's network as one ONNX or torch.export file, checked against torch"
    parser = add_command(commands, "export", _export, text)
    parser.add_argument("run", metavar="RUN", help="a run's id, or the start of it")
    parser.add_argument("out", metavar="FILE", help=f"model.onnx or model.pt2; {REPLACED}")
    parser.add_argument(
        "--compact", action="store_true", help="the smaller network of gammabeta compact"
    )
    add_threshold(parser)
    parser.add_argument(
        "--latency",
        action="store_true",
        help="of .onnx: time the original, folded and compact network in onnxruntime here",
    )
    add_data_dir(parser)
    add_runs_folder(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")
    finish(parser)


def _export(options: argparse.Namespace) -> None:
    from gammabeta import deploy
    from gammabeta.export import SUFFIXES, check_format, export_bytes
    from gammabeta.listen import Phases
    from gammabeta.run import load_run

    out = Path(options.out)
    deploy.check_out(out, SUFFIXES)
    check_format(out.suffix)
    if options.threshold is not None and not (options.compact or options.latency):
        raise InputError("--threshold belongs to --compact: write both, or leave it out")
    if options.keep_idle and not (options.compact or options.latency):
        raise InputError("--keep-idle belongs to --compact: write both, or leave it out")
    if options.latency and out.suffix != ".onnx":
        raise InputError("--latency measures onnxruntime: leave it out, or write an .onnx file")
    threshold = SMALL if options.threshold is None else options.threshold
    run = load_run(options.run, runs_folder(options))
    compaction = None
    with Phases() as say:
        say("reading the run and its test images")
        deployed = deploy.open_run(run, options.data_dir)
        if options.compact or options.latency:
            with about("threshold"):
                compaction = deployed.compact(threshold, options.keep_idle, say)
        network, facts = deployed.network, deployed.about
        if compaction is not None and options.compact:
            network, facts = compaction.network, compaction.network.about
        say("exporting, and comparing with torch")
        data, difference = export_bytes(network, deployed.few, out.suffix, facts)
        shown: dict[str, Any] = {
            "out": str(out),
            "bytes": len(data),
            "difference": difference,
            "about": facts,
        }
        if compaction is not None and options.latency:
            say("timing in onnxruntime")
            shown["latency"] = deploy.onnx_latencies(deployed, compaction)
    note = replaces(out)
    write_files({out: data})
    if options.json:
        print(json.dumps(shown, indent=1))
        return
    if options.latency:
        _print_latency(shown["latency"])
    how = "onnxruntime" if out.suffix == ".onnx" else "the loaded program"
    near = f"within {difference:.0e} of torch" if difference else "equal to torch"
    print(f"wrote {out}{note}: {len(data):,} bytes; {how} is {near}")


def _print_latency(rows: list[dict[str, Any]]) -> None:
    from rich.table import Table

    from gammabeta.display import make_console

    table = Table(box=None, pad_edge=False)
    table.add_column("network")
    sizes = list(rows[0]["latency"])
    for title in ("bytes", *(f"ms for {size} (fastest)" for size in sizes)):
        table.add_column(title, justify="right")
    for row in rows:
        spans = [f"{row['latency'][size]['fastest_ms']:.2f}" for size in sizes]
        table.add_row(row["network"], f"{row['bytes']:,}", *spans)
    make_console(sys.stdout).print(table)
