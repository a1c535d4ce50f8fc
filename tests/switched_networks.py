"""Small networks to compact, and the checks of what becomes of them."""

import torch
import torch.nn.functional as F
from torch import nn

from gammabeta.compact import rewrite


class Small(nn.Module):
    """Two convolutions with BatchNorms and a linear layer; subclasses write the forward."""

    def __init__(self, classes=5, width=8):
        super().__init__()
        self.conv = nn.Conv2d(3, width, 3, padding=1)
        self.norm = nn.BatchNorm2d(width)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        self.after = nn.BatchNorm2d(width)
        self.fc = nn.Linear(width, classes)

    def start(self, x):
        return F.relu(self.norm(self.conv(x)))

    def features(self, x):
        return F.relu(self.after(self.second(self.start(x))))

    def forward(self, x):
        return self.fc(self.features(x).mean((2, 3)))


class CastsFirst(Small):
    def forward(self, x):
        return super().forward(x.float())


class CastsLast(Small):
    def forward(self, x):
        return super().forward(x).float()


class CastsWithin(Small):
    def forward(self, x):
        return self.fc(self.features(x).mean((2, 3)).float().softmax(1).type_as(x))


def drawn(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(2))


def check(module, found, *shapes):
    for shape in shapes:
        some = drawn(*shape)
        with torch.no_grad():
            expected = module(some)
            expected = expected["logits"] if isinstance(expected, dict) else expected
            torch.testing.assert_close(found.network(some), expected, rtol=1e-4, atol=1e-4)


def lost(found):
    return sum(row["before"] - row["after"] for row in found.ledger.layers())


def spoil(monkeypatch, by):
    """Let the rewriting move biases that it should not move."""
    move = rewrite._move_constants

    def wrong(plan):
        move(plan)
        for step in plan.graph.steps.values():
            if step.node.op == "linear":
                step.node.tensors["bias"].add_(by)

    monkeypatch.setattr(rewrite, "_move_constants", wrong)
