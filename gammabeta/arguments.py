"""The flags of the command line: how they are read, and what to write instead of a wrong one.

RunSpec's fields make the flags, so there is one list of them.
"""

import argparse
import json
import math
import re
import typing
from collections.abc import Mapping, Sequence
from dataclasses import fields
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType
from typing import Any

from gammabeta.errors import InputError, about, suggest
from gammabeta.field_help import field_help, values_of
from gammabeta.parser import OnOff, as_flag
from gammabeta.spec import RunSpec

FIELDS = tuple(item.name for item in fields(RunSpec))
# Arguments of `train` and `sweep`; the defaults are theirs.
_EXECUTION = ("runs", "data_dir", "engine", "device", "in_step", "jobs")
# Of `data.Reading`, which `train` and `sweep` take as "reading".
_READING = ("workers", "skip_broken", "image_store")
_ON_OFF = ("nesterov", "flip")
_MOST = 10_000  # runs of one command


def with_source(error: InputError, options: dict[str, Any]) -> str:
    """The message, with the flag in place of Python's name, or with the spec file before it."""
    text, name = str(error), error.about
    if name is None:
        return text
    if name in (field for field, _ in options.get("members") or ()):
        return f"--members: {text}"
    if name == "seed" and "seeds" in options:
        return f"--seeds: {text}"
    if name in FIELDS and name not in options and options.get("spec") is not None:
        return f"{options['spec']}: {text}"
    renamed, count = re.subn(rf"^{name}\b", as_flag(name), text)
    return renamed if count or name not in options else f"{as_flag(name)}: {text}"


def add_command(commands: Any, name: str, function: Any, text: str) -> Any:
    parser = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
    parser.set_defaults(command=function)
    return parser


def finish(parser: Any) -> None:
    """To be called when all arguments are there. Defaults that argparse knows are put into --help;
    the texts of the others say what happens without them."""
    for action in parser._actions:
        known = action.option_strings and action.nargs != 0
        if known and action.default not in (None, argparse.SUPPRESS, []):
            action.help = f"{action.help} (default: %(default)s)"
    flags = [flag for action in parser._actions for flag in action.option_strings]
    parser.set_defaults(known_flags=flags)


REPLACED = "one that is there is replaced"  # in the help of every file that a command writes


def add_runs_folder(parser: Any) -> None:
    text = "where runs are kept (default: runs)"
    parser.add_argument("--runs", default=argparse.SUPPRESS, metavar="DIR", help=text)


def add_execution(parser: Any) -> None:
    add_runs_folder(parser)
    known = (("device", "auto, cpu, cuda, cuda:1"), ("engine", "auto, eager, lean, fused"))
    for name, text in known:
        parser.add_argument(f"--{name}", default=argparse.SUPPRESS, help=f"{text} (default: auto)")


def add_data(parser: Any) -> None:
    """Where the data set is, and how the images of imagenet are read."""
    texts: tuple[tuple[str, type, str, str], ...] = (
        ("--data-dir", str, "DIR", "where the data set's files are (default: $GAMMABETA_DATA)"),
        ("--workers", int, "N", "imagenet: threads that decode images (default: one a processor)"),
        (
            "--image-store",
            str,
            "FILE",
            "imagenet: keep shrunk images in this file, and read it (default: none)",
        ),
    )
    for flag, kind, metavar, text in texts:
        parser.add_argument(flag, type=kind, default=argparse.SUPPRESS, metavar=metavar, help=text)
    parser.add_argument(
        "--skip-broken", action="store_true", default=argparse.SUPPRESS,
        help="imagenet: leave out images that cannot be decoded (all are checked first)",
    )  # fmt: skip


def execution(options: argparse.Namespace) -> dict[str, Any]:
    """What was given of how a run is executed, as keywords for `train`."""
    given = {name: value for name, value in vars(options).items() if name in _EXECUTION}
    if reading := {name: value for name, value in vars(options).items() if name in _READING}:
        from gammabeta.data import Reading

        given["reading"] = Reading(**reading)
    return given


def runs_folder(options: argparse.Namespace) -> Path:
    name = vars(options).get("runs", "runs")
    if not name:
        raise InputError("the folder for runs has no name: write for example runs", "runs")
    return Path(name)


def add_spec(
    parser: Any, without: Sequence[str] = (), defaults: Mapping[str, Any] = MappingProxyType({})
) -> None:
    """What a run is, by --spec and a flag for each field, and how it is executed. without: fields
    that get no flag. defaults: those that are not RunSpec's."""
    parser.usage = "%(prog)s [OPTION ...]"  # thirty lines of flags would tell nobody anything
    parser.add_argument(
        "--spec",
        metavar="FILE",
        help="start from this spec.json, whose values are then the defaults; flags override it (a "
        "new --optimizer brings its own lr) (default: no file)",
    )
    recipe = "" if defaults else " (the defaults are the paper's CIFAR-10 recipe)"
    science = parser.add_argument_group(f"what is trained{recipe}")
    for item in fields(RunSpec):
        if item.name in without:
            continue
        if item.name in _ON_OFF:
            keywords: dict[str, Any] = {"action": OnOff}
        else:
            keywords = {"type": reader(item.name), "metavar": values_of(item.name)}
        text = field_help(item.name, defaults).replace("%", "%%")
        science.add_argument(as_flag(item.name), default=argparse.SUPPRESS, help=text, **keywords)
    how = parser.add_argument_group("how it is executed (never changes what a run is)")
    add_data(how)
    add_execution(how)
    how.add_argument(
        "--in-step",
        type=int,
        default=argparse.SUPPRESS,
        metavar="N",
        help="of several runs: how many train in step, in one program, at most (default: 32)",
    )


