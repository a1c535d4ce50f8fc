"""What the tests of the probes share: small trained runs, and a ResNet's forward pass by hand."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from few import SPEC, few_images

import gammabeta
from gammabeta.data.augment import normalise
from gammabeta.probe.make import load, plan
from gammabeta.probe.subject import make_subject

CPU = torch.device("cpu")


def trained(root, **changes):
    """A finished run on fifty test images, with gammas of both signs."""
    with pytest.MonkeyPatch.context() as patch:
        few_images(patch)
        patch.setenv("GAMMABETA_OFFLINE", "1")
        spec = dataclasses.replace(SPEC, epochs=1, norm_init="symmetric").replace(**changes)
        return gammabeta.train(spec, runs=root, engine="eager", device="cpu")


def subject_of(run, images=None):
    todo = plan(run, ["activity"], images=images, again=True)
    return make_subject(run, todo.checkpoint, load(todo, None), todo.images, CPU)


def all_images(run):
    """(images, labels) as the network wants them, without any of the code that makes batches."""
    data = load(plan(run, ["activity"], again=True), None)
    pixels = torch.from_numpy(data.test.images)
    return normalise(pixels, data.mean, data.std), torch.from_numpy(data.test.labels)


@torch.no_grad()
def by_hand(network, images):
    """A CIFAR ResNet written out: (ReLU outputs by name, convolution outputs by name, logits)."""
    relus, convolutions = {}, {}

    def convolve(name, x):
        convolutions[name] = network.get_submodule(name)(x)
        return convolutions[name]

    x = relus["relu1"] = F.relu(network.bn(convolve("conv", images)))
    for index, block in enumerate(network.blocks):
        name = f"blocks.{index}"
        y = relus[f"{name}.relu1"] = F.relu(block.bn1(convolve(f"{name}.conv1", x)))
        y = block.bn2(convolve(f"{name}.conv2", y))
        if len(block.shortcut):
            x = block.shortcut[1](convolve(f"{name}.shortcut.0", x))
        x = relus[f"{name}.relu2"] = F.relu(y + x)
    return relus, convolutions, network.fc(x.mean(dim=(2, 3)))
