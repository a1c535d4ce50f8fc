"""The same mean reads the same in the README, on the page and in the terminal."""

import json
import math

import pytest
from stores import write_point
from test_benchmarks import script

from gammabeta import RunSpec, display, sentences
from gammabeta.analysis import in_percent
from gammabeta.paper import experiments
from gammabeta.paper.points import views
from gammabeta.store import list_runs


@pytest.mark.parametrize(
    ("share", "text"),
    [(0.2495, "25.0"), ((0.273 + 0.2393 + 0.2362) / 3, "25.0"), (0.24949, "24.9"), (0.0, "0.0"),
     (1.0, "100.0"), (0.0005, "0.1"), (-0.0035, "-0.4"), (0.1 + 0.0125, "11.3"), (0.99999, "100.0"),
     (1e-9, "0.0"), (math.nan, "nan")],
)  # fmt: skip
def test_a_share_is_rounded_half_up_as_it_reads(share, text):
    assert in_percent(share) == text


def test_the_page_the_readme_and_the_terminal_round_alike(tmp_path):
    """One mean, on the edge between two tenths: 24.95."""
    accuracies = (0.273, 0.2393, 0.2362)
    for seed, accuracy in enumerate(accuracies):
        write_point(
            tmp_path / "runs", RunSpec(trainable="random:2", epochs=16, seed=seed), accuracy
        )
    runs = list_runs(tmp_path / "runs")
    (view, *_) = views(experiments()["depth"], runs)
    (point,) = view.done
    assert point.accuracy.mean == pytest.approx(0.2495)
    assert sentences.percent(point.accuracy.mean).startswith("25.0")
    assert display.percent(point.accuracy.mean) == "24.95%"
    kept = [{"spec": run.spec, "result": {"test_accuracy": accuracy, "small_gammas": 0.0}}
            for run, accuracy in zip(runs, accuracies, strict=True)]  # fmt: skip
    (tmp_path / "cifar10.json").write_text(json.dumps(kept))
    assert "| 16 | 25.0 | 23.6-27.3 | 3 |" in script("tables").cifar10(tmp_path)
