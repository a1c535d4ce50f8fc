"""`gammabeta reproduce`: a table or figure of the paper, from its runs to its picture."""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gammabeta.arguments import (
    add_command,
    add_data,
    add_execution,
    execution,
    finish,
    reader,
    runs_folder,
)
from gammabeta.errors import InputError, RunError
from gammabeta.launch import check_alone

if TYPE_CHECKING:
    from rich.table import Table

_FOR_THE_PLAN = ("engine", "device", "data_dir")
_EXAMPLES = {"networks": "cifar_resnet_14,cifar_resnet_32", "subsets": "bn,all"}


def add(commands: Any) -> None:
    text = "make tables and figures of the paper: their runs, as far as they are missing, and more"
    parser = add_command(commands, "reproduce", _reproduce, text)
    parser.add_argument("names", nargs="*", metavar="NAME", help="experiments, see --list")
    parser.add_argument("--list", action="store_true", help="list all experiments, run nothing")
    parser.add_argument("--dry-run", action="store_true", help="print the plan, run nothing")
    parser.add_argument(
        "--scale", default="paper",
        help="paper: the published recipe; short: 16 epochs; smoke: one epoch of 512",
    )  # fmt: skip
    parser.add_argument("--networks", metavar="A,B", help="only these networks (default: all)")
    parser.add_argument("--subsets", metavar="A,B", help="only these subsets (default: all)")
    parser.add_argument(
        "--replicates", type=reader("seed"), metavar="N",
        help="seeds a point, from 0 (default: paper: 5, of ImageNet 3; short: 3; smoke: 1; of the "
        "report always 1)",
    )  # fmt: skip
    parser.add_argument(
        "--precision", help="fp32 or bf16 (default: fp32 at the paper's scale, else the faster one)"
    )
    parser.add_argument(
        "--data", help="digits or synthetic, to try (default: the published data set)"
    )
    parser.add_argument(
        "--image-size", type=reader("image_size"), metavar="N",
        help="of experiments on imagenet: pixels a side, which changes the recipe (default: 224)",
    )  # fmt: skip
    add_data(parser)
    parser.add_argument(
        "--jobs", type=reader("seed"), default=argparse.SUPPRESS, metavar="N",
        help="runs that train at once, in processes of their own (default: 1)",
    )  # fmt: skip
    add_execution(parser)
    parser.add_argument("--out", default="reproduced", metavar="DIR", help="the figures and tables")
    parser.add_argument("--json", action="store_true", help="print JSON")
    finish(parser)


def _reproduce(options: argparse.Namespace) -> None:
    from gammabeta import reproduce

    check_alone("an experiment is reproduced")
    if not options.names and not options.list:
        raise InputError("which experiment? write its name; gammabeta reproduce --list has them")
    if vars(options).get("jobs", 1) < 1:
        raise InputError(f"jobs is {options.jobs}: write 1 or more", "jobs")
    reproduce.check_out(Path(options.out))
    plans = reproduce.plan(
        reproduce.choose_experiments(options.names),
        runs_folder(options),
        scale=options.scale,
        precision=options.precision,
        data=options.data,
        replicates=options.replicates,
        image_size=options.image_size,
        networks=_split("networks", options.networks),
        subsets=_split("subsets", options.subsets),
        say=lambda line: print(line, file=sys.stderr),
        estimate=options.list or options.dry_run,  # else the runs say it, once the data are read
        keep=True,
        **{key: each for key, each in execution(options).items() if key in _FOR_THE_PLAN},
    )
    if options.list or options.dry_run:
        _print_plans(plans, options.json, with_runs=options.dry_run)
        return
    _run(options, plans)


def _run(options: argparse.Namespace, plans: list[Any]) -> None:
    from gammabeta import reproduce
    from gammabeta.listen import Portions, TrainDisplay

    runs, out = runs_folder(options), Path(options.out)
    how = {key: each for key, each in execution(options).items() if key != "runs"}
    failure = None
    left = {spec.id: runs / spec.id for each in plans for spec in each.left}
    with TrainDisplay(len(left), folders=list(left.values())) as display:
        try:
            reproduce.reproduce(plans, runs, **how, listen=display)
        except RunError as error:  # what went well is shown before it
            failure = error
    views = [reproduce.view(each, runs) for each in plans]
    written = reproduce.write(
        plans, runs, out, data_dir=how.get("data_dir"), reading=how.get("reading"),
        device=how.get("device", "auto"), say=lambda line: print(line, file=sys.stderr),
        tell=Portions(),
    )  # fmt: skip
    _print_views(views, written.files, options.json)
    if failure is not None:
        raise failure
    if written.failed:
        first = written.failed[0]
        more = f" (and {len(written.failed) - 1} more, see above)" if written.failed[1:] else ""
        raise type(first)(f"not measured: {first}{more}")


