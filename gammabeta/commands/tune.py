"""`gammabeta tune`: which subset to fine-tune, each at a learning rate of its own."""

import argparse
import contextlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from gammabeta.arguments import (
    add_command,
    add_spec,
    execution,
    finish,
    read_base,
    reader,
    runs_folder,
)
from gammabeta.disk import encode_json, try_writing, write_atomically
from gammabeta.errors import InputError
from gammabeta.launch import check_alone
from gammabeta.spec import RunSpec

_LRS = "0.001,0.01,0.1,1"
# What a flag left out is here; the paper's recipe is for random weights.
_DEFAULTS = {"data": "imagenet", "epochs": 10, "schedule": "cosine", "validation": 0.1}
_MODEL = "imagenet_resnet_18"  # for imagenet; the images of the others are too small for it


def add(commands: Any) -> None:
    text = "fine-tune subsets on a folder of images, each at its own learning rate"
    parser = add_command(commands, "tune", _tune, text)
    parser.add_argument(
        "--subsets",
        default="bn+output,output,all",
        metavar="LIST",
        help="what to train, one after the other",
    )
    parser.add_argument(
        "--lrs",
        type=reader("drops"),
        default=_LRS,
        metavar="LIST",
        help="learning rates that each subset is trained at",
    )
    parser.add_argument(
        "--out", default="tuned", metavar="DIR", help="for tune.json and a delta a subset"
    )
    parser.add_argument("--json", action="store_true", help="print the table as JSON")
    models = f"{_MODEL}, for other data {RunSpec().model}"
    add_spec(parser, without=("trainable", "lr"), defaults=_DEFAULTS | {"model": models})
    finish(parser)


def _tune(options: argparse.Namespace) -> None:
    from gammabeta.analysis import counted
    from gammabeta.display import print_tuned
    from gammabeta.listen import TrainDisplay
    from gammabeta.tune import delta_name, plan, save, tune

    check_alone("several runs are trained")
    subsets = [part for part in options.subsets.split(",") if part]
    base, changes = read_base(options)
    if options.spec is None:
        changes = _DEFAULTS | changes
        if changes["data"] == "imagenet":
            changes = {"model": _MODEL} | changes
    spec = base.replace(**changes)
    groups = plan(spec, subsets, options.lrs, spec.validation)
    names = {delta_name(group[0].trainable) for group in groups}
    if len(names) < len(subsets):
        raise InputError(f"--subsets {options.subsets} has two of one name: tune them apart")
    how = {"runs": runs_folder(options)} | execution(options)
    with _folder(options.out, ["tune.json", *sorted(names)]) as out:
        with TrainDisplay(sum(map(len, groups)) + len(groups)) as display:
            tuned = tune(
                spec, subsets, options.lrs, validation=spec.validation, listen=display, **how
            )
        files = [out / delta_name(each.subset) for each in tuned]
        for each, path in zip(tuned, files, strict=True):
            save(each, path)
        rows = print_tuned(tuned, files, options.json)
        write_atomically(out / "tune.json", encode_json(rows))
    print(f"wrote {out / 'tune.json'} and {counted(len(files), 'delta')}", file=sys.stderr)


@contextlib.contextmanager
def _folder(text: str, names: Sequence[str]) -> Iterator[Path]:
    """The folder for these files, made and tried before hours of training, not after them. It is
    gone again if nothing came of it."""
    out, fresh = Path(text), False
    try:
        try:
            fresh = bool(text) and not out.exists()
            out.mkdir(exist_ok=True)
        except (OSError, ValueError) as error:
            fresh = False
            raise InputError(
                f"--out {text} is no folder and cannot become one ({_reason(error)}): name another"
            ) from None
        for name in names:
            try:
                try_writing(out / name)
            except (OSError, ValueError) as error:
                raise InputError(
                    f"--out {text} cannot hold {name} ({_reason(error)}): name another folder"
                    + (", or a subset with a shorter name" if len(name) > 100 else "")
                ) from None
        yield out
    finally:
        if fresh:
            with contextlib.suppress(OSError):  # there is something in it
                out.rmdir()


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)
