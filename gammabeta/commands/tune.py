"""`gammabeta tune`: which subset to fine-tune, each at a learning rate of its own."""

import argparse
import json
import sys
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
from gammabeta.environment import check_alone
from gammabeta.errors import InputError

_LRS = "0.001,0.01,0.1,1"
# What a flag left out is here; the paper's recipe is for random weights.
_DEFAULTS = {
    "data": "imagenet", "model": "imagenet_resnet_18", "epochs": 10, "schedule": "cosine",
    "validation": 0.1,
}  # fmt: skip


def add(commands: Any) -> None:
    text = "fine-tune subsets on a folder of images, each at its own learning rate"
    parser = add_command(commands, "tune", _tune, text)
    parser.add_argument(
        "--subsets",
        default="bn+output,output,all",
        metavar="LIST",
        help="what to train, one after the other (bn+output,output,all)",
    )
    parser.add_argument(
        "--lrs",
        type=reader("drops"),
        default=_LRS,
        metavar="LIST",
        help=f"learning rates that each subset is trained at ({_LRS})",
    )
    parser.add_argument(
        "--out", default="tuned", metavar="DIR", help="for tune.json and a delta a subset (tuned)"
    )
    parser.add_argument("--json", action="store_true", help="print the table as JSON")
    add_spec(parser, without=("trainable", "lr"))
    finish(parser)


def _tune(options: argparse.Namespace) -> None:
    from gammabeta.display import print_tuned
    from gammabeta.listen import TrainDisplay
    from gammabeta.tune import delta_name, plan, save, tune

    check_alone("several runs are trained")
    out = Path(options.out)
    if not options.out or (out.exists() and not out.is_dir()) or not out.parent.is_dir():
        raise InputError(f"--out {options.out} is no folder and cannot become one: name another")
    subsets = [part for part in options.subsets.split(",") if part]
    names = [delta_name(subset) for subset in subsets]
    if len(set(names)) < len(names):
        raise InputError(f"--subsets {options.subsets} has two of one name: tune them apart")
    base, changes = read_base(options)
    if options.spec is None:
        changes = _DEFAULTS | changes
    spec = base.replace(**changes)
    groups = plan(spec, subsets, options.lrs, spec.validation)
    with TrainDisplay(sum(map(len, groups)) + len(groups)) as display:
        tuned = tune(
            spec, subsets, options.lrs, validation=spec.validation, listen=display,
            **{"runs": runs_folder(options)} | execution(options),
        )  # fmt: skip
    out.mkdir(exist_ok=True)
    files = [out / delta_name(each.subset) for each in tuned]
    for each, path in zip(tuned, files, strict=True):
        save(each, path)
    rows = print_tuned(tuned, files, options.json)
    (out / "tune.json").write_text(json.dumps(rows, indent=1) + "\n")
    print(f"wrote {out / 'tune.json'} and {len(files)} deltas", file=sys.stderr)