def _print_plans(plans: list[Any], as_json: bool, with_runs: bool) -> None:
    from rich.table import Table

    from gammabeta.analysis import counted
    from gammabeta.display import duration, make_console
    from gammabeta.step_times import BUSY, folder

    if as_json:
        print(json.dumps([_plan_dict(each, with_runs) for each in plans], indent=1))
        return
    first = plans[0]
    print(f"scale {first.scale.name} ({first.scale.summary}), {first.precision}")
    table = Table(box=None, pad_edge=False)
    titles = ("name", "seeds", "runs", "done", "to measure", "still needs", "how known", "question")
    for title in titles:
        right = title not in ("name", "how known", "question")
        table.add_column(title, justify="right" if right else "left", no_wrap=title != "question")
    for plan in plans:
        left, unmeasured, estimate = len(plan.left), len(plan.unmeasured), plan.estimate
        table.add_row(
            plan.experiment.name, str(plan.seeds), str(len(plan.runs)), str(len(plan.runs) - left),
            str(unmeasured) if unmeasured else "-",
            duration(estimate.seconds) if left or unmeasured else "-",
            _how_known(estimate) if left else "-", plan.experiment.question,
        )  # fmt: skip
    make_console(sys.stdout).print(table)
    print(
        "Experiments share runs, so the sum is less. Times are of this machine, one run after "
        "another: measured on runs alike that it has finished, else estimated from a timed step of "
        "the family's smallest network on images of 32 pixels, scaled by operations: roughly right "
        "on a CPU, less so for ImageNet, whose images have to be read, and on a GPU, which a small "
        "network does not fill."
    )
    if (timed := _timed(plans)) is not None:
        print(
            f"The steps were timed by an earlier call ({timed}); to have them timed again, remove "
            f"{folder()}."
        )
    if (load := max(each.estimate.load for each in plans)) >= BUSY:
        print(
            f"The machine was busy just before they were timed (as much to run as for {load:.0%} "
            "of its processors), so these times may be several times too long: ask again when it "
            "is idle."
        )
    if with_runs:
        to_do = {spec.id: spec for plan in plans for spec in plan.left}
        print(f"{counted(len(to_do), 'run')} to do:")
        for run, probe in dict.fromkeys(each for plan in plans for each in plan.unmeasured):
            print(f"{run}  {probe} is to be measured")
        for name, spec in to_do.items():
            told = {key: getattr(spec, key) for key in ("model", "trainable", "seed")}
            values = ", ".join(f"{key}={each}" for key, each in (told | spec.chosen()).items())
            print(f"{name}  {values}")


def _timed(plans: list[Any]) -> str | None:
    """When the oldest of the steps was timed that an earlier call had kept."""
    found = [each.estimate.timed for each in plans if each.estimate.timed is not None]
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(min(found))) if found else None


def _how_known(estimate: Any) -> str:
    if not estimate.measured:
        return "estimated"
    if estimate.measured == estimate.runs:
        return "measured"
    return f"{estimate.runs - estimate.measured} of {estimate.runs} estimated"


def _plan_dict(plan: Any, with_runs: bool) -> dict[str, Any]:
    experiment = plan.experiment
    found = {
        "name": experiment.name, "question": experiment.question, "source": experiment.source,
        "scale": plan.scale.name, "precision": plan.precision, "seeds": plan.seeds,
        "runs": len(plan.runs),
        "left": len(plan.left),
        "unmeasured": [{"run": run, "probe": probe} for run, probe in plan.unmeasured],
        "seconds": round(plan.estimate.seconds, 1),
        "measured": plan.estimate.measured,
        "estimated": plan.estimate.runs - plan.estimate.measured, "timed_earlier": _timed([plan]),
        "load_when_timed": round(plan.estimate.load, 2),
    }  # fmt: skip
    return found | ({"specs": [spec.to_dict() for spec in plan.left]} if with_runs else {})


