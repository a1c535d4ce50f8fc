"""The non-author report as data: "The Power of Random Features of a CNN" (Sayak Paul, 2020).

Its notebooks, github.com/sayakpaul/Training-BatchNorm-and-Only-BatchNorm, trained one bottleneck
network (`report_resnet20`) for 75 epochs in every setting. Two more draw pictures of feature maps
and train nothing.

What a RunSpec does not say of them: they shuffle within a window of 1,024 images, cut the tails off
the normal weights, and Keras' Adam has epsilon 1e-7, torch's 1e-8. The TPU's runs make a batch of
128 images for each of eight cores (Varying_Batch_Sizes.ipynb tells both numbers), and each core has
a BatchNorm of its own, as recalled of Keras; here it sees the whole batch. Their seed is 666, set
once a notebook; here runs of one setting have the seeds 666, 667, ...

The notebooks name their optimiser and leave its settings alone. That Keras' defaults are then a
rate of 0.01 without momentum for SGD, and of 0.001 for Adam, is recalled, not looked up.
"""

import dataclasses
import functools
from collections import Counter
from dataclasses import dataclass

from gammabeta.spec import RunSpec

DEFECTS = {
    "schedule-unused": "the schedule is made and never given to the optimiser: one more run of "
    "plain SGD, at Keras' default rate (0.01, as recalled)",
    "rate-ends-early": "the rate has come down after 1,000 steps, long before the run ends",
    "frozen-statistics": "a frozen BatchNorm of Keras works in inference mode, with mean 0 and "
    "variance 1: the loss is constant, and the network does not normalise",
    "not-adam": "the report says that Adam was used for all experiments: this is SGD",
    "test-is-validation": "the validation images are the test images, and the best epoch was "
    "chosen on them: compare with `final`, not with `best`",
    "channels-shift": "the second notebook of pictures counts channels on from row to row, so that "
    "each image shows other ones (concerns no run)",
}


@dataclass(frozen=True)
class ReportRun:
    """One published run.

    name: its id at Weights & Biases; runs on the GPU, of which no id is known, have names of ours.
    notebook: the file it was trained in. published: what its code did. intended: what it was meant
    to do, None where that is the same. final, best: validation accuracy in percent, after epoch 75
    and of the best epoch (None: not told). defects: keys of DEFECTS; "not-adam" and
    "test-is-validation" change no spec.
    """

    name: str
    notebook: str
    published: RunSpec
    intended: RunSpec | None
    final: float
    best: float | None
    defects: tuple[str, ...]


_ADAM = RunSpec(
    model="report_resnet20", data="cifar10", epochs=75, batch_size=1024, seed=666,
    optimizer="adam", schedule="constant", weight_decay=0.0, norm_init="ones", bias_init="zeros",
    crop_padding=4, flip=False, brightness=0.5, normalisation="none",
)  # fmt: skip
_RAMP = _ADAM.replace(schedule="ramp", lr=4e-4)
_SGD = _ADAM.replace(optimizer="sgd", lr=0.01, momentum=0.0)  # "sgd" in Keras, as recalled
_COSINE = _SGD.replace(schedule="cosine", lr=0.1)
_LINEAR_COSINE = _SGD.replace(schedule="linear_cosine", lr=0.1)
_RESTARTS = _SGD.replace(schedule="cosine_restarts", schedule_steps=1000, lr=0.1)


@functools.cache
def report_runs() -> tuple[ReportRun, ...]:
    """Every run of the report, notebook by notebook; no two published specs are equal."""
    seen: Counter[RunSpec] = Counter()
    found = []
    for run in (*_gpu(), *_tpu()):
        repeat = seen[run.published]
        seen[run.published] += 1
        published = run.published.replace(seed=run.published.seed + repeat)
        found.append(dataclasses.replace(run, published=published))
    return tuple(found)


def report_points() -> tuple[RunSpec, ...]:
    """Every setting once, as published and, where that differs, as intended; with seed 0, as the
    seeds of another library draw other numbers anyway."""
    found = [spec for run in report_runs() for spec in (run.published, run.intended) if spec]
    return tuple(dict.fromkeys(spec.replace(seed=0) for spec in found))


def report_accuracy(spec: RunSpec) -> float | None:
    """The report's final accuracy of a setting, in 0..1: the mean where it was run more than once;
    None for what it never ran."""
    finals = _finals().get(spec.replace(seed=0, precision=_ADAM.precision))
    return sum(finals) / len(finals) / 100 if finals else None


@functools.cache
def _finals() -> dict[RunSpec, list[float]]:
    """The final accuracies of each published setting, which has seed 0 here."""
    found: dict[RunSpec, list[float]] = {}
    for run in report_runs():
        found.setdefault(run.published.replace(seed=0), []).append(run.final)
    return found


