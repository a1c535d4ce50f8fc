"""The names of networks: their grammar, one canonical form, and help with wrong ones.

    cifar_resnet_<depth>[_<filters>]     depth = 6D+2; filters of the first stage, default 16
    cifar_vgg_<depth>                    depth 11, 13, 16 or 19
    imagenet_resnet_<depth>[_<filters>]  depth 18, 34, 50, 101, 152 or 200; filters default 64
    report_resnet20                      the bottleneck network of the report

Standard library only, so that a RunSpec can check its network; models/ builds them.
"""

import re
from typing import NamedTuple

from gammabeta.errors import InputError, suggest

VGG_DEPTHS = (11, 13, 16, 19)
IMAGENET_DEPTHS = (18, 34, 50, 101, 152, 200)
_DEFAULT_FILTERS = {"cifar_resnet": 16, "cifar_vgg": 0, "imagenet_resnet": 64}
_GRAMMAR = re.compile(r"(cifar_resnet|cifar_vgg|imagenet_resnet)_([0-9]{1,6})(?:_([0-9]{1,6}))?")

# Every network of the paper, in the order of its tables, and the one of the report.
PAPER_NETWORKS = (
    *(f"cifar_resnet_{depth}" for depth in (14, 32, 56, 110, 218, 434, 866)),
    *(f"cifar_resnet_14_{filters}" for filters in (32, 64, 128, 256, 512)),
    *(f"cifar_vgg_{depth}" for depth in VGG_DEPTHS),
    *(f"imagenet_resnet_{depth}" for depth in (18, 34, 50, 101, 200)),
    "report_resnet20",
)


class NetworkName(NamedTuple):
    """A name taken apart. filters: of the first stage; 0 where the family has no choice."""

    family: str
    depth: int
    filters: int

    def __str__(self) -> str:
        if self.family == "report_resnet20":
            return self.family
        width = "" if self.filters == _DEFAULT_FILTERS[self.family] else f"_{self.filters}"
        return f"{self.family}_{self.depth}{width}"


def parse_name(name: str) -> NetworkName:
    """Take a name apart; `str` of the result is its canonical form.

    Raises InputError, with the nearest right names, for a wrong one.
    """
    if name == "report_resnet20":
        return NetworkName(name, 20, 0)
    match = _GRAMMAR.fullmatch(name)
    if match is None or (match[1] == "cifar_vgg" and match[3]):
        raise InputError(f"unknown network '{name}': {suggest(name, PAPER_NETWORKS)}")
    family, depth = match[1], int(match[2])
    filters = int(match[3]) if match[3] else _DEFAULT_FILTERS[family]
    _check_depth(family, name, depth)
    if match[3] and not 1 <= filters <= 4096:
        raise InputError(f"{name}: write between 1 and 4096 filters, as in {family}_{depth}_32")
    return NetworkName(family, depth, filters)


def _check_depth(family: str, name: str, depth: int) -> None:
    if family == "cifar_resnet":
        if depth > 6002:
            raise InputError(f"{name}: the depth must be at most 6002")
        if depth >= 8 and depth % 6 == 2:
            return
        lower = max(8, (depth - 2) // 6 * 6 + 2)
        near = [lower, lower + 6]
        reason = "the depth must be 6D+2"
    else:
        known = VGG_DEPTHS if family == "cifar_vgg" else IMAGENET_DEPTHS
        if depth in known:
            return
        near = sorted(sorted(known, key=lambda each: abs(each - depth))[:2])
        reason = "no such depth"
    names = " or ".join(f"{family}_{each}" for each in near)
    raise InputError(f"{name}: {reason}; did you mean {names}?")


def readable(name: str) -> str:
    """A name as prose has it: cifar_resnet_14_64 is ResNet-14 ×4, of four times the usual width."""
    family, depth, filters = parse_name(name)
    kind = "VGG" if family == "cifar_vgg" else "ResNet"
    times = filters / _DEFAULT_FILTERS[family] if filters else 1
    return f"{kind}-{depth}" + (f" \N{MULTIPLICATION SIGN}{times:g}" if times != 1 else "")