def _print_views(views: list[Any], written: dict[str, list[Path]], as_json: bool) -> None:
    from gammabeta.display import make_console, print_models
    from gammabeta.paper.beside import checked_table
    from gammabeta.paper.points import other_data
    from gammabeta.report.settings import measured_values, told_before_comparing

    if as_json:
        found = [
            {
                "name": view.experiment.name, "scale": view.scale.name,
                "precision": view.precision, "data": view.data,
                "other_data": other_data(view.runs), "image_size": view.image_size,
                "setting": told_before_comparing(view),
                "points": [
                    row | {"measured": {key: of[point.spec.id] for key, of in measured.items()
                                        if point.spec.id in of}}
                    for row, point in zip(checked_table(view.points), view.points, strict=True)
                ],
                "files": [str(path) for path in written[view.experiment.name]],
            }
            for view in views
            for measured in [measured_values(view)]
        ]  # fmt: skip
        print(json.dumps(found, indent=1))
        return
    for view in views:
        print(f"\n{view.experiment.name}: {view.experiment.question}")
        told = [view.scale.summary, view.precision, view.data, *other_data(view.runs)]
        told += [f"images of {view.image_size} pixels"] if view.image_size is not None else []
        print(", ".join(told))
        if view.points:
            make_console(sys.stdout).print(_points_table(view))
            if (measured := _measured_table(view)) is not None:
                make_console(sys.stdout).print(measured)
            for sentence in told_before_comparing(view):
                print(sentence)
        else:
            print_models(False)
        if files := ", ".join(str(path) for path in written[view.experiment.name]):
            print(f"wrote {files}")


def _points_table(view: Any) -> "Table":
    """Ours, published, the difference in points, and over how many seeds."""
    from rich.table import Table

    from gammabeta.analysis import in_percent
    from gammabeta.display import percent
    from gammabeta.paper.points import SHOWN

    shown = Table(box=None, pad_edge=False)
    for title in ("network", "subset", "changed"):
        shown.add_column(title)
    for title in ("trained", "n", "ours", "least-most", "published", "difference"):
        shown.add_column(title, justify="right")
    for point in view.points:
        ours, chosen = point.accuracy, point.spec.chosen()
        changed = ", ".join(f"{key}={chosen[key]}" for key in SHOWN if key in chosen)
        ends = [in_percent(each) for each in (ours.low, ours.high)] if ours else []
        span = "-".join(ends) if ours and ours.n > 1 else "-"
        off = "-" if point.difference is None else in_percent(point.difference, sign=True)
        shown.add_row(
            point.spec.model, point.spec.trainable, changed,
            "-" if point.trained is None else f"{point.trained:,}", str(len(point.runs)),
            percent(ours.mean) if ours else "-", span, percent(point.published), off,
        )  # fmt: skip
    return shown


def _measured_table(view: Any) -> "Table | None":
    """What probes found, a row a point; None where there is none."""
    from rich.table import Table

    from gammabeta.report.settings import measured_columns

    columns = measured_columns(view)
    shown = Table(box=None, pad_edge=False)
    for title in ("network", "subset"):
        shown.add_column(title)
    for heading, _ in columns:
        shown.add_column(heading.lower(), justify="right")
    for point in view.done:
        cells = [of.get(point.spec.id, "-") for _, of in columns]
        if set(cells) - {"-"}:
            shown.add_row(point.spec.model, point.spec.trainable, *cells)
    return shown if shown.row_count else None


def _split(name: str, text: str | None) -> list[str]:
    """A,B as a list; [], which is all of them, where the flag was not given. A name:REGEX may hold
    commas: it has to be the last. Raises InputError for a list of nothing: a shell's variable that
    is not set would start everything."""
    if text is None:
        return []
    head, regex, tail = text.partition("name:")
    found = [part.strip() for part in head.split(",") if part.strip()]
    found += [regex + tail] if regex else []
    if not found:
        message = (
            f"{name} '{text}' names none: write for example {_EXAMPLES[name]}, or leave it out"
        )
        raise InputError(message, name)
    return found
