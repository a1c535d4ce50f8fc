"""The answers to what was measured on finished runs: gammas, clamping, and ReLUs that are off."""

from gammabeta.figures.measured import by_network, clamped, pools_by_network, quiet
from gammabeta.gammas import small_share
from gammabeta.names import readable
from gammabeta.paper.points import View
from gammabeta.report.origins import quoted
from gammabeta.report.trust import network
from gammabeta.sentences import percent


def on_gammas(view: View) -> str | None:
    """Of all gammas of a network; where bn and everything are there, one against the other."""
    told = []
    for model, pools in pools_by_network(view).items():
        shares = {pool.trainable: small_share(pool.values) for pool in pools}
        parts = [
            f"{percent(shares[pool.trainable])} under {pool.trainable} (n = {pool.n})"
            for pool in pools
        ]
        text = f"on {readable(model)} {' and '.join(parts)}"
        if "bn" not in shares or "all" not in shares:
            text += f", with no finished run of {'all' if 'bn' in shares else 'bn'} to compare"
        elif shares["all"]:
            text += f", {shares['bn'] / shares['all']:.1f} times as many"
        told.append(text)
    if not told:
        return None
    return f"Of all gammas, these end below 0.01 in size: {'; '.join(told)}.{quoted(view)}"


def on_clamp(view: View) -> str | None:
    """What clamping at 0.01 costs, beside clamping as many random gammas."""
    told = []
    for point in view.done:
        found = clamped(point)
        if found is not None:
            told.append(
                f"On {network(point)} under {point.spec.trainable}, {percent(found.share)} of "
                f"gammas are below 0.01; without them accuracy goes from {percent(found.before)} "
                f"to {percent(found.after)}, without as many random ones to "
                f"{percent(found.random)} (n = {found.n}, {found.images:,} test images)."
            )
    return " ".join(told) or None


def on_activity(view: View) -> str | None:
    told = []
    for model, points in by_network(view.done).items():
        known = [(point, each) for point in points if (each := quiet(point))]
        if known:
            same = len({each.images for _, each in known}) == 1
            parts = [
                f"{percent(each.mostly_off)} under {point.spec.trainable} (n = {each.n}"
                + ("" if same else f", on {each.images:,} test images") + ")"
                for point, each in known
            ]  # fmt: skip
            images = known[0][1].images
            seen = f", on {images:,} test images" if same and images else ""
            told.append(f"on {readable(model)} {' and '.join(parts)}{seen}")
    if not told:
        return None
    text = f"Off on more than 99 % of their inputs are these shares of features: {'; '.join(told)}."
    return text + quoted(view)
