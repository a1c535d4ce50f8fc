"""The commands of the command line; arguments.py reads their flags, display.py prints.

Exit codes: 0 done; 2 bad input (one line on stderr that says what to write instead, nothing
created); 1 it failed while running; 130 stopped by Ctrl-C (everything can be resumed).
"""

import argparse
import json
import os
import sys
import warnings
from pathlib import Path
from typing import Any

import gammabeta
from gammabeta.arguments import (
    Parser,
    add_command,
    add_execution,
    add_members,
    add_runs_folder,
    add_seeds,
    add_spec,
    as_flag,
    execution,
    finish,
    read_spec,
    read_specs,
    reader,
    runs_folder,
    with_source,
)
from gammabeta.errors import GammabetaError, InputError, RunError, about


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    options = argparse.Namespace()
    try:
        options = _parser().parse_args(arguments)
        with warnings.catch_warnings():
            warnings.showwarning = _print_warning  # type: ignore[assignment]
            command = options.command
            command(options)
        sys.stdout.flush()
    except InputError as error:
        return _fail(with_source(error, vars(options)), 2)
    except GammabetaError as error:
        return _fail(error, 1)
    except KeyboardInterrupt:
        print("\ngammabeta: stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of a pipe has gone; nothing is left to say
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        return _fail(f"{type(error).__name__}: {error}", 1)
    return 0


def _fail(error: object, code: int) -> int:
    line = " ".join(str(error).split())
    if len(line) > 700:  # somebody's endless number or name, not ours
        line = f"{line[:450]} ... {line[-200:]}"
    print(f"gammabeta: {line}", file=sys.stderr)
    return code


def _print_warning(message: Warning | str, *_: Any) -> None:
    print(f"gammabeta: note: {message}", file=sys.stderr)


def _parser() -> Parser:
    parser = Parser(prog="gammabeta", description=gammabeta.__doc__, allow_abbrev=False)
    parser.set_defaults(known_flags=["--help", "--version"])
    parser.add_argument("--version", action="version", version=gammabeta.__version__)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", parser_class=Parser)
    parser.set_defaults(command=lambda options: parser.print_help())
    _add_demo(commands)
    _add_train(commands)
    _add_sweep(commands)
    _add_runs(commands)
    _add_models(commands)
    _add_report(commands)
    _add_bench(commands)
    return parser


def _add_demo(commands: Any) -> None:
    text = "train eight subsets on embedded digits and write report.html"
    parser = add_command(commands, "demo", _demo, text)
    add_execution(parser)
    parser.add_argument(
        "--out", default="report.html", metavar="FILE", help="the page (report.html)"
    )
    parser.add_argument("--json", action="store_true", help="print the table as JSON")
    finish(parser)


def _demo(options: argparse.Namespace) -> None:
    from gammabeta import demo
    from gammabeta.display import print_demo
    from gammabeta.listen import TrainDisplay
    from gammabeta.report import check_out, write_report
    from gammabeta.run import train

    with about("out"):
        check_out(Path(options.out))
    specs = demo.demo_specs()
    trained = []
    with TrainDisplay(labels=tuple(spec.trainable for spec in specs)) as display:
        for spec in specs:
            display.next_run()
            trained.append(train(spec, **execution(options), listen=display))
    print_demo(trained, options.json)
    write_report([run.folder for run in trained], Path(options.out))
    print(f"wrote {options.out}", file=sys.stderr)


def _add_train(commands: Any) -> None:
    parser = add_command(commands, "train", _train, "train one run, or resume it")
    add_spec(parser)
    add_seeds(parser)
    parser.set_defaults(members=[])
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument(
        "--print-spec", action="store_true", help="print the resolved spec and its id, do not run"
    )
    finish(parser)


def _train(options: argparse.Namespace) -> None:
    if "seeds" in options and not options.print_spec:
        _train_many(options)
        return
    if "seeds" in options:
        raise InputError("--print-spec prints one spec: leave out --seeds, or write --seed")
    if "in_step" in options:
        raise InputError("--in-step belongs to several runs: leave it out, or write --seeds")
    spec = read_spec(options)
    if options.print_spec:
        from gammabeta.build import check_network

        if idle := ", ".join(as_flag(name) for name in execution(options)):
            raise InputError(f"--print-spec runs nothing: leave out {idle}")
        check_network(spec)
        shown = json.dumps(spec.to_dict(), indent=1, sort_keys=True)
        print(shown if options.json else f"id {spec.id}\n{shown}")
        return
    from gammabeta.display import print_result, result_dict
    from gammabeta.listen import TrainDisplay
    from gammabeta.run import train

    with TrainDisplay() as display:
        run = train(spec, **execution(options), listen=display)
    if options.json:
        print(json.dumps(result_dict(run), indent=1))
    else:
        print_result(run)


def _add_sweep(commands: Any) -> None:
    text = "train one run for each combination of values, many in step where they can"
    parser = add_command(commands, "sweep", _sweep, text)
    add_members(parser)
    add_spec(parser)
    add_seeds(parser)
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    parser.add_argument(
        "--dry-run", action="store_true", help="print which runs there would be, do not run"
    )
    finish(parser)


def _sweep(options: argparse.Namespace) -> None:
    if not options.members and "seeds" not in options:
        raise InputError("a sweep of what? write for example --members lr=0.01,0.1")
    if options.dry_run:
        _print_plan(options)
    else:
        _train_many(options)


def _print_plan(options: argparse.Namespace) -> None:
    from gammabeta.display import print_plan
    from gammabeta.run import waiting
    from gammabeta.sweep import check_networks, teams

    specs, varied = read_specs(options)
    how = execution(options)
    runs = runs_folder(options)
    left = waiting(specs, runs)
    check_networks(left)
    chosen = {name: how[name] for name in ("engine", "device", "in_step") if name in how}
    print_plan(specs, teams(left, **chosen), varied, runs, options.json)


def _train_many(options: argparse.Namespace) -> None:
    from gammabeta.display import print_sweep
    from gammabeta.listen import TrainDisplay
    from gammabeta.run import waiting
    from gammabeta.sweep import sweep

    specs, varied = read_specs(options)
    runs = runs_folder(options)
    failure = None
    with TrainDisplay(len(waiting(specs, runs))) as display:
        try:
            sweep(specs, **execution(options), listen=display)
        except RunError as error:  # what went well is shown before it
            failure = error
    print_sweep(specs, varied, runs, options.json)
    if failure is not None:
        raise failure


def _add_runs(commands: Any) -> None:
    parser = add_command(commands, "runs", _runs_list, "list runs; runs show ID, runs rm ID")
    parser.add_argument("action", nargs="?", choices=["list", "show", "rm"], default="list")
    parser.add_argument("id", nargs="?", help="the run's id, or the start of it")
    add_runs_folder(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--tensors", action="store_true", help="show: every tensor, not only roles")
    finish(parser)


def _runs_list(options: argparse.Namespace) -> None:
    from gammabeta import display
    from gammabeta.store import find_run, list_runs

    root = runs_folder(options)
    if options.tensors and options.action != "show":
        raise InputError("--tensors belongs to gammabeta runs show ID: leave it out")
    if options.action == "list":
        if options.id is not None:
            raise InputError("runs list takes no id: write gammabeta runs show " + options.id)
        found = list_runs(root)
        if "runs" in options and not root.exists():
            raise InputError(f"{root} does not exist: name the folder of your runs", "runs")
        display.print_runs(found, root, options.json)
        return
    if options.id is None:
        raise InputError(f"which run? write gammabeta runs {options.action} ID")
    folder = find_run(root, options.id)
    if options.action == "show":
        if options.json:
            print(json.dumps(display.run_dict(folder, options.tensors), indent=1, sort_keys=True))
        else:
            display.print_run(folder, options.tensors)
        return
    folder.remove()
    print(json.dumps({"removed": folder.id}) if options.json else f"removed run {folder.id}")


def _add_models(commands: Any) -> None:
    text = "list the networks of the paper with their parameter counts"
    parser = add_command(commands, "models", _models, text)
    parser.add_argument("--json", action="store_true", help="print JSON")
    finish(parser)


def _models(options: argparse.Namespace) -> None:
    from gammabeta.display import print_models

    print_models(options.json)


def _add_report(commands: Any) -> None:
    parser = add_command(commands, "report", _report, "write one HTML page about all runs")
    add_runs_folder(parser)
    parser.add_argument(
        "--out", default="report.html", metavar="FILE", help="the page (report.html)"
    )
    finish(parser)


def _report(options: argparse.Namespace) -> None:
    from gammabeta.paper import PUBLISHED
    from gammabeta.report import check_out, write_report

    out = Path(options.out)
    with about("out"):
        check_out(out)
    with about("runs"):
        write_report(runs_folder(options), out, published=PUBLISHED)
    print(f"wrote {options.out}")


def _add_bench(commands: Any) -> None:
    text = "time one training step by plain torch, by others and by our engines, side by side"
    parser = add_command(commands, "bench", _bench, text)
    parser.add_argument("--model", default="cifar_resnet_14", help="the network (cifar_resnet_14)")
    parser.add_argument("--trainable", default="bn", metavar="SUBSET", help="what trains (bn)")
    parser.add_argument(
        "--precision", default="both", metavar="PRECISION", help="fp32, bf16 or both (both)"
    )
    parser.add_argument(
        "--batch-size", type=reader("batch_size"), metavar="N",
        help="images a step (128; ImageNet networks on a CPU: 8)",
    )  # fmt: skip
    parser.add_argument("--contenders", metavar="A,B", help="all but torch-compile-max, or these")
    parser.add_argument(
        "--repeats", type=reader("batch_size"), default=7, metavar="N", help="timed rounds (7)"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 (auto)")
    parser.add_argument(
        "--memory", action="store_true", help="on a CPU: peak memory, in a process each"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--out", metavar="FILE", help="write the JSON to a file too")
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
    if out is not None and (out.is_dir() or not out.parent.is_dir()):
        raise InputError(f"{out} cannot be written: name a file in a folder that exists", "out")
    with about("precision"):
        precisions = bench.choose_precisions(options.precision)
    result = bench.measure(
        case, contenders, precisions, repeats=options.repeats, memory=options.memory,
        say=lambda line: print(line, file=sys.stderr),
    )  # fmt: skip
    text = json.dumps(result, indent=1)
    if out is not None:
        out.write_text(text + "\n", encoding="utf-8")
    if options.json:
        print(text)
    else:
        make_console(sys.stdout).print(bench.bench_table(result))
        print("", *bench.bench_lines(result), sep="\n")
    if wrong := bench.faults(result):
        raise RunError("; ".join(wrong))


if __name__ == "__main__":
    sys.exit(main())
