"""`gammabeta compact`: a smaller network that computes the same thing."""

import argparse
import json
import math
import sys
from pathlib import Path
from typing import Any

from gammabeta.arguments import REPLACED, add_command, add_runs_folder, finish, reader, runs_folder
from gammabeta.disk import replaces
from gammabeta.errors import about
from gammabeta.small import SMALL


def add(commands: Any) -> None:
    text = "write a smaller network that computes what a run does without its small gammas"
    parser = add_command(commands, "compact", _compact, text)
    parser.add_argument("run", metavar="RUN", help="a run's id, or the start of it")
    add_threshold(parser, SMALL)
    parser.add_argument(
        "--out",
        default="compact.safetensors",
        metavar="FILE",
        help=f"the network, with its ledger beside it; {REPLACED}",
    )
    parser.add_argument(
        "--images",
        type=reader("batch_size"),
        metavar="N",
        help="first N test images (default: all)",
    )
    add_data_dir(parser)
    add_runs_folder(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")
    finish(parser)


def add_threshold(parser: Any, default: float | None = None) -> None:
    """default: None where --threshold has to come with another flag; SMALL is then used."""
    told = f" (default: {SMALL:g})" if default is None else ""
    parser.add_argument(
        "--threshold",
        type=reader("lr"),
        metavar="VALUE",
        default=default,
        help=f"gammas smaller than this become zero{told}",
    )
    parser.add_argument(
        "--keep-idle",
        action="store_true",
        help="not those whose zero removes nothing: as small, and nearer to the original",
    )


def add_data_dir(parser: Any) -> None:
    parser.add_argument(
        "--data-dir",
        metavar="DIR",
        help="where the data set's files are (default: $GAMMABETA_DATA)",
    )


def _compact(options: argparse.Namespace) -> None:
    from gammabeta import deploy
    from gammabeta.compact.snap import check_number
    from gammabeta.listen import Phases
    from gammabeta.run import load_run

    with about("threshold"):
        check_number(options.threshold)  # before the data are read
    out = Path(options.out)
    with about("out"):
        deploy.check_out(out, (".safetensors",))
    run = load_run(options.run, runs_folder(options))
    with Phases() as say:
        say("reading the run and its test images")
        deployed = deploy.open_run(run, options.data_dir, options.images)
        with about("threshold"):
            deployed.check_threshold(options.threshold)
        compaction = deployed.compact(options.threshold, options.keep_idle, say)
        say("comparing on the test images")
        measured = deploy.compare(deployed, compaction)
        say("timing")
        measured["costs"] = deploy.costs(deployed, compaction)
    note = replaces(out, deploy.ledger_path(out))
    deploy.write_compact(out, compaction, measured)
    if options.json:
        shown = deploy.summary(compaction) | measured | {"out": str(out)}
        print(json.dumps(shown | {"ledger": str(deploy.ledger_path(out))}, indent=1))
    else:
        _print(compaction, measured)
        print(f"wrote {out} and {deploy.ledger_path(out)}{note}")


def _print(compaction: Any, measured: dict[str, Any]) -> None:
    from rich.table import Table

    from gammabeta.display import make_console, percent

    off, layers = sum(compaction.switched_off.values()), compaction.ledger.layers()
    accuracy = measured["test_accuracy"]
    back = sum(map(len, compaction.put_back.values()))
    also = f" ({back} below the threshold keep their values, as their zeros remove nothing)"
    print(
        f"{off} gammas set to zero{also if back else ''}: accuracy "
        f"{percent(accuracy['original'])} -> {percent(accuracy['snapped'])} on "
        f"{measured['images']:,} test images, largest change of a logit "
        f"{measured['largest_logit_change_by_snapping']:.3g}; the rest is exact"
    )
    console = make_console(sys.stdout)
    table = Table(box=None, pad_edge=False)
    table.add_column("layer")
    for title in ("channels", "left"):
        table.add_column(title, justify="right")
    table.add_column("removed because")
    for row in layers:
        why = ", ".join(f"{why} ({count})" for why, count in row["removed"].items())
        table.add_row(row["layer"], str(row["before"]), str(row["after"]), why)
    console.print(table)
    print()
    console.print(_costs(measured["costs"]))
    exact = [check.fp64 for check in compaction.checks if check.fp64 is not None]
    worst = max(exact or [check.fp32 for check in compaction.checks])
    found = sorted({check.size for check in compaction.checks}, key=math.prod)
    sizes = ["x".join(map(str, size)) for size in found]
    print(
        f"\nchecked: same logits up to {worst:.0e} in {'fp64' if exact else 'fp32'}, at "
        f"{' and '.join(sizes)} pixels"
    )
    for note in compaction.notes:
        print(f"note: {note}")


def _costs(rows: list[dict[str, Any]]) -> Any:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("network")
    times = list(rows[0]["latency"])
    for title in (
        "parameters",
        "operations",
        "bytes",
        *(f"ms for {size} (fastest)" for size in times),
    ):
        table.add_column(title, justify="right")
    for row in rows:
        counts = [f"{row[key]:,}" for key in ("parameters", "operations", "bytes")]
        spans = [f"{row['latency'][size]['fastest_ms']:.2f}" for size in times]
        table.add_row(row["network"], *counts, *spans)
    return table
