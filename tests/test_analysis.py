"""Rows, curves and gammas from run folders made with the store; no network is built."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from gammabeta import analysis, curves
from gammabeta.errors import InputError
from gammabeta.gammas import small_share
from gammabeta.spec import RunSpec
from gammabeta.store import RunFolder

COUNTS = {"none": 0, "bn": 8, "random:2": 8, "all": 100}


def make_run(
    root: Path,
    trainable: str = "bn",
    accuracies: tuple[float | None, ...] = (0.5, 0.9),
    *,
    status: str | None = "ok",
    gamma: tuple[float, ...] = (0.0, 0.5, -0.02, 1.0),
    error: str = "the loss became nan",
    data_sha: str = "ab" * 32,
    **spec: object,
) -> RunFolder:
    values = {"data": "digits", "model": "cifar_resnet_14", "epochs": 2, **spec}
    made = RunSpec(trainable=trainable, **values)
    trained = COUNTS.get(trainable, 20)
    gamma_count = len(gamma) if trainable in ("bn", "all", "gamma") else 0
    inputs = {
        "data": {
            "name": made.data,
            "source": "5,000 <MNIST> digits",
            "sha256": data_sha,
            "train": 50_000 if made.data == "cifar10" else 4000,
            "test": 10_000 if made.data == "cifar10" else 1000,
            "num_classes": 10,
        },
        "subset": {"text": trainable, "trained": trained, "total": 100},
        "tensors": [
            {"name": "bn.weight", "role": "gamma", "shape": [4], "trained": gamma_count},
            {"name": "conv.weight", "role": "conv", "shape": [92], "trained": 0},
        ],
    }
    run = RunFolder.create(root, made.id, made.to_dict(), inputs)
    for epoch, accuracy in enumerate(accuracies, start=1):
        record = {"epoch": epoch, "test_accuracy": accuracy, "small_gammas": 0.25, "seconds": 1.5}
        run.append_metrics(record)
    if accuracies:
        tensors = {"trained/bn.weight": torch.tensor(gamma)} if gamma_count else {}
        tensors["statistics/bn.running_mean"] = torch.zeros(4)
        run.save_checkpoint(len(accuracies), tensors)
    if status == "ok":
        run.write_result({"status": "ok", **run.metrics()[-1]})
    if status == "failed":
        run.write_result({"status": "failed", "error": error})
    return run


def test_a_row_holds_the_last_epoch_not_the_best(tmp_path: Path) -> None:
    [row] = analysis.run_rows([make_run(tmp_path, accuracies=(0.9, 0.8))])
    assert (row.test_accuracy, row.share, row.seconds) == (0.8, 0.08, 3.0)
    assert (row.status, row.epochs, row.epochs_done, row.error) == ("ok", 2, 2, None)


@pytest.mark.parametrize(
    ("status", "accuracies", "shown", "error"),
    [
        ("failed", (0.4, None), None, "the loss became nan"),
        ("failed", (), None, "the loss became nan"),
        (None, (0.4,), 0.4, None),
    ],
)
def test_unfinished_runs_have_rows_and_enter_no_mean(
    tmp_path: Path,
    status: str | None,
    accuracies: tuple[float | None, ...],
    shown: float | None,
    error: str | None,
) -> None:
    runs = [
        make_run(tmp_path, accuracies=accuracies, status=status, seed=1),
        make_run(tmp_path, accuracies=(0.5, 0.8), seed=2),
    ]
    rows = analysis.run_rows(runs)
    assert (rows[0].status, rows[0].test_accuracy) == (status or "stopped", shown)
    assert rows[0].error == error
    [group] = analysis.group_rows(rows)
    assert (group.n, group.unfinished) == (1, 1)
    assert group.test_accuracy == analysis.Spread(0.8, 0.8, 0.8, 1)


def test_a_damaged_folder_is_named_and_left_out(tmp_path: Path) -> None:
    good, bad = make_run(tmp_path), make_run(tmp_path, seed=1)
    (bad.path / "metrics.jsonl").write_text("no json\n")
    [section] = analysis.sections([good, bad])
    assert [row.status for row in section.rows] == ["ok", "damaged"]
    assert "metrics.jsonl" in str(section.rows[1].error)
    assert section.runs == (good,)
    assert section.groups[0].n == 1


def test_groups_hold_mean_lowest_highest_and_smallest_subset_first(tmp_path: Path) -> None:
    runs = [make_run(tmp_path, "all", (0.98,))]
    runs += [make_run(tmp_path, accuracies=(each,), seed=n) for n, each in enumerate((0.6, 0.9))]
    groups = analysis.group_rows(analysis.run_rows(runs))
    assert [group.trainable for group in groups] == ["bn", "all"]
    reached = groups[0].test_accuracy
    assert reached is not None
    assert (reached.mean, reached.low, reached.high, reached.n) == (0.75, 0.6, 0.9, 2)


def test_sections_part_what_cannot_be_compared(tmp_path: Path) -> None:
    runs = [
        make_run(tmp_path, seed=0),
        make_run(tmp_path, "all", seed=1),
        make_run(tmp_path, lr=0.01),
        make_run(tmp_path, data="synthetic"),
    ]
    parts = analysis.sections(runs)
    assert [len(part.rows) for part in parts] == [2, 1, 1]
    assert analysis.headings(parts) == [
        "cifar_resnet_14 on digits, 2 epochs, lr 0.1",
        "cifar_resnet_14 on digits, 2 epochs, lr 0.01",
        "cifar_resnet_14 on synthetic, 2 epochs",
    ]


@pytest.mark.parametrize(
    ("recipes", "expected"),
    [
        # What follows from a choice goes without saying, and so does a default.
        ([{}, {"optimizer": "adam"}], [", optimizer sgd", ", optimizer adam"]),
        (
            [
                {},
                {"optimizer": "adam", "lr_by_role": {"output": 0.01}},
                {"optimizer": "adam", "schedule": "cosine", "lr": 0.01},
                {"epochs": 1, "batch_size": 32},
            ],
            [
                "",
                ", lr by role output=0.01, optimizer adam",
                ", lr 0.01, optimizer adam, schedule cosine",
                ", batch size 32",
            ],
        ),
        # One field only: all values, but not that there is none.
        ([{"subsample": 100}, {"subsample": 200}, {}], [", subsample 100", ", subsample 200", ""]),
        ([{"label_smoothing": 0.1}, {}], [", label smoothing 0.1", ", label smoothing 0"]),
        # A value that is none and no default is named where nothing else tells.
        (
            [{}, {"drops": ()}, {"lr": 0.2}],
            [", drops 0.5, 0.75, lr 0.1", ", drops none, lr 0.1", ", lr 0.2"],
        ),
        ([{"lr": 0.01}, {"lr": 0.0100000001}], [", lr 0.01", ", lr 0.0100000001"]),
    ],
)
def test_headings_name_only_what_tells_sections_apart(
    tmp_path: Path, recipes: list[dict[str, object]], expected: list[str]
) -> None:
    runs = [make_run(tmp_path, accuracies=(), status=None, **recipe) for recipe in recipes]
    parts = analysis.sections(runs)
    start = {run.id: f"cifar_resnet_14 on digits, {run.spec['epochs']} epoch" for run in runs}
    found = {
        part.runs[0].id: heading.removeprefix(start[part.runs[0].id]).removeprefix("s")
        for part, heading in zip(parts, analysis.headings(parts), strict=True)
    }
    assert [found[run.id] for run in runs] == expected


def test_headings_of_a_grid_are_all_different(tmp_path: Path) -> None:
    choices = [
        {"optimizer": "sgd", "momentum": 0.0},
        {"optimizer": "sgd"},
        {"optimizer": "adam", "betas": (0.0, 0.5)},
        {"optimizer": "adam"},
        {"optimizer": "adamw"},
    ]
    schedules = [{}, {"drops": ()}, {"drops": (), "drop_factor": 1.0}, {"schedule": "cosine"}]
    others = [{}, {"flip": True, "lr": 0.1}, {"weight_decay": 0.0, "subsample": 7}]
    runs = [
        make_run(tmp_path, accuracies=(), status=None, **first, **second, **third)
        for first in choices
        for second in schedules
        for third in others
    ]
    assert len(set(analysis.headings(analysis.sections(runs)))) == 60
    assert len({run.id for run in runs}) == 60


def test_curves_cover_the_epochs_that_all_seeds_have(tmp_path: Path) -> None:
    runs = [
        make_run(tmp_path, accuracies=(0.2, 0.4)),
        make_run(tmp_path, accuracies=(0.4, 0.8), seed=1),
        make_run(tmp_path, accuracies=(0.1,), seed=2, status=None),
        make_run(tmp_path, "all", (0.1, None), status=None),
        make_run(tmp_path, "random:2", (), status="failed"),
    ]
    bn, everything = curves.curves(runs)
    assert (bn.n, bn.finished, bn.epochs.tolist()) == (2, True, [1, 2])
    np.testing.assert_allclose(bn.mean, [0.3, 0.6])
    np.testing.assert_allclose([bn.low, bn.high], [[0.2, 0.4], [0.4, 0.8]])
    assert (everything.finished, everything.epochs.tolist()) == (False, [1])


def test_gammas_come_from_the_checkpoint_and_only_where_they_train(tmp_path: Path) -> None:
    found = curves.gammas(make_run(tmp_path))
    assert found is not None
    np.testing.assert_array_equal(found["bn"], np.array([0.0, 0.5, -0.02, 1.0], "f4"))
    assert curves.gammas(make_run(tmp_path, "random:2")) is None
    assert curves.gammas(make_run(tmp_path, accuracies=(), status="failed", seed=5)) is None


def test_gamma_pools_join_finished_seeds(tmp_path: Path) -> None:
    runs = [make_run(tmp_path, seed=seed) for seed in (0, 1)]
    runs += [make_run(tmp_path, seed=2, status=None), make_run(tmp_path, "random:2")]
    [pool] = curves.gamma_pools(runs)
    assert (pool.trainable, pool.n, pool.values.size) == ("bn", 2, 8)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.01, -0.01], 0.0),  # strictly below; and 0.01 in float32 is a little less than 0.01
        ([0.0099, -0.0099, 0.0, 0.5], 0.75),
        ([math.nextafter(0.01, 0)], 0.0),  # in float32 this is 0.01
    ],
)
def test_small_means_strictly_below_the_threshold(values: list[float], expected: float) -> None:
    assert small_share({"bn": np.array(values, dtype=np.float32)}) == expected


def test_small_share_counts_channels_not_layers() -> None:
    layers = {"a": np.zeros(3), "b": np.ones(1)}
    assert small_share(layers) == 0.75
    assert small_share(layers, threshold=2) == 1
    with pytest.raises(InputError, match="no gammas"):
        small_share({})


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, True),
        ({"seed": 3, "trainable": "all"}, True),
        ({"epochs": 159}, False),
        ({"lr": 0.05}, False),
        ({"precision": "bf16"}, True),
        ({"data": "cifar100"}, False),
        ({"subsample": 1000}, False),
    ],
)
def test_the_paper_is_compared_only_with_its_recipe(
    tmp_path: Path, changes: dict[str, object], expected: bool
) -> None:
    run = make_run(tmp_path, **{"data": "cifar10", "epochs": 160, **changes})
    assert analysis.is_paper_recipe(analysis.sections([run])[0]) is expected


def test_rivals_are_the_nearest_random_weights_and_everything(tmp_path: Path) -> None:
    names = ("bn", "random:2", "random:5", "all", "output")
    groups = analysis.group_rows(analysis.run_rows(make_run(tmp_path, name) for name in names))
    main, rivals = analysis.compared(groups)
    assert main.trainable == "bn"
    assert [rival.trainable for rival in rivals] == ["random:2", "all"]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("none", "beta", "gamma", "random:2", "all"), "gamma"),
        (("none", "beta", "bias+bn", "gamma"), "bias+bn"),
        (("none", "random:2", "output", "all-bn"), "random:2"),
        (("none", "all", "all-bn"), "all-bn"),
        (("none", "all"), "all"),
        (("none",), "none"),
    ],
)
def test_without_bn_the_nearest_subset_that_trains_stands_in(
    tmp_path: Path, names: tuple[str, ...], expected: str
) -> None:
    groups = analysis.group_rows(analysis.run_rows(make_run(tmp_path, name) for name in names))
    main, rivals = analysis.compared(groups)
    assert main.trainable == expected
    assert main not in rivals
