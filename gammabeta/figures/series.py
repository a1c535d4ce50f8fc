"""The points of an experiment sorted into the lines of its figure."""

from collections.abc import Sequence

from gammabeta.names import parse_name, readable
from gammabeta.paper.points import Point, View
from gammabeta.spec import RunSpec, differing

DEEPER, WIDER = "deeper", "wider"
_DEFAULT = RunSpec()
# What goes along an axis that is no field of RunSpec
_ALONG = {"parameters": ("trainable",), "threshold": ("model",), "epochs": ("model",)}


def series(view: View) -> dict[str, list[Point]]:
    """Line name -> its points in the order of the experiment. A line is what differs in nothing but
    the axis; on the axis "parameters" the network or the number of random weights goes along it."""
    if is_deep_against_wide(view):
        return _deep_and_wide(view)
    found: dict[str, list[Point]] = {}
    telling = _telling(view)
    for point in view.points:
        found.setdefault(_name(point.spec, telling), []).append(point)
    return found


def are_subsets(view: View) -> bool:
    """Whether the lines of the figure are subsets (they are networks otherwise)."""
    return "trainable" in _telling(view) or view.experiment.axis == "model"


def is_deep_against_wide(view: View) -> bool:
    """Whether one subset is shown over how many values it trains, in ever larger networks."""
    subsets = {point.spec.trainable for point in view.points}
    return view.experiment.axis == "parameters" and len(subsets) == 1


def _telling(view: View) -> list[str]:
    """The fields that tell lines apart."""
    axis = view.experiment.axis
    along = _ALONG.get(axis, (axis,))
    return [name for name in differing([p.spec for p in view.points]) if name not in along]


def _name(spec: RunSpec, telling: list[str]) -> str:
    parts = [readable(spec.model)] if "model" in telling else []
    parts += [spec.trainable] if "trainable" in telling else []
    for field in telling:
        value = getattr(spec, field)
        if field not in ("model", "trainable") and value != getattr(_DEFAULT, field):
            parts.append(f"{field.replace('_', ' ')} {value}")
    return ", ".join(parts) or spec.trainable


def _deep_and_wide(view: View) -> dict[str, list[Point]]:
    """The network in which both begin, the smallest, belongs to both."""
    names = [parse_name(point.spec.model) for point in view.points]
    depth, filters = min(name.depth for name in names), min(name.filters for name in names)
    pairs = list(zip(names, view.points, strict=True))
    return {
        DEEPER: [point for name, point in pairs if name.filters == filters],
        WIDER: [point for name, point in pairs if name.depth == depth],
    }


def batchnorm_values(model: str) -> int | None:
    """How many gammas and betas a CIFAR ResNet has, so that a published point has its place on the
    axis before a run of ours has counted them; None for another family."""
    family, depth, filters = parse_name(model)
    if family != "cifar_resnet":
        return None
    blocks = (depth - 2) // 6  # of each of the segments with 1, 2 and 4 times the filters
    channels = filters * (1 + 2 * blocks * (1 + 2 + 4) + (2 + 4))  # stem, blocks, two shortcuts
    return 2 * channels


def network_ticks(models: Sequence[str]) -> tuple[list[str], str]:
    """What stands at the ticks, and what they are: depths, or widths of one depth."""
    names = [parse_name(model) for model in models]
    if len({name.family for name in names}) > 1:
        return [readable(model) for model in models], "network"
    if len({name.filters for name in names}) == 1:
        kind = readable(models[0]).partition("-")[0]
        return [str(name.depth) for name in names], f"depth of the {kind}"
    if len({name.depth for name in names}) == 1:
        smallest = min(name.filters for name in names)
        ticks = [f"\N{MULTIPLICATION SIGN}{name.filters / smallest:g}" for name in names]
        first = readable(models[[name.filters for name in names].index(smallest)])
        return ticks, f"width of {first}"
    return [readable(model) for model in models], "network"