def _gpu() -> list[ReportRun]:
    """Batches of 128: all images, then the first 10,000, tested on the first 2,000."""
    full, small = "CIFAR10_Full.ipynb", "CIFAR10_Subset.ipynb"
    few = {"subsample": 10_000, "test_subsample": 2_000}
    early = ("rate-ends-early",)
    table = [
        ("full-all-sgd", full, "all", _SGD, 70.41, 71.75, ()),
        ("full-all-sgd-cosine", full, "all", _COSINE, 47.87, 47.97, early),
        ("full-all-sgd-linear-cosine", full, "all", _LINEAR_COSINE, 42.68, 42.76, early),
        ("full-bn-sgd", full, "bn", _SGD, 29.10, 29.10, ()),
        ("full-bn-sgd-restarts", full, "bn", _RESTARTS, 37.76, 37.87, ()),
        ("subset-all-sgd", small, "all", _SGD, 45.90, 47.15, ()),
        ("subset-all-sgd-cosine", small, "all", _COSINE, 47.25, 47.45, early),
        ("subset-all-sgd-linear-cosine", small, "all", _LINEAR_COSINE, 43.75, 44.15, early),
        ("subset-bn-sgd", small, "bn", _SGD, 19.95, 20.30, ()),
        ("subset-bn-sgd-restarts", small, "bn", _RESTARTS, 27.95, 28.20, ()),
    ]
    runs = []
    for name, notebook, trainable, setting, final, best, defects in table:
        spec = setting.replace(trainable=trainable, batch_size=128)
        if notebook == small:
            spec = spec.replace(**few)
        intended = None
        if defects:  # the rate comes down over the whole run
            spec, intended = spec.replace(schedule_steps=1000), spec
        runs.append(_run(name, notebook, spec, intended, final, best, defects))
    return runs


def _tpu() -> list[ReportRun]:
    """Batches of 1024, 128 on each of eight cores, but for one notebook."""
    full, sizes = "CIFAR10_Full_TPU.ipynb", "Varying_Batch_Sizes.ipynb"
    rates = "CIFAR10_Full_TPU_Different_LR_Schedules.ipynb"
    unused = ("schedule-unused", "rate-ends-early")
    frozen = _ADAM.replace(trainable="none", statistics="frozen")
    return [
        _run("vanilla_resnet", full, _trains(_SGD, "all"), None, 43.80),
        # Given to the optimiser, these schedules of 1,000 steps would end after 20 epochs.
        _run("resnet_lrsch_1", full, _trains(_SGD, "all"), _trains(_COSINE, "all"), 45.15, None,
             unused),
        _run("resnet_lrsch_2", full, _trains(_SGD, "all"), _trains(_LINEAR_COSINE, "all"), 45.00,
             45.65, unused),
        _run("bn-only-vanilla-1", full, _SGD, None, 18.02),
        _run("bn-only-lrsch-1", full, _RESTARTS, None, 23.11, 23.15),
        _run("resnet-adam", rates, _trains(_ADAM, "all"), None, 82.17, 83.40),
        _run("resnet-adam-rampup", rates, _trains(_RAMP, "all"), None, 61.15),
        _run("bn-only-adam", rates, _ADAM, None, 43.67, 43.73),
        _run("bn-only-adam-ramups", rates, _RAMP, None, 22.41, 22.46),
        _run("bn-bs-256-crctd", sizes, _ADAM.replace(batch_size=256), None, 48.94),
        _run("bn-bs-512", sizes, _ADAM.replace(batch_size=512), None, 44.48, 44.70),
        _run("bn-bs-1024-crctd-3", sizes, _ADAM, None, 42.55),
        _run("bn-bs-2048", sizes, _ADAM.replace(batch_size=2048), None, 39.09, 39.15),
        _run("all-layers-frozen", "All_Layers_Frozen.ipynb", frozen,
             frozen.replace(statistics="track"), 10.00, None, ("frozen-statistics",)),
    ]  # fmt: skip


def _trains(spec: RunSpec, trainable: str) -> RunSpec:
    return spec.replace(trainable=trainable)


def _run(
    name: str, notebook: str, published: RunSpec, intended: RunSpec | None, final: float,
    best: float | None = None, defects: tuple[str, ...] = (),
) -> ReportRun:  # fmt: skip
    """With the defects that follow from the setting."""
    if published.optimizer != "adam":
        defects = (*defects, "not-adam")
    defects = (*defects, "test-is-validation")
    return ReportRun(name, notebook, published, intended, final, best, defects)
