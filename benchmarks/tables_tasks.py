"""The table of the ten tasks in docs/deltas.md, from what tasks.py wrote."""

import json
import statistics
from pathlib import Path

from pieces import span, table, where

from gammabeta.spec import RunSpec


def tasks(results: Path) -> str:
    """Ten tasks on one random network, as they were trained and as a bank answers them."""
    found = json.loads((results / "tasks.json").read_text())
    rows, held, count = found["tasks"], found["bytes"], len(found["tasks"])
    spec = RunSpec.from_dict(rows[0]["spec"])
    head, also = ["is it ...", "alone, %", "mixed batches, %"], ""
    share = {how: [100 * row["correct"][how] for row in rows] for how in ("alone", "mixed")}
    if all("head" in row for row in rows):
        head.append("the head alone, %")
        share["head"] = [100 * row["head"]["correct"] for row in rows]
        also = (
            f" *The head alone*: only {rows[0]['head']['trained']:,} values of the classifier "
            "trained, on the same images, as long and at the same rate."
        )
    body = [
        [row["task"], *(f"{each:.2f}" for each in shares), f"{row['delta_bytes']:,}"]
        for row, *shares in zip(rows, *share.values(), strict=True)
    ]
    means = [f"{statistics.fmean(values):.2f}" for values in share.values()]
    body.append(["mean", *means, f"{held['deltas'] / count:,.0f}"])
    one, mixed = found["times"]["alone"], found["times"]["mixed"]
    parts = [
        f"{spec.model}, `{spec.trainable}`, seed {spec.seed}, {spec.epochs} epochs, "
        f"{spec.precision}; {found['images']:,} test images. {where(found['environment'])}" + also,
        table([*head, "bytes of the delta"], body),
        f"Other answers when mixed: {found['other_answers']} of {found['images']:,}; the largest "
        f"difference of a logit is {found['largest_difference']:.0e} of the largest logit. The "
        f"{count} deltas: {held['deltas']:,} bytes; the bank of them holds {held['bank']:,} beside "
        f"the network; {count} networks: {held['networks']:,}. One `activate`: "
        f"{span(found['activate'], 'us')}. {found['batch']} images of one task: "
        f"{span(one, 'ms')}; of all tasks, mixed: {span(mixed, 'ms')}.",
    ]
    return "\n\n".join(parts)