def add_seeds(parser: Any) -> None:
    text = "one run for each seed: 0-4, 0,3,7 or 0-2,9 (default: one run)"
    parser.add_argument(
        "--seeds", type=_read_seeds, default=argparse.SUPPRESS, metavar="LIST", help=text
    )


def add_members(parser: Any) -> None:
    parser.add_argument(
        "--members",
        action="append",
        type=_read_axis,
        default=[],
        metavar="FIELD=VALUES",
        help="one run for each value, as in lr=0.01,0.1 or seed=0-4; between values that have "
        "commas themselves write a semicolon; given more than once: every combination "
        "(default: none)",
    )


def reader(name: str) -> Any:
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
                if found := [number(part) for part in text.split(",") if part]:
                    return found
                raise ValueError  # a variable of the shell that is not set would be another recipe
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


def _read_seeds(text: str) -> list[int]:
    """0-2,9 -> [0, 1, 2, 9]"""
    found: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        if not re.fullmatch(r"\d{1,19}(-\d{1,19})?", part.strip(), re.ASCII):
            raise argparse.ArgumentTypeError(
                f"'{part}' is no seed and no range of seeds: write for example 0-4 or 0,3,7"
            )
        low, high = int(first), int(last or first)
        if low > high:
            raise argparse.ArgumentTypeError(f"'{part}' runs backwards: write {high}-{low}")
        if high - low + len(found) >= _MOST:
            raise argparse.ArgumentTypeError(f"'{text}' is more than {_MOST:,} seeds: write fewer")
        found += range(low, high + 1)
    return found


def _read_axis(text: str) -> tuple[str, list[Any]]:
    """lr=0.01,0.1 -> ("lr", [0.01, 0.1]). Values are read as the field's own flag reads one."""
    name, equals, listed = text.partition("=")
    name = name.strip().removeprefix("--").replace("-", "_")
    if not equals:
        raise argparse.ArgumentTypeError(f"'{text}' has no values: write for example lr=0.01,0.1")
    if name in _EXECUTION:
        raise argparse.ArgumentTypeError(
            f"{name} is no part of what a run is, but of how it is executed: write {as_flag(name)}"
        )
    if name not in FIELDS:
        raise argparse.ArgumentTypeError(f"unknown field '{name}': {suggest(name, FIELDS)}")
    if not listed:
        raise argparse.ArgumentTypeError(f"'{text}' has no values: write at least one behind the =")
    if name == "seed":
        return name, _read_seeds(listed)
    read = _read_on_off if name in _ON_OFF else reader(name)
    kind = typing.get_type_hints(RunSpec)[name]
    commas = typing.get_origin(kind) is tuple or ";" in listed  # within a value
    try:
        return name, [read(value) for value in listed.split(";" if commas else ",")]
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(f"{name}: {error}") from None


def _read_on_off(text: str) -> bool:
    known = {"yes": True, "true": True, "no": False, "false": False}
    if text not in known:
        raise argparse.ArgumentTypeError(f"'{text}' is not yes or no")
    return known[text]


def read_specs(options: argparse.Namespace) -> tuple[list[RunSpec], list[str]]:
    """The specs of --members and --seeds, and the fields that these vary."""
    from gammabeta.sweep import grid

    given = [(name, f"--members {name}", values) for name, values in vars(options)["members"]]
    if "seeds" in options:
        given.append(("seed", "--seeds", options.seeds))
    axes = {name: values for name, _, values in given}
    given += [(name, as_flag(name), []) for name in FIELDS if name in options]
    for name in axes:
        by = [flag for each, flag, _ in given if each == name]
        if len(by) > 1:
            meant = "write one of them" if len(set(by)) > 1 else f"write {by[0]}=A,B"
            raise InputError(f"{name} is given twice, by {' and '.join(by)}: {meant}")
    if math.prod(len(values) for values in axes.values()) > _MOST:
        raise InputError(f"--members and --seeds make over {_MOST:,} runs: write fewer")
    base, flags = read_base(options)
    # A flag is one more list, of one value: so it goes before what would follow from a member's.
    return grid(base, {name: [value] for name, value in flags.items()} | axes), list(axes)


def read_spec(options: argparse.Namespace) -> RunSpec:
    base, changes = read_base(options)
    return base.replace(**changes)


def read_base(options: argparse.Namespace) -> tuple[RunSpec, dict[str, Any]]:
    """The spec to start from, and what flags change of it."""
    changes = {name: value for name, value in vars(options).items() if name in FIELDS}
    if re.fullmatch("[0-9a-f]{64}|", changes.get("weights", "")) is None:
        from gammabeta.weights import keep_weights

        with about("weights"):
            changes["weights"] = keep_weights(changes["weights"])
    if options.spec is None:
        return RunSpec(), changes
    try:
        text = Path(options.spec).read_text(encoding="utf-8")
        spec = RunSpec.from_dict(json.loads(text, object_pairs_hook=_distinct))
    except OSError as error:
        message = f"cannot read {options.spec} ({error.strerror}): name a file such as spec.json"
        raise InputError(message, "spec") from None
    except InputError as error:
        raise InputError(f"{options.spec}: {error}") from None
    except (ValueError, RecursionError) as error:
        raise InputError(
            f'{options.spec}: this is no JSON ({error}): write for example {{"epochs": 2}}, or '
            "start from what gammabeta train --print-spec --json prints"
        ) from None
    return spec, changes


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; where a key comes twice, json itself would keep the last in silence."""
    names = [name for name, _ in pairs]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"'{name}' is there twice: write it once")
    return dict(pairs)
