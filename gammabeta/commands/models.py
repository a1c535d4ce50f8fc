"""`gammabeta models`: the networks and their parameter counts."""

import argparse
from typing import Any

from gammabeta.arguments import add_command, finish


def add(commands: Any) -> None:
    text = "list the networks of the paper with their parameter counts"
    parser = add_command(commands, "models", _models, text)
    parser.add_argument("--json", action="store_true", help="print JSON")
    finish(parser)


def _models(options: argparse.Namespace) -> None:
    from gammabeta.display import print_models

    print_models(options.json)
