"""Run folders to rows, groups and sections: the numbers behind every table. curves.py has those
behind the figures.

Reads what the store holds and nothing else: no model is built and nothing is measured again. Runs
that failed or are still going get a row like any other; they only never enter a mean.
"""

import json
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

from gammabeta.errors import InputError, RunError
from gammabeta.spec import RunSpec
from gammabeta.store import RunFolder

DAMAGED = "damaged"
_NOT_RECIPE = ("format", "model", "trainable", "data", "seed")
_NEAR_BN = ("bn", "gamma", "beta", "random")  # parts of a subset, the nearest to bn first


@dataclass(frozen=True)
class RunRow:
    """One run. Accuracies and shares are fractions in 0..1; None = not recorded (yet).

    status: ok, failed, running, stopped, or damaged (a file of the folder cannot be read).
    epochs: asked for; epochs_done: recorded. trained, total: entries that train, and all entries of
    all parameters (running statistics are no parameters); share = trained / total.
    test_accuracy, test_top5, small_gammas: after the last recorded epoch, never the best one.
    small_gammas: share of the network's gammas with |gamma| < 0.01, as recorded by the run.
    seconds: training time, evaluation left out: the sum over the recorded epochs.
    """

    id: str
    status: str
    model: str
    trainable: str
    data: str
    recipe: str
    seed: int
    epochs: int
    epochs_done: int
    trained: int | None
    total: int | None
    share: float | None
    test_accuracy: float | None
    test_top5: float | None
    small_gammas: float | None
    seconds: float | None
    error: str | None


@dataclass(frozen=True)
class Spread:
    """Mean, lowest and highest of n values, one a seed. No standard deviation: n is often 3."""

    mean: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class GroupRow:
    """All seeds of one subset. n: finished runs, the only ones in the spreads; unfinished: the
    rest, whether failed, stopped or running. A spread is None where no finished run has a value."""

    trainable: str
    trained: int | None
    total: int | None
    share: float | None
    n: int
    unfinished: int
    test_accuracy: Spread | None
    test_top5: Spread | None
    small_gammas: Spread | None
    seconds: Spread | None


@dataclass(frozen=True)
class Section:
    """Runs that can be compared: equal but for subset and seed, and on the same data. recipe: the
    rest of the spec. sha256: of the data; None where no run says it.

    rows and groups: of all of them; runs: only those whose folder can be read.
    """

    data: str
    model: str
    recipe: dict[str, Any]
    runs: tuple[RunFolder, ...]
    rows: tuple[RunRow, ...]
    groups: tuple[GroupRow, ...]
    sha256: str | None = None


def run_rows(runs: Iterable[RunFolder]) -> list[RunRow]:
    """One row a run, in the order given."""
    return [_row(run) for run in runs]


def damage_of(run: RunFolder) -> str | None:
    """Why a run can be in no table and no figure, in a line; None where it can: its spec.json,
    inputs.json and metrics.jsonl can be read and hold what training writes."""
    if run.damage is not None:
        return run.damage
    try:
        run.metrics()
        inputs = run.inputs
    except RunError as error:
        return str(error)
    data, subset, tensors = (inputs.get(key) for key in ("data", "subset", "tensors"))
    if (
        _holds(data, {"sha256": str, "source": str, "train": int, "test": int, "num_classes": int})
        and _holds(subset, {"trained": int, "total": int})
        and isinstance(tensors, list)
        and all(_holds(row, {"name": str, "role": str, "trained": int}) for row in tensors)
    ):
        return None
    path = run.path / "inputs.json"
    return f"{path} is damaged: remove the run folder and train it again"


def _holds(found: Any, kinds: dict[str, type]) -> bool:
    return isinstance(found, dict) and all(
        isinstance(found.get(key), kind) for key, kind in kinds.items()
    )


def spread(values: Iterable[float | None]) -> Spread | None:
    """Mean, lowest, highest and count of the values that are there; None when none is."""
    known = [value for value in values if value is not None]
    if not known:
        return None
    return Spread(math.fsum(known) / len(known), min(known), max(known), len(known))


def group_rows(rows: Iterable[RunRow]) -> list[GroupRow]:
    """One row a subset, the smallest subset first. The rows should differ in subset and seed only,
    as those of one `Section` do."""
    members: dict[str, list[RunRow]] = {}
    for row in rows:
        members.setdefault(row.trainable, []).append(row)
    return sorted((_group(name, each) for name, each in members.items()), key=_size)


