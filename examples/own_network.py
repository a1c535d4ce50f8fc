"""Train only the norms and the head of a network of your own, in your own loop, and keep what was
trained as a file of kilobytes. Every other weight stays at its random start.

    pip install 'gammabeta[demo]'
    python examples/own_network.py
"""

import argparse
import tempfile
from itertools import pairwise
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

import gammabeta
from gammabeta.data import load_dataset


class Network(nn.Module):
    """Four convolutions and a head: nothing in it knows of gammabeta."""

    def __init__(self, classes=10):
        super().__init__()
        widths = (3, 32, 64, 64, 128)
        self.convs = nn.ModuleList(
            nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False)
            for before, after in pairwise(widths)
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for width in widths[1:])
        self.head = nn.Linear(widths[-1], classes)

    def forward(self, images):  # N 3 32 32
        for conv, norm in zip(self.convs, self.norms, strict=True):
            images = F.relu(norm(conv(images)))
        return self.head(images.mean((2, 3)))  # N classes


def random_network():
    """The same random start each time it is called."""
    torch.manual_seed(0)
    return Network()


def images(split):
    """float32 (N, 3, 32, 32) about 0, and the labels (N,)."""
    pixels = torch.from_numpy(split.images).permute(0, 3, 1, 2)
    return pixels / 127.5 - 1, torch.from_numpy(split.labels)


@torch.no_grad()
def accuracy(model, pixels, labels):
    return (model.eval()(pixels).argmax(1) == labels).double().mean().item()


def main(steps=300):
    data = load_dataset("digits")
    pixels, labels = images(data.train)
    test = images(data.test)

    model = random_network()
    subset = gammabeta.select(model, "bn+output")  # or "bn", "gamma", "all-bn", "name:convs.0.*"
    print(subset)
    leaves = subset.apply(model)  # wraps nothing, renames nothing

    optimiser = torch.optim.SGD(leaves.values(), lr=0.05, momentum=0.9)
    draw = torch.Generator().manual_seed(0)
    print(f"before: test {accuracy(model, *test):.1%}")
    model.train()
    for _ in range(steps):
        batch = torch.randint(len(labels), (64,), generator=draw)
        optimiser.zero_grad()
        F.cross_entropy(model(pixels[batch]), labels[batch]).backward()
        optimiser.step()
    trained = accuracy(model, *test)
    print(f"after {steps} steps: test {trained:.1%}")

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "digits.delta"
        gammabeta.save_delta(model, subset, path)
        again = random_network()
        gammabeta.load_delta(again, path)  # refused on any other start
        same = accuracy(again, *test) == trained
        print(f"{path.stat().st_size:,} bytes; in a network from the same start, the same: {same}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="train the norms and the head of a network")
    parser.add_argument("--steps", type=int, default=300, help="of training (300)")
    main(parser.parse_args().steps)
