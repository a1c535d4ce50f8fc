"""Every table and figure of "Training BatchNorm and Only BatchNorm" (arXiv 2003.00152, ICLR 2021),
a function each: the docstring says what it shows, the function gives the recipes it needs.

Which experiments the paper has is known from its text and figures; where only its outline was at
hand (`source` says "as recalled"), the networks and subsets are our choice.

Every point on CIFAR has five seeds at the paper's scale, as its figures have; ImageNet three, as
recalled; and the report one, because each of its runs was a single one.
"""

import functools
from collections.abc import Callable, Iterable

from gammabeta.language import parse
from gammabeta.names import PAPER_NETWORKS, VGG_DEPTHS
from gammabeta.paper.experiment import Experiment
from gammabeta.paper.published import ALTERNATE_INIT
from gammabeta.paper.report import report_points
from gammabeta.spec import CHOICES, RunSpec

DEPTHS = tuple(name for name in PAPER_NETWORKS if name.startswith("cifar_resnet_")
               and name.count("_") == 2)  # fmt: skip
WIDTHS = ("cifar_resnet_14", *(name for name in PAPER_NETWORKS if "resnet_14_" in name))
VGGS = tuple(f"cifar_vgg_{depth}" for depth in VGG_DEPTHS)
IMAGENETS = tuple(name for name in PAPER_NETWORKS if name.startswith("imagenet_"))
SHALLOW = DEPTHS[:4]  # of the ablations, whose deep networks nobody has published
SUBSETS = tuple(
    str(parse(text))
    for text in ("bn", "all", "none", "random:2", "bn+shortcut+output", "shortcut+output", "output",
                 "bn+output", "bn+shortcut")
)  # fmt: skip
LEARNING_RATES = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)

_IMAGENET: dict[str, object] = {  # the recipe
    "data": "imagenet", "epochs": 90, "batch_size": 1024, "lr": 0.4,
    "drops": (1 / 3, 2 / 3, 8 / 9), "warmup_epochs": 5,
}  # fmt: skip

_MAIN = "main figure, read off version 1"
_APPENDIX = "appendix, as recalled"
_MADE: list[Callable[[], Experiment]] = []


def _experiment(
    *, question: str, caption: str, source: str, axis: str, replicates: int = 5,
    probes: tuple[str, ...] = (),
) -> Callable[[Callable[[], Iterable[RunSpec]]], Callable[[], Experiment]]:  # fmt: skip
    """Make an experiment of a function that gives its points; its name is the function's."""

    def wrap(points: Callable[[], Iterable[RunSpec]]) -> Callable[[], Experiment]:
        name = points.__name__.replace("_", "-")

        @functools.cache  # several hundred specs, each of them checked
        def make() -> Experiment:
            return Experiment(
                name, question, caption, source, axis, replicates, probes, tuple(points())
            )

        make.__doc__, make.__name__ = points.__doc__, points.__name__
        _MADE.append(make)
        return make

    return wrap


def experiments() -> dict[str, Experiment]:
    """All of them by name, in the order of the paper."""
    return {each.name: each for each in (make() for make in _MADE)}


def _grid(models: Iterable[str], subsets: Iterable[str], **fields: object) -> list[RunSpec]:
    subsets = tuple(subsets)
    return [
        RunSpec(**{"model": model, "trainable": subset, **fields})  # type: ignore[arg-type]
        for model in models
        for subset in subsets
    ]


@_experiment(
    question="Which networks, and how few of their parameters are gamma and beta?",
    caption="Parameters of every network of the paper, by what they are.",
    source="table of networks, v2", axis="",
)  # fmt: skip
def networks() -> list[RunSpec]:
    """Names and parameter counts; nothing trains. `gammabeta models` prints the same table."""
    return []


@_experiment(
    question="How far do gamma and beta get as the network grows deeper?",
    caption="Test accuracy on CIFAR-10 over depth.", source=_MAIN, axis="model",
)  # fmt: skip
def depth() -> list[RunSpec]:
    """ResNet-14 to ResNet-866: bn against everything, nothing, as many random weights, and bn with
    the classifier and the shortcuts; and bn from the alternate initialisation."""
    return _grid(DEPTHS, SUBSETS) + _grid(DEPTHS, ["bn"], norm_init=ALTERNATE_INIT)