def sections(runs: Iterable[RunFolder]) -> list[Section]:
    """Runs sorted into those that can be compared, the section with most finished runs first; of
    equally many, the longest."""
    members: dict[tuple[str, str, str], list[tuple[RunFolder, RunRow]]] = {}
    for run in runs:
        row = _row(run)
        members.setdefault((row.data, row.model, row.recipe), []).append((run, row))
    found = []
    for (data, model, recipe), alike in sorted(members.items()):
        for sha256, pairs in _by_data(alike).items():
            rows = tuple(row for _, row in pairs)
            groups = tuple(group_rows(rows))
            folders = tuple(run for run, row in pairs if row.status != DAMAGED)
            found.append(Section(data, model, json.loads(recipe), folders, rows, groups, sha256))
    return sorted(found, key=lambda section: (-sum(group.n for group in section.groups),
                                              -_length(section)))  # fmt: skip


def _length(section: Section) -> int:
    """Training images that a run of a section sees."""
    images = max((run.inputs["data"]["train"] for run in section.runs), default=0)
    return int(section.recipe.get("epochs", 0)) * images


def _by_data(
    pairs: Sequence[tuple[RunFolder, RunRow]],
) -> dict[str | None, list[tuple[RunFolder, RunRow]]]:
    """Runs by the sha256 of their data; those that do not say it go with the first that does."""
    of = [None if row.status == DAMAGED else run.inputs["data"]["sha256"] for run, row in pairs]
    first = next((sha256 for sha256 in of if sha256 is not None), None)
    found: dict[str | None, list[tuple[RunFolder, RunRow]]] = {}
    for sha256, pair in zip(of, pairs, strict=True):
        found.setdefault(sha256 or first, []).append(pair)
    return found


def compared(done: Sequence[GroupRow]) -> tuple[GroupRow, list[GroupRow]]:
    """What a reader wants to hold beside each other, of groups that have an accuracy: bn (or what
    comes nearest to it), and its rivals: the random weights nearest in number, and everything."""
    main = min(done, key=_distance_to_bn)
    random = [group for group in done if re.fullmatch(r"random:\d+", group.trainable)]
    random.sort(key=lambda group: abs((group.trained or 0) - (main.trained or 0)))
    rivals = [*random[:1], *(group for group in done if group.trainable == "all")]
    return main, [group for group in rivals if group is not main]


def _distance_to_bn(group: GroupRow) -> int:
    """bn, then subsets with bn in them, with gamma, beta, random weights, others, all, none."""
    if group.trainable == "bn":
        return 0
    last = len(_NEAR_BN) + 1
    if group.trainable in ("all", "none"):
        return last + ("all", "none").index(group.trainable) + 1
    added = group.trainable.partition("-")[0]  # all-bn has nothing of bn
    parts = {part.partition(":")[0] for part in added.split("+")}
    return next((place for place, part in enumerate(_NEAR_BN, start=1) if part in parts), last)


def is_above(group: GroupRow, other: GroupRow) -> bool:
    """Whether the worst seed of one is better than the best seed of the other."""
    ours, theirs = group.test_accuracy, other.test_accuracy
    return ours is not None and theirs is not None and ours.low > theirs.high


def is_paper_recipe(section: Section) -> bool:
    """Whether the runs follow the paper's CIFAR-10 recipe on all its images, in any precision."""
    paper = RunSpec(model=section.model, data="cifar10").to_dict()
    recipe = {**section.recipe, "precision": paper["precision"]}
    same = all(paper.get(key) == value for key, value in recipe.items())
    whole = all(
        (run.inputs["data"]["train"], run.inputs["data"]["test"]) == (50_000, 10_000)
        for run in section.runs
    )
    return section.data == "cifar10" and same and whole


def headings(parts: Sequence[Section]) -> list[str]:
    """A name for each section, all different: model, data, epochs, and what sets the recipe, or
    the data's sha256, apart from those of the same model and data. Defaults, also those that follow
    from the optimizer or the schedule, go without saying where more than one field differs."""
    twins: dict[tuple[str, str], list[Section]] = {}
    for part in parts:
        twins.setdefault((part.data, part.model), []).append(part)
    fields = {key: _telling(each) for key, each in twins.items()}
    marks = {key: len({part.sha256 for part in each}) > 1 for key, each in twins.items()}
    short, full = (
        [
            _heading(part, fields[part.data, part.model], complete)
            + (f", data {(part.sha256 or '?')[:8]}" if marks[part.data, part.model] else "")
            for part in parts
        ]
        for complete in (False, True)
    )
    return [
        name if short.count(name) == 1 else whole for name, whole in zip(short, full, strict=True)
    ]


def _telling(twins: Sequence[Section]) -> list[str]:
    """The fields in which sections differ, without those that are at their default in each."""
    defaults = [_defaults(each) for each in twins]
    return [
        key
        for key in sorted({key for each in twins for key in each.recipe} - {"epochs"})
        if any(each.recipe.get(key) != twins[0].recipe.get(key) for each in twins)
        and any(
            each.recipe.get(key) != default.get(key)
            for each, default in zip(twins, defaults, strict=True)
        )
    ]


