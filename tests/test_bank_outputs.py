"""A mixed pass is the pass of the same batch under each task, or it is refused in one line."""

import copy

import pytest
import torch
from test_bank import assert_each_alone, made
from test_delta import moved, small
from torch import nn

from gammabeta import Bank, InputError, select
from gammabeta.delta import make_delta


@pytest.fixture(autouse=True)
def _same_draws():
    torch.manual_seed(0)


class Ends(nn.Module):
    """A small network, and one of several ways to end."""

    def __init__(self, end, classes=3):
        super().__init__()
        self.norm, self.head, self.end = nn.BatchNorm1d(4), nn.Linear(4, classes), end

    def forward(self, x):  # N 4 1
        return self.end(self, self.norm(x))


def squeezed(net, x):
    return net.head(x.squeeze())


def constant(net, x):
    return net.head(x.squeeze(-1)), torch.arange(5.0)


def weights(net, x):
    return net.head(x.squeeze(-1)), net.head.weight[:1]


def loss(net, x):
    logits = net.head(x.squeeze(-1))
    return {"logits": logits, "loss": logits.mean()}


def centred(net, x):
    return net.head(x.squeeze(-1) - x.squeeze(-1).mean(0))


def summed(net, x):
    return net.head(x.squeeze()).sum(0, keepdim=True) if x.shape[0] == 1 else net.head(x[..., 0])


@pytest.mark.parametrize(
    ("end", "classes", "message"),
    [
        (squeezed, 3, r"output has shape \(3,\) for a batch of one"),
        (squeezed, 1, r"output of one sample depends on what else"),  # (1,) looks like a sample
        (constant, 3, r"output\[1\] has shape \(5,\) for a batch of one"),
        (weights, 3, r"output\[1\] of one sample depends on what else"),
        (loss, 3, r"output\['loss'\] has no dimension .*leave labels out"),
        (centred, 3, r"output of one sample depends on what else"),
        (summed, 1, r"output of one sample depends on what else"),
        (lambda net, x: net.head(x[..., 0]).squeeze(), 1, "output has no dimension"),
    ],
)
def test_outputs_that_are_not_those_of_the_samples_are_refused(end, classes, message):
    bank, alone = made(Ends(end, classes), ["bn", "bn"])
    x, tasks = torch.randn(4, 4, 1), ["task0", "task1", "task0", "task1"]
    for _ in range(2):  # a refusal is not remembered as a check
        with pytest.raises(InputError, match=f"{message}.*write activate") as raised:
            bank.forward(x, tasks=tasks)
        assert "\n" not in str(raised.value)
    before = alone["task1"](x)
    after = bank.activate("task1").eval()(x)
    torch.testing.assert_close(after, before)


def test_a_warm_up_of_equal_samples_is_no_check():
    bank, _ = made(Ends(centred), ["bn", "bn"])
    bank.forward(torch.zeros(2, 4, 1), tasks=["task0", "task1"])
    with pytest.raises(InputError, match="depends on what else is in the batch"):
        bank.forward(torch.randn(2, 4, 1), tasks=["task0", "task1"])


def test_the_check_is_made_once_for_each_shape_and_takes_what_is_not_finite():
    passes = []

    def end(net, x):
        passes.append(len(x))
        logits = net.head(x[..., 0])
        return logits.masked_fill(logits > 0, -torch.inf), logits / 0, logits.argmax(1)

    bank, alone = made(Ends(end), ["bn", "bn"])
    for samples in (3, 5, 1):
        x = torch.randn(samples, 4, 1)
        ours = bank.forward(x, tasks=["task1"] * samples)
        with torch.no_grad():
            expected = alone["task1"](x)
        torch.testing.assert_close(ours, expected, equal_nan=True)
    assert passes == [1, 2, 3, 1, 5, 1, 1]  # the twos, and those of `alone`


def test_entries_that_are_attached_play_no_part():
    start, base = small(), small()
    select(base, "random:2").apply(base)  # trained here once
    bank = Bank(base)
    alone = {}
    for number, text in enumerate(["bn", "random:2", "all"]):
        network = copy.deepcopy(start)
        subset = select(network, text)
        bank.add(f"task{number}", make_delta(moved(network, subset, number), subset))
        alone[f"task{number}"] = network.eval()
    x = torch.randn(4, 3, 8, 8)
    for active in ("task1", "task2", None):
        bank.activate(active)
        assert_each_alone(bank, alone, x, ["task0", "task2", "task2", "task0"])
    bank.activate("task1")  # and they are awake again
    with torch.no_grad():
        torch.testing.assert_close(base.eval()(x), alone["task1"](x))
        base.conv.__dict__["_gammabeta_sparse"].leaf.add_(1.0)
        assert not torch.equal(base(x), alone["task1"](x))