@_experiment(
    question="How far do they get as it grows wider?",
    caption="Test accuracy on CIFAR-10 over the width of ResNet-14.", source=_MAIN, axis="model",
)  # fmt: skip
def width() -> list[RunSpec]:
    """ResNet-14 with 16 to 512 filters in its first stage, the subsets of `depth`."""
    return _grid(WIDTHS, SUBSETS) + _grid(WIDTHS, ["bn"], norm_init=ALTERNATE_INIT)


@_experiment(
    question="With the same number of gammas and betas, is depth or width better?",
    caption="Test accuracy over the number of BatchNorm parameters, deep and wide networks.",
    source="points of the main figure", axis="parameters",
)  # fmt: skip
def count() -> list[RunSpec]:
    """The bn runs of `depth` and `width`, over how many parameters trained."""
    return _grid(dict.fromkeys((*DEPTHS, *WIDTHS)), ["bn"])


@_experiment(
    question="How many random weights a channel are worth gamma and beta?",
    caption="Test accuracy when up to K randomly chosen weights of every output channel train (all "
    "of a filter that has fewer), over their number; the line is gamma and beta alone.",
    source=_APPENDIX, axis="parameters",
)  # fmt: skip
def random() -> list[RunSpec]:
    """random:K for K = 1, 2, 4, ... up to the whole largest filter, and bn on the same networks."""
    found = []
    for model in DEPTHS[:3]:
        largest = 9 * 64  # weights of the largest filter: 3 x 3 over 64 channels
        amounts = [2**power for power in range(10) if 2**power < largest] + [largest]
        found += _grid([model], ["bn", *(f"random:{amount}" for amount in amounts)])
    return found


@_experiment(
    question="When everything else trains, do gamma and beta matter?",
    caption="Test accuracy with gamma and beta frozen at their start, everything else trained, "
    "against everything trained.",
    source="figure 1, introduction of version 3", axis="model",
)  # fmt: skip
def frozen_bn() -> list[RunSpec]:
    """`all-bn` against `all`."""
    return _grid(SHALLOW, ["all", "all-bn"])


@_experiment(
    question="And on ImageNet, do gamma and beta matter when everything else trains?",
    caption="Test accuracy on ImageNet with gamma and beta frozen at their start, everything else "
    "trained, against everything trained.",
    source="figure 1, introduction of version 3, which tells of no network", axis="model",
    replicates=3,
)  # fmt: skip
def frozen_bn_imagenet() -> list[RunSpec]:
    """`frozen-bn` on ImageNet; the networks are our choice, and `all` is that of `imagenet`."""
    return _grid(IMAGENETS[:3], ["all", "all-bn"], **_IMAGENET)


@_experiment(
    question="Does it matter where gamma and beta start?",
    caption="Test accuracy of bn from four initialisations of gamma and beta.",
    source=_APPENDIX, axis="norm_init",
)  # fmt: skip
def norm_init() -> list[RunSpec]:
    """The four initialisers of gamma and beta."""
    return [RunSpec(model=m, norm_init=n) for m in SHALLOW for n in CHOICES["norm_init"]]


@_experiment(
    question="Does it matter how the frozen weights were drawn?",
    caption="Test accuracy of bn over four initialisations of the frozen weights.",
    source=_APPENDIX, axis="weight_init",
)  # fmt: skip
def weight_init() -> list[RunSpec]:
    """The four initialisers of the weights: the features that bn has to work with."""
    return [RunSpec(model=m, weight_init=w) for m in SHALLOW for w in CHOICES["weight_init"]]


@_experiment(
    question="Is it gamma or beta?",
    caption="Test accuracy with gamma alone, beta alone, and both.", source=_APPENDIX,
    axis="model",
)  # fmt: skip
def gamma_beta() -> list[RunSpec]:
    """`gamma` and `beta` against `bn`."""
    return _grid(SHALLOW, ["bn", "gamma", "beta"])


