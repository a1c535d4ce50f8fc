"""What the paper published, to stand beside what we measure.

Test accuracies on CIFAR-10 of the 160-epoch recipe, means of five replicates, in percent, read off
the main figure of the first version (arXiv 2003.00152v1) with an error of about 0.3 points, 0.5
where a line is partly hidden. Where nothing could be read there is nothing here.
"""

from gammabeta.spec import RunSpec

_NETWORKS = (
    "cifar_resnet_14",
    "cifar_resnet_32",
    "cifar_resnet_56",
    "cifar_resnet_110",
    "cifar_resnet_218",
    "cifar_resnet_434",
    "cifar_resnet_866",
    "cifar_resnet_14_32",
    "cifar_resnet_14_64",
    "cifar_resnet_14_128",
    "cifar_resnet_14_256",
    "cifar_resnet_14_512",
)
_PERCENT = {
    # ResNet-866: the abstract of versions 2 and 3 says 82, that of version 1 says 83.
    "bn": (48.1, 57.6, 62.9, 69.7, 75.6, 79.8, 82.0, 53.4, 59.6, 64.4, 68.2, 73.4),
    "bn+output+shortcut": (
        63.2, 66.7, 71.1, 74.7, 78.3, 80.5, 82.1, 72.6, 79.5, 83.4, 85.6, 86.8,
    ),
    "output+shortcut": (
        48.9, 45.8, 42.5, 19.4, 17.2, 12.8, 13.1, 57.6, 66.0, 73.1, 77.5, 79.8,
    ),
    "all": (90.5, 92.2, 93.2, 93.4, 93.4, 92.9, 92.8, 93.0, 94.1, 94.9, 95.1, 95.1),
    "none": (10.6, 10.3, 10.9, 10.4, 10.0, 10.4, 10.1, 10.4, 9.4, 10.1, 10.1, 9.7),
}  # fmt: skip

# (model, trainable) -> accuracy in 0..1
PUBLISHED: dict[tuple[str, str], float] = {
    (network, subset): percent / 100
    for subset, values in _PERCENT.items()
    for network, percent in zip(_NETWORKS, values, strict=True)
}


def published_accuracy(spec: RunSpec) -> float | None:
    """The paper's accuracy for a run of its own recipe, in 0..1; None for any other run.

    Precision is no part of the recipe: the paper's code had fp32 and fp16.
    """
    recipe = RunSpec(
        model=spec.model, trainable=spec.trainable, seed=spec.seed, precision=spec.precision
    )
    return PUBLISHED.get((spec.model, spec.trainable)) if spec == recipe else None
