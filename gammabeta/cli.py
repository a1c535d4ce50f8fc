"""The command line: argument parsing and printing only.

Exit codes: 0 done; 2 bad input (one line on stderr that says what to write instead, nothing
created); 1 it failed while running; 130 stopped by Ctrl-C (everything can be resumed).
argparse rather than a config library: a wrong use must give exactly one line.
"""

import argparse
import contextlib
import json
import os
import re
import sys
import typing
import warnings
from dataclasses import fields
from fractions import Fraction
from pathlib import Path
from typing import Any, NoReturn

import gammabeta
from gammabeta import language
from gammabeta.errors import GammabetaError, InputError, about, suggest
from gammabeta.names import parse_name
from gammabeta.spec import RunSpec

_FIELDS = tuple(item.name for item in fields(RunSpec))
_EXECUTION = ("runs", "data_dir", "engine", "device")  # arguments of `train`; the defaults are its


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
        return _fail(_with_source(error, vars(options)), 2)
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


def _with_source(error: InputError, options: dict[str, Any]) -> str:
    """The message, with the flag in place of Python's name, or with the spec file before it."""
    text, name = str(error), error.about
    if name is None:
        return text
    if name in _FIELDS and name not in options and options.get("spec") is not None:
        return f"{options['spec']}: {text}"
    renamed, count = re.subn(rf"^{name}\b", _flag(name), text)
    return renamed if count or name not in options else f"{_flag(name)}: {text}"


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _print_warning(message: Warning | str, *_: Any) -> None:
    print(f"gammabeta: note: {message}", file=sys.stderr)


