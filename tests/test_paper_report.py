"""The runs of the non-author report: its table, typed again, against what the specs say."""

import pytest

from gammabeta import RunSpec
from gammabeta.build import check_network
from gammabeta.paper.report import DEFECTS, report_runs
from gammabeta.schedule import learning_rate_factor
from gammabeta.spec import differing

RUNS = {run.name: run for run in report_runs()}
# What trains, optimiser, rate, schedule, batch, images, final and best accuracy in percent.
TABLE = {
    "full-all-sgd": ("all", "sgd", 0.01, "constant", 128, 50, 70.41, 71.75),
    "full-all-sgd-cosine": ("all", "sgd", 0.1, "cosine", 128, 50, 47.87, 47.97),
    "full-all-sgd-linear-cosine": ("all", "sgd", 0.1, "linear_cosine", 128, 50, 42.68, 42.76),
    "full-bn-sgd": ("bn", "sgd", 0.01, "constant", 128, 50, 29.10, 29.10),
    "full-bn-sgd-restarts": ("bn", "sgd", 0.1, "cosine_restarts", 128, 50, 37.76, 37.87),
    "subset-all-sgd": ("all", "sgd", 0.01, "constant", 128, 10, 45.90, 47.15),
    "subset-all-sgd-cosine": ("all", "sgd", 0.1, "cosine", 128, 10, 47.25, 47.45),
    "subset-all-sgd-linear-cosine": ("all", "sgd", 0.1, "linear_cosine", 128, 10, 43.75, 44.15),
    "subset-bn-sgd": ("bn", "sgd", 0.01, "constant", 128, 10, 19.95, 20.30),
    "subset-bn-sgd-restarts": ("bn", "sgd", 0.1, "cosine_restarts", 128, 10, 27.95, 28.20),
    "vanilla_resnet": ("all", "sgd", 0.01, "constant", 1024, 50, 43.80, None),
    "resnet_lrsch_1": ("all", "sgd", 0.01, "constant", 1024, 50, 45.15, None),
    "resnet_lrsch_2": ("all", "sgd", 0.01, "constant", 1024, 50, 45.00, 45.65),
    "bn-only-vanilla-1": ("bn", "sgd", 0.01, "constant", 1024, 50, 18.02, None),
    "bn-only-lrsch-1": ("bn", "sgd", 0.1, "cosine_restarts", 1024, 50, 23.11, 23.15),
    "resnet-adam": ("all", "adam", 0.001, "constant", 1024, 50, 82.17, 83.40),
    "resnet-adam-rampup": ("all", "adam", 0.0004, "ramp", 1024, 50, 61.15, None),
    "bn-only-adam": ("bn", "adam", 0.001, "constant", 1024, 50, 43.67, 43.73),
    "bn-only-adam-ramups": ("bn", "adam", 0.0004, "ramp", 1024, 50, 22.41, 22.46),
    "bn-bs-256-crctd": ("bn", "adam", 0.001, "constant", 256, 50, 48.94, None),
    "bn-bs-512": ("bn", "adam", 0.001, "constant", 512, 50, 44.48, 44.70),
    "bn-bs-1024-crctd-3": ("bn", "adam", 0.001, "constant", 1024, 50, 42.55, None),
    "bn-bs-2048": ("bn", "adam", 0.001, "constant", 2048, 50, 39.09, 39.15),
    "all-layers-frozen": ("none", "adam", 0.001, "constant", 1024, 50, 10.00, None),
}


def test_the_runs_are_those_of_the_table():
    assert list(RUNS) == list(TABLE)
    for name, run in RUNS.items():
        spec = run.published
        thousands = (spec.subsample or 50_000) // 1000
        assert (spec.test_subsample or 10_000) == (2000 if thousands == 10 else 10_000)
        found = (
            spec.trainable, spec.optimizer, spec.lr, spec.schedule, spec.batch_size, thousands,
            run.final, run.best,
        )  # fmt: skip
        assert found == TABLE[name], name
        assert run.best is None or run.best >= run.final


def test_what_all_of_them_share():
    for run in RUNS.values():
        for spec in (run.published, run.intended or run.published):
            assert (spec.model, spec.data, spec.epochs) == ("report_resnet20", "cifar10", 75)
            assert (spec.momentum, spec.weight_decay, spec.flip) == (0, 0, False)
            assert (spec.brightness, spec.normalisation, spec.crop_padding) == (0.5, "none", 4)
            assert (spec.norm_init, spec.bias_init) == ("ones", "zeros")
            assert RunSpec.from_dict(spec.to_dict()) == spec


def test_every_published_run_is_another_run():
    assert len({run.published.id for run in RUNS.values()}) == len(RUNS) == 24
    # Those that differ in nothing but the seed: what the report repeated, knowing it or not.
    settings = {}
    for name, run in RUNS.items():
        settings.setdefault(run.published.replace(seed=666), []).append(name)
    assert sorted(names for names in settings.values() if len(names) > 1) == [
        ["bn-only-adam", "bn-bs-1024-crctd-3"],
        ["vanilla_resnet", "resnet_lrsch_1", "resnet_lrsch_2"],
    ]
    assert RUNS["vanilla_resnet"].published.seed == 666
    assert RUNS["resnet_lrsch_2"].published.seed == 668
    intended = [run.intended.id for run in RUNS.values() if run.intended]
    assert len({*intended, *(run.published.id for run in RUNS.values())}) == 24 + len(intended)


def test_a_defect_that_changes_a_run_says_how():
    changes = {
        "rate-ends-early": {"schedule_steps"},
        "schedule-unused": {"schedule", "lr", "seed"},
        "frozen-statistics": {"statistics"},
    }
    told = set()
    for run in RUNS.values():
        told |= set(run.defects)
        changed = next((changes[each] for each in run.defects if each in changes), set())
        assert (run.intended is not None) == bool(changed), run.name
        if run.intended is not None:
            different = set(differing([run.published, run.intended]))
            assert different - {"seed"} == changed - {"seed"}, run.name
        assert ("not-adam" in run.defects) == (run.published.optimizer == "sgd")
    assert told == DEFECTS.keys() - {"channels-shift"}


@pytest.mark.parametrize(
    ("name", "steps_per_epoch", "dead"),
    [
        ("full-all-sgd-cosine", 391, 3),
        ("full-all-sgd-linear-cosine", 391, 3),
        ("subset-all-sgd-cosine", 79, 13),
    ],
)
def test_the_published_rate_ends_early_and_the_intended_one_does_not(name, steps_per_epoch, dead):
    run = RUNS[name]
    for epoch in (dead, 74):
        step = epoch * steps_per_epoch
        assert learning_rate_factor(run.published, step, steps_per_epoch) <= 0.001
    assert learning_rate_factor(run.intended, dead * steps_per_epoch, steps_per_epoch) > 0.8


def test_every_run_can_be_built():
    for run in RUNS.values():
        for spec in {run.published, run.intended or run.published}:
            check_network(spec, 10)
    assert len({run.notebook for run in RUNS.values()}) == 6
