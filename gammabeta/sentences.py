"""What the report says in words: every sentence is composed from the runs at hand."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from gammabeta.analysis import (
    DAMAGED,
    GroupRow,
    RunRow,
    Section,
    Spread,
    compared,
    counted,
    in_percent,
    is_above,
)
from gammabeta.curves import Curve, GammaPool
from gammabeta.gammas import small_share
from gammabeta.paper.points import other_data

_NOUNS = {
    "cifar10": "CIFAR-10 test images",
    "cifar100": "CIFAR-100 test images",
    "digits": "test digits",
    "imagenet": "ImageNet test images",
}
_ACTIONS = {
    "all": "Training everything",
    "none": "Training nothing",
    "bn": "Training only gamma and beta",
    "gamma": "Training only gamma",
    "beta": "Training only beta",
    "output": "Training only the classifier",
}
_WHOLE = {  # where the name of the subset would make an odd sentence
    "all": "the network in which everything trains",
    "none": "the network in which nothing trains",
}
NOTHING = "\u2013"  # an en dash, where there is no number
_SPACE = "\u202f"  # narrow, and no line breaks at it


def answer(section: Section) -> str:
    """One sentence: how far the subset gets, beside random weights and beside everything."""
    done = [group for group in section.groups if group.test_accuracy]
    if not done:
        states = Counter(row.status for row in section.rows)
        told = ", ".join(f"{count} {status}" for status, count in sorted(states.items()))
        return f"No run of {section.model} on {data_name(section)} has finished yet: {told}."
    main, rivals = compared(done)
    action = _action(main.trainable)
    text = f"{action} of {section.model}" if action.startswith("Training only") else action
    if main.trained is not None and main.total and main.share is not None:
        text += f" ({main.trained:,} of {main.total:,} values, {share(main.share)})"
    text += f" reaches {_accuracy(main)} on {_test_images(section)}"
    for rival in rivals:
        if rival.trainable == "all":
            text += f"; everything reaches {_accuracy(rival)}"
        elif rival.trained == main.trained:
            text += f"; the same number of randomly chosen weights reaches {_accuracy(rival)}"
        else:
            text += f"; {rival.trained:,} randomly chosen weights reach {_accuracy(rival)}"
    missing = {group.trainable for group in section.groups if not group.test_accuracy}
    text += f" ({seeds([main, *rivals])})"
    if main.trainable == "none" and missing:
        text += "; nothing that trains has finished yet"
    elif "bn" in missing:
        text += "; no run of bn has finished yet"
    return f"{text}."


def page_title(subsets: Iterable[str]) -> str:
    """What a page about runs of these subsets is about."""
    different = sorted(set(subsets))
    if "bn" in different:
        return _ACTIONS["bn"]
    return _action(different[0]) if len(different) == 1 else "Training parts of a network"


def _action(trainable: str) -> str:
    if match := re.fullmatch(r"random:(\d+)", trainable):
        return f"Training only {counted(int(match[1]), 'random weight')} per channel"
    return _ACTIONS.get(trainable, f"Training only the subset {trainable}")


def percent(value: float | None) -> str:
    """0.931 -> 93.1 %; an en dash for None."""
    return NOTHING if value is None else f"{in_percent(value)}{_SPACE}%"


def points(value: float | None) -> str:
    """A difference of two accuracies in percentage points, with its sign: 0.004 -> +0.4."""
    if value is None:
        return NOTHING
    text = in_percent(value, sign=True).replace("-", "\N{MINUS SIGN}")
    return "0.0" if text[1:] == "0.0" else text


def share(value: float | None) -> str:
    """A share that may be tiny: 0.0064 -> 0.64 %, 1 -> 100 %."""
    if value is None:
        return NOTHING
    number = 100 * value
    if 0 < number < 0.1:
        return f"{number:.2g}{_SPACE}%"
    return in_percent(value, 0 if value in (0, 1) else 1 if number >= 10 else 2) + f"{_SPACE}%"


def seconds(value: float | None) -> str:
    """Whole seconds from ten on."""
    return NOTHING if value is None else f"{value:,.0f}" if value >= 10 else f"{value:.1f}"


def _accuracy(group: GroupRow) -> str:
    return percent(group.test_accuracy.mean if group.test_accuracy else None)


def seeds(groups: Sequence[GroupRow] | Sequence[Spread]) -> str:
    """How many seeds the numbers of a sentence have."""
    counts = sorted({group.n for group in groups})
    if counts == [1]:
        return "one seed each" if len(groups) > 1 else "one seed"
    if len(counts) == 1:
        return f"means over {counts[0]} seeds"
    return f"means over {counts[0]} to {counts[-1]} seeds"


def _test_images(section: Section) -> str:
    other = other_data(section.runs)
    noun = "test images" if other else _NOUNS.get(section.data, f"{section.data} test images")
    count = data_of(section).get("test")
    text = f"{count:,} {noun}" if count else noun
    if size := _image_size(section):
        text += f" of {size} pixels"
    return f"{text} (not ImageNet: {'; '.join(other)})" if other else text


def data_name(section: Section) -> str:
    """What the runs saw: the data set by its name, unless it was given other pictures than those
    of that name; for pictures decoded from files, at which size."""
    other = other_data(section.runs)
    text = f"{'; '.join(other)} (not ImageNet)" if other else section.data
    return f"{text}, {size} pixels" if (size := _image_size(section)) else text


def _image_size(section: Section) -> int | None:
    """In pixels, where that is no property of the data set."""
    size = section.recipe.get("image_size")
    return size if section.data == "imagenet" and isinstance(size, int) else None


def data_of(section: Section) -> dict[str, Any]:
    """What the runs say of their data; {} if no folder can be read."""
    for run in section.runs:
        data: dict[str, Any] = run.inputs["data"]
        return data
    return {}


def reason(row: RunRow) -> str:
    """Why a run has not finished."""
    done = f"{row.epochs_done} of {counted(row.epochs, 'epoch')}"
    if row.status == "running":
        return f"still running, {done} done"
    if row.status == "stopped":
        return f"stopped after {done}: the same command again resumes it"
    if row.status == DAMAGED:
        return row.error or "damaged"
    return f"failed after {done}: {row.error or 'no reason was recorded'}"


def caption_curves(section: Section, drawn: Sequence[Curve], chance: float | None) -> str:
    text = f"Measured on {_test_images(section)} after every epoch. "
    if any(curve.n > 1 for curve in drawn):
        text += "Lines are means over seeds, bands reach from the lowest to the highest seed."
    else:
        text += "One seed for each line, so no spread is known."
    if not all(curve.finished for curve in drawn):
        text += " Lines marked unfinished are of runs that have not ended."
    done = [group for group in section.groups if group.test_accuracy]
    if done:
        main, rivals = compared(done)
        beside = " and ".join(_beside(main, rival) for rival in rivals)
        name = _WHOLE.get(main.trainable, main.trainable)
        text += f" After the last epoch {name} is at {_accuracy(main)}"
        text += f", {beside}." if beside else "."
    return text + _dotted(chance)


def _beside(main: GroupRow, rival: GroupRow) -> str:
    assert main.test_accuracy
    assert rival.test_accuracy
    points = 100 * (main.test_accuracy.mean - rival.test_accuracy.mean)
    if abs(points) < 0.05:
        return f"level with {rival.trainable}"
    return f"{abs(points):.1f} points {'above' if points > 0 else 'below'} {rival.trainable}"


def caption_bars(done: Sequence[GroupRow], chance: float | None) -> str:
    text = "Test accuracy after the last epoch (not the best one)"
    text += ", the smallest subset on top." if len(done) > 1 else "."
    if any(group.n > 1 for group in done):
        text += " Bars are means over seeds, whiskers reach from the lowest to the highest seed."
    main, rivals = compared(done)
    for rival in rivals:
        if rival.trained == main.trained and is_above(main, rival):
            text += f" {main.trainable} and {rival.trainable} train {main.trained:,} values each,"
            if main.n == rival.n == 1:
                text += f" yet {main.trainable} is above {rival.trainable} (one seed each)."
            else:
                every = f"every seed of {main.trainable} is above every seed of {rival.trainable}"
                text += f" yet {every}."
    return text + _dotted(chance)


def _dotted(chance: float | None) -> str:
    return f" Dotted: guessing, {percent(chance)}." if chance else ""


def caption_gammas(pools: Sequence[GammaPool]) -> str:
    counts = " and ".join(
        f"{pool.values.size:,} under {pool.trainable} (n{_SPACE}={_SPACE}{pool.n})"
        for pool in pools
    )
    return (
        "The values of gamma after training, all layers and seeds together: "
        f"{counts}. Same bins for all, each area is 1. A peak at zero is made of channels "
        "of which little more than beta is left, a constant."
    )


def caption_small(pools: Sequence[GammaPool], uniform: bool) -> str:
    told = " and ".join(
        f"{percent(small_share(pool.values))} under {pool.trainable}" for pool in pools
    )
    text = (
        "The share of gammas whose size is below t, for every t. A feature counts as switched off "
        f"below 0.01 (vertical line): {told}."
    )
    start = " Gammas start uniform in 0 to 1, so 1 % of them start there on average over seeds."
    return text + start * uniform