def _heading(section: Section, fields: Sequence[str], complete: bool) -> str:
    recipe, default = section.recipe, _defaults(section)
    named = [
        (key, value)
        for key in fields
        for value in [recipe.get(key)]
        if complete
        or (value not in (None, [], {}) and (len(fields) == 1 or value != default.get(key)))
    ]
    start = f"{section.model} on {section.data}, {counted(section.rows[0].epochs, 'epoch')}"
    return ", ".join([start, *(f"{key.replace('_', ' ')} {plain(value)}" for key, value in named)])


def _defaults(section: Section) -> dict[str, Any]:
    """A recipe nobody asked for, but for what follows from the section's optimizer and schedule."""
    usual = RunSpec().to_dict()
    chosen = {key: section.recipe.get(key, usual[key]) for key in ("optimizer", "schedule")}
    try:
        resolved = RunSpec(model=section.model, data=section.data, **chosen).to_dict()
    except InputError:  # a spec that this gammabeta would refuse: nothing in it is a default
        return {}
    return resolved | {key: usual[key] for key in chosen}


def counted(number: int, noun: str) -> str:
    """1 epoch, 2 epochs."""
    return f"{number:,} {noun}{'s' if number != 1 else ''}"


def in_percent(share: float, places: int = 1, sign: bool = False) -> str:
    """A share in per cent, without the sign %: rounded half up as it reads in decimals, so that a
    mean is the same wherever it is shown. 0.2495 -> 25.0, of which :.1f makes 24.9 or 25.0 by how
    it was multiplied."""
    if not math.isfinite(share):
        return str(share)
    exact = 100 * Decimal(f"{share:.12g}")
    rounded = exact.quantize(Decimal(1).scaleb(-places), ROUND_HALF_UP)
    return f"{rounded:+f}" if sign else f"{rounded:f}"


def plain(value: Any) -> str:
    """A value of a recipe as a reader would write it."""
    if isinstance(value, dict):
        return ", ".join(f"{key}={plain(each)}" for key, each in value.items()) or "none"
    if isinstance(value, list):
        return ", ".join(map(plain, value)) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        short = f"{value:g}"
        return short if float(short) == value else repr(value)  # two values never read the same
    return "none" if value is None else str(value)


def _row(run: RunFolder) -> RunRow:
    spec, result, status, error = run.spec, run.result or {}, str(run.status), None
    metrics: list[dict[str, Any]] = []
    subset: dict[str, Any] = {}
    if (damage := damage_of(run)) is not None:
        result, status, error = {}, DAMAGED, damage
    else:
        metrics, subset = run.metrics(), run.inputs["subset"]
    last = {**(metrics[-1] if metrics else {}), **result}
    trained, total = subset.get("trained"), subset.get("total")
    seconds = [finite(row.get("seconds")) for row in metrics]
    return RunRow(
        id=run.id,
        status=status,
        model=str(spec.get("model", "")),
        trainable=str(spec.get("trainable", "")),
        data=str(spec.get("data", "")),
        recipe=json.dumps({k: v for k, v in spec.items() if k not in _NOT_RECIPE}, sort_keys=True),
        seed=int(finite(spec.get("seed")) or 0),
        epochs=int(finite(spec.get("epochs")) or 0),
        epochs_done=run.epochs_done,
        trained=trained,
        total=total,
        share=trained / total if total and trained is not None else None,
        test_accuracy=finite(last.get("test_accuracy")),
        test_top5=finite(last.get("test_top5")),
        small_gammas=finite(last.get("small_gammas")),
        seconds=math.fsum(s for s in seconds if s is not None) if metrics else None,
        error=result.get("error", error),
    )


def _group(trainable: str, rows: Sequence[RunRow]) -> GroupRow:
    finished = [row for row in rows if row.status == "ok"]
    sized = next((row for row in rows if row.total), rows[0])
    return GroupRow(
        trainable=trainable,
        trained=sized.trained,
        total=sized.total,
        share=sized.share,
        n=len(finished),
        unfinished=len(rows) - len(finished),
        test_accuracy=spread(row.test_accuracy for row in finished),
        test_top5=spread(row.test_top5 for row in finished),
        small_gammas=spread(row.small_gammas for row in finished),
        seconds=spread(row.seconds for row in finished),
    )


def _size(group: GroupRow) -> tuple[float, str]:
    return (math.inf if group.trained is None else group.trained, group.trainable)


def finite(value: Any) -> float | None:
    """A finite float, or None for what is missing, null or not finite (a diverged run)."""
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None