@_experiment(
    question="Is it the same without shortcuts?",
    caption="Test accuracy of the VGG networks.", source=_APPENDIX, axis="model",
)  # fmt: skip
def vgg() -> list[RunSpec]:
    """VGG-11 to VGG-19 with BatchNorm."""
    return _grid(VGGS, ["bn", "all", "none", "random:2", "bn+output"])


@_experiment(
    question="How does accuracy grow while they train?",
    caption="Test accuracy of ResNet-110 over the epochs.", source="learning curve, version 1",
    axis="epochs",
)  # fmt: skip
def curves() -> list[RunSpec]:
    """Learning curves of ResNet-110."""
    return _grid(["cifar_resnet_110"], ["bn", "bn+shortcut+output", "all", "random:2"])


@_experiment(
    question="Would another learning rate have changed the picture?",
    caption="Test accuracy over the learning rate, each subset with the same budget.",
    source=_APPENDIX, axis="lr",
)  # fmt: skip
def lr() -> list[RunSpec]:
    """The same grid of learning rates for each subset of ResNet-14."""
    subsets = ("bn", "all", "random:2", "output", "bn+output")
    return [
        RunSpec(trainable=subset, lr=rate, model="cifar_resnet_14")
        for subset in subsets
        for rate in LEARNING_RATES
    ]


@_experiment(
    question="What becomes of gamma and beta?",
    caption="Gamma and beta after training, bn against all: their distribution, and the share of "
    "gammas with |gamma| below a threshold.",
    source="figures of gamma, as recalled; shares told by third parties", axis="threshold",
    probes=("gammas",),
)  # fmt: skip
def gammas() -> list[RunSpec]:
    """Distributions of gamma and beta, of the whole network and layer by layer."""
    return _grid(SHALLOW, ["bn", "all"])


@_experiment(
    question="Are the small gammas really switched off?",
    caption="Test accuracy after every |gamma| below a threshold is set to zero, against as many "
    "gammas chosen at random.",
    source=_APPENDIX, axis="threshold", probes=("clamp",),
)  # fmt: skip
def clamp() -> list[RunSpec]:
    """Set small gammas to zero and test again, without any training."""
    return _grid(SHALLOW, ["bn", "all"])


@_experiment(
    question="How many features are off for nearly every image?",
    caption="For how many inputs each ReLU feature is zero, over test images and positions.",
    source=_APPENDIX, axis="threshold", probes=("activity",),
)  # fmt: skip
def activity() -> list[RunSpec]:
    """Features that are off on more than 99 % of inputs, by layer."""
    return _grid(SHALLOW, ["bn", "all"])


@_experiment(
    question="Is it the same with a hundred classes?",
    caption="Test accuracy on CIFAR-100 over depth.",
    source="told by a third party", axis="model",
)  # fmt: skip
def cifar100() -> list[RunSpec]:
    """`depth` on CIFAR-100, with the recipe of CIFAR-10: the same subsets and starts."""
    return [point.replace(data="cifar100") for point in depth().points]


@_experiment(
    question="How far do they get on ImageNet?",
    caption="Test accuracy on ImageNet over depth, first guess and first five.",
    source="abstract of versions 2 and 3, which gives the top-5 accuracy of the deepest network",
    axis="model", replicates=3,
)  # fmt: skip
def imagenet() -> list[RunSpec]:
    """ResNet-18 to ResNet-200 with the recipe of ImageNet: 90 epochs in batches of 1024 at a rate
    of 0.4, drops after 30, 60 and 80, a warm-up of 5."""
    return _grid(IMAGENETS, ["bn", "all", "random:2", "bn+output"], **_IMAGENET)


@_experiment(
    question="What did the report on the paper find, and does it hold?",
    caption="Test accuracy of the report's settings, as published and as intended; its numbers are "
    "of the validation set that is its test set.",
    source="notebooks of the non-author report", axis="", replicates=1, probes=("maps",),
)  # fmt: skip
def report() -> Iterable[RunSpec]:
    """Adam, SGD and their schedules, batch sizes, 10,000 images, everything frozen; and feature
    maps of its network. What is wrong with which run: `gammabeta.paper.report.DEFECTS`."""
    return report_points()