class _Parser(argparse.ArgumentParser):
    """Errors are InputErrors of one line, with the nearest right word."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message} (see {self.prog} --help)")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            what = str(action.metavar or action.dest).lower()
            self.error(f"unknown {what} '{value}': {suggest(value, action.choices)}")

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        options, unknown = self.parse_known_args(args, namespace)
        if unknown and not unknown[0].startswith("-") and vars(options).get("id", "") is None:
            options.id = unknown.pop(0)  # argparse gives up on `runs show --runs DIR ID`
        if unknown:
            known = options.known_flags if "known_flags" in options else []
            raise InputError(_unknown(unknown[0], known))
        return options


def _unknown(word: str, known: list[str]) -> str:
    """What to write instead of an argument that no option wants."""
    if word.startswith("-"):
        flag = word.split("=")[0]
        return f"unknown argument '{flag}': {suggest(flag, known)}"
    for name, parse in (("trainable", language.parse), ("model", parse_name)):
        if _flag(name) in known:
            with contextlib.suppress(InputError):
                parse(word)
                return f"unknown argument '{word}': write {_flag(name)} {word}"
    return f"unknown argument '{word}': leave it out, or write its flag before it (see --help)"


def _parser() -> _Parser:
    parser = _Parser(prog="gammabeta", description=gammabeta.__doc__, allow_abbrev=False)
    parser.set_defaults(known_flags=["--help", "--version"])
    parser.add_argument("--version", action="version", version=gammabeta.__version__)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", parser_class=_Parser)
    parser.set_defaults(command=lambda options: parser.print_help())
    _add_demo(commands)
    _add_train(commands)
    _add_runs(commands)
    _add_models(commands)
    _add_report(commands)
    return parser


def _command(commands: Any, name: str, function: Any, text: str) -> Any:
    parser = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
    parser.set_defaults(command=function)
    return parser


def _finish(parser: Any) -> None:
    flags = [flag for action in parser._actions for flag in action.option_strings]
    parser.set_defaults(known_flags=flags)


def _add_runs_folder(parser: Any) -> None:
    text = "where runs are kept (runs)"
    parser.add_argument("--runs", default=argparse.SUPPRESS, metavar="DIR", help=text)


def _add_execution(parser: Any) -> None:
    _add_runs_folder(parser)
    for name, text in (("device", "auto, cpu, cuda, cuda:1"), ("engine", "auto or eager")):
        parser.add_argument(f"--{name}", default=argparse.SUPPRESS, help=f"{text} (auto)")


def _execution(options: argparse.Namespace) -> dict[str, Any]:
    """What was given of how a run is executed, as keywords for `train`."""
    return {name: value for name, value in vars(options).items() if name in _EXECUTION}


def _runs_folder(options: argparse.Namespace) -> Path:
    name = vars(options).get("runs", "runs")
    if not name:
        raise InputError("the folder for runs has no name: write for example runs", "runs")
    return Path(name)


def _add_demo(commands: Any) -> None:
    text = "train eight subsets on embedded digits and write report.html"
    parser = _command(commands, "demo", _demo, text)
    _add_execution(parser)
    parser.add_argument(
        "--out", default="report.html", metavar="FILE", help="the page (report.html)"
    )
    parser.add_argument("--json", action="store_true", help="print the table as JSON")
    _finish(parser)


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
    with TrainDisplay(tuple(spec.trainable for spec in specs)) as display:
        for spec in specs:
            display.next_run()
            trained.append(train(spec, **_execution(options), listen=display))
    print_demo(trained, options.json)
    write_report([run.folder for run in trained], Path(options.out))
    print(f"wrote {options.out}", file=sys.stderr)


def _add_train(commands: Any) -> None:
    parser = _command(commands, "train", _train, "train one run, or resume it")
    parser.add_argument(
        "--spec",
        metavar="FILE",
        help="start from this spec.json; flags override it (a new --optimizer brings its own lr)",
    )
    science = parser.add_argument_group("what is trained (default: the paper's CIFAR-10 recipe)")
    for item in fields(RunSpec):
        if item.name in ("nesterov", "flip"):
            keywords: dict[str, Any] = {"action": argparse.BooleanOptionalAction}
        else:
            keywords = {"type": _reader(item.name), "metavar": _metavar(item.name)}
        text = item.metadata["help"].replace("%", "%%")
        science.add_argument(_flag(item.name), default=argparse.SUPPRESS, help=text, **keywords)
    execution = parser.add_argument_group("how it is executed (never changes what a run is)")
    execution.add_argument(
        "--data-dir",
        default=argparse.SUPPRESS,
        metavar="DIR",
        help="where the data set's files are (default: $GAMMABETA_DATA)",
    )
    _add_execution(execution)
    execution.add_argument("--json", action="store_true", help="print the result as JSON")
    execution.add_argument(
        "--print-spec", action="store_true", help="print the resolved spec and its id, do not run"
    )
    _finish(parser)


def _metavar(name: str) -> str:
    return {"seed": "N", "epochs": "N", "batch_size": "N", "subsample": "N"}.get(name, "VALUE")


def _reader(name: str) -> Any:
    """A function that reads one field from its text; what is out of range, RunSpec says."""
    kind = typing.get_type_hints(RunSpec)[name]

    def number(text: str) -> float:
        return float(Fraction(text)) if "/" in text else float(text)

    def read(text: str) -> Any:
        try:
            if name.endswith("_by_role"):
                pairs = _pairs(text)
                if len({role for role, _ in pairs}) < len(pairs):
                    raise argparse.ArgumentTypeError(f"'{text}' names a role twice")
                return {role: number(value) for role, value in pairs}
            if typing.get_origin(kind) is tuple:
                return [number(part) for part in text.split(",") if part]
            if kind is float:
                return number(text)
            return text if kind is str else int(text)
        except (ValueError, ZeroDivisionError, OverflowError):
            raise argparse.ArgumentTypeError(f"'{text}' is not {_wanted(name, kind)}") from None

    return read


def _pairs(text: str) -> list[tuple[str, str]]:
    pairs = [part.partition("=") for part in text.split(",") if part]
    return [(role.strip(), value) for role, _, value in pairs]


def _wanted(name: str, kind: Any) -> str:
    if name.endswith("_by_role"):
        return "a list such as output=0.01,beta=0.2"
    if typing.get_origin(kind) is tuple:
        return "a list of numbers such as 1/2,3/4"
    return "a number" if kind is float else "a whole number"


def _read_spec(options: argparse.Namespace) -> RunSpec:
    changes = {name: value for name, value in vars(options).items() if name in _FIELDS}
    if options.spec is None:
        return RunSpec.from_dict(changes)
    try:
        spec = RunSpec.from_dict(json.loads(Path(options.spec).read_text(encoding="utf-8")))
    except OSError as error:
        message = f"cannot read {options.spec} ({error.strerror}): name a file such as spec.json"
        raise InputError(message, "spec") from None
    except InputError as error:
        raise InputError(f"{options.spec}: {error}") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{options.spec}: this is no JSON ({error})") from None
    return spec.replace(**changes)


def _train(options: argparse.Namespace) -> None:
    spec = _read_spec(options)
    if options.print_spec:
        from gammabeta.build import check_roles
        from gammabeta.models import architecture
        from gammabeta.subset import select

        if idle := ", ".join(_flag(name) for name in _execution(options)):
            raise InputError(f"--print-spec runs nothing: leave out {idle}")
        with about("trainable"):
            subset = select(architecture(spec.model), spec.trainable)
        check_roles(spec, subset)
        shown = json.dumps(spec.to_dict(), indent=1, sort_keys=True)
        print(shown if options.json else f"id {spec.id}\n{shown}")
        return
    from gammabeta.display import print_result, result_dict
    from gammabeta.listen import TrainDisplay
    from gammabeta.run import train

    with TrainDisplay() as display:
        run = train(spec, **_execution(options), listen=display)
    if options.json:
        print(json.dumps(result_dict(run), indent=1))
    else:
        print_result(run)


def _add_runs(commands: Any) -> None:
    parser = _command(commands, "runs", _runs_list, "list runs; runs show ID, runs rm ID")
    parser.add_argument("action", nargs="?", choices=["list", "show", "rm"], default="list")
    parser.add_argument("id", nargs="?", help="the run's id, or the start of it")
    _add_runs_folder(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--tensors", action="store_true", help="show: every tensor, not only roles")
    _finish(parser)


def _runs_list(options: argparse.Namespace) -> None:
    from gammabeta import display
    from gammabeta.store import find_run, list_runs

    root = _runs_folder(options)
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
    parser = _command(commands, "models", _models, text)
    parser.add_argument("--json", action="store_true", help="print JSON")
    _finish(parser)


def _models(options: argparse.Namespace) -> None:
    from gammabeta.display import print_models

    print_models(options.json)


def _add_report(commands: Any) -> None:
    parser = _command(commands, "report", _report, "write one HTML page about all runs")
    _add_runs_folder(parser)
    parser.add_argument(
        "--out", default="report.html", metavar="FILE", help="the page (report.html)"
    )
    _finish(parser)


def _report(options: argparse.Namespace) -> None:
    from gammabeta.paper import PUBLISHED
    from gammabeta.report import check_out, write_report

    out = Path(options.out)
    with about("out"):
        check_out(out)
    with about("runs"):
        write_report(_runs_folder(options), out, published=PUBLISHED)
    print(f"wrote {options.out}")


if __name__ == "__main__":
    sys.exit(main())
