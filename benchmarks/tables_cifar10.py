"""Tables of what trained on CIFAR-10: results/cifar10.json."""

import json
import re
from pathlib import Path
from typing import Any

from pieces import table

from gammabeta.analysis import in_percent, spread
from gammabeta.names import parse_name, readable
from gammabeta.paper import published_accuracy
from gammabeta.paper.experiments import SUBSETS
from gammabeta.paper.published import ALTERNATE_CAVEAT, is_recalled
from gammabeta.spec import RunSpec


def cifar10(results: Path) -> str:
    """The runs of the paper's experiments: means over seeds, beside what was published for the
    whole recipe. Amounts of random weights other than bn's have a table of their own."""
    groups: dict[tuple[int, RunSpec], list[dict[str, Any]]] = {}
    for run in json.loads((results / "cifar10.json").read_text()):
        spec = RunSpec.from_dict(run["spec"])
        if _random(spec) in (None, 2):
            groups.setdefault((-spec.epochs, spec.replace(seed=0, epochs=160)), []).append(run)
    rows = []
    for (epochs, recipe), members in sorted(groups.items(), key=_place):
        reached = spread(run["result"]["test_accuracy"] for run in members)
        small = spread(run["result"]["small_gammas"] for run in members)
        published = published_accuracy(recipe)
        start = "" if recipe.norm_init == "uniform" else f", {recipe.norm_init}"
        ends = f"{in_percent(reached.low)}-{in_percent(reached.high)}"
        span = ends if len(members) > 1 else "-"
        trains_gamma = any(part in recipe.trainable for part in ("bn", "gamma", "all"))
        rows.append([
            f"{readable(recipe.model)}, `{recipe.trainable}`{start}", f"{-epochs}",
            in_percent(reached.mean), span, f"{len(members)}",
            "-" if published is None else in_percent(published) + " *" * is_recalled(recipe),
            in_percent(small.mean) if trains_gamma and small else "-",
        ])  # fmt: skip
    head = ["what trains", "epochs", "test accuracy, %", "least-most", "seeds",
            "published, 160 epochs", "gammas below 0.01, %"]  # fmt: skip
    starred = any(row[5].endswith("*") for row in rows)
    return table(head, rows) + (f"\n\n\\* {ALTERNATE_CAVEAT}" if starred else "")


def random_weights(results: Path) -> str:
    """How far K random weights a channel get, beside gamma and beta, in the order of how many
    values train; only where everything else is as in that run of bn."""
    groups: dict[RunSpec, list[dict[str, Any]]] = {}
    for run in json.loads((results / "cifar10.json").read_text()):
        groups.setdefault(RunSpec.from_dict(run["spec"]).replace(seed=0), []).append(run)
    alike = {spec.replace(trainable="bn") for spec in groups if _random(spec)}
    rows = []
    for spec, members in groups.items():
        if spec.replace(trainable="bn") in alike and (_random(spec) or spec.trainable == "bn"):
            trained, total = (members[0]["subset"][key] for key in ("trained", "total"))
            reached = spread(run["result"]["test_accuracy"] for run in members)
            span = f"{in_percent(reached.low)}-{in_percent(reached.high)}"
            rows.append((trained, _random(spec) or 0, [
                f"{readable(spec.model)}, `{spec.trainable}`", f"{trained:,}",
                in_percent(trained / total), in_percent(reached.mean),
                span if len(members) > 1 else "-", f"{len(members)}",
            ]))  # fmt: skip
    head = ["what trains", "values", "of the network, %", "test accuracy, %", "least-most", "seeds"]
    return table(head, [cells for *_, cells in sorted(rows)])


def _random(spec: RunSpec) -> int | None:
    """K, where random:K is all that trains."""
    found = re.fullmatch(r"random:(\d+)", spec.trainable)
    return int(found[1]) if found else None


def _place(item: tuple[tuple[int, RunSpec], object]) -> tuple[Any, ...]:
    """The paper's length first, then by network, subset and start."""
    (epochs, recipe), _ = item
    name = parse_name(recipe.model)
    order = SUBSETS.index(recipe.trainable) if recipe.trainable in SUBSETS else len(SUBSETS)
    return epochs, name.depth, name.filters, order, len(recipe.trainable), str(recipe)
