"""`gammabeta run-info`: what is in a delta."""

import argparse
import difflib
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gammabeta.arguments import add_command, finish
from gammabeta.errors import InputError

if TYPE_CHECKING:
    from gammabeta.delta_file import Delta


def add(commands: Any) -> None:
    parser = add_command(commands, "run-info", _run_info, "tell what is in a delta")
    parser.add_argument("delta", metavar="DELTA", help="a file that gammabeta delta wrote")
    parser.add_argument("--json", action="store_true", help="print JSON")
    finish(parser)


def _run_info(options: argparse.Namespace) -> None:
    from gammabeta.delta_file import read_delta

    path = Path(options.delta)
    if re.fullmatch("[0-9a-f]{4,12}", options.delta) and not path.exists():
        raise InputError(
            f"{path} looks like a run, not like the file of a delta: gammabeta runs show {path} "
            f"tells of the run, gammabeta delta {path} FILE writes its delta"
        )
    if near := _near(path):
        raise InputError(f"{path} does not exist: did you mean {' or '.join(map(str, near))}?")
    delta = read_delta(path)
    if options.json:
        size = path.stat().st_size
        print(json.dumps({"path": str(path), "bytes": size, **delta.describe()}, indent=1))
    else:
        print_delta(delta, path)


def _near(path: Path) -> list[Path]:
    """The files beside it with names like its own, where it is not there."""
    try:
        if path.exists():
            return []
        names = [each.name for each in path.parent.iterdir() if each.is_file()]
    except (OSError, ValueError):
        return []
    return [path.parent / each for each in difflib.get_close_matches(path.name, names)]


def print_delta(delta: "Delta", path: Path) -> None:
    """A line for each thing that is known."""
    about = delta.describe()
    roles = ", ".join(
        f"{role} {count:,}" for role, count in sorted(about["trained_by_role"].items())
    )
    lines = {
        "delta": f"{path}, {path.stat().st_size:,} bytes",
        "trainable": f"{delta.text}: {delta.count:,} values ({roles or 'none'})",
        "statistics": f"{delta.statistics}, {about['running_statistics']:,} values",
    }
    if delta.network is None:
        lines["network"] = "of other origin: make it, then gammabeta.load_delta"
    else:
        words = [f"{key} {value}" for key, value in sorted(delta.network.items()) if key != "name"]
        lines["network"] = f"{delta.network['name']} ({', '.join(words)})"
    lines["architecture"] = f"sha256 {delta.architecture}"
    lines["frozen"] = f"{len(delta.frozen):,} tensors, sha256 {delta.frozen_sha256}"
    lines["saved with"] = ", ".join(
        f"{name} {each}" for name, each in sorted(delta.versions.items())
    )
    for key, value in sorted(delta.info.items()):
        lines[key] = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
    for key, text in lines.items():
        print(f"{key:13} {text}")
