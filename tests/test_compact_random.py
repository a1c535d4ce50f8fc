"""Compaction of random networks, as people write them."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from switched_networks import check, drawn
from test_compact import switched_off
from torch import nn

from gammabeta.compact import compact_module
from gammabeta.compact.original import takes

SLOW = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # a busy machine


@st.composite
def modules(draw):
    """Random small networks as people write them."""
    torch.manual_seed(draw(st.integers(0, 10_000)))
    layers, width = [], 3
    for _ in range(draw(st.integers(1, 3))):
        kinds = (plain, plain, Block, depthwise, Joined, pool, Chooses, Places)
        made = draw(st.sampled_from(kinds))(draw, width)
        layers.append(made)
        width = made.width
    if draw(st.booleans()):
        head = [nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * width, 6), nn.BatchNorm1d(6)]
        head += [nn.ReLU(), nn.Linear(6, 3)]
    else:
        head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 3)]
    first = nn.BatchNorm2d(3) if draw(st.booleans()) else nn.Identity()
    return switched_off(nn.Sequential(first, *layers, *head), 0.5, draw(st.integers(0, 100)))


def plain(draw, width, stride=None, out=None):
    out = out or draw(st.integers(1, 6))
    dilation = draw(st.sampled_from([1, 1, 2]))
    stride = stride or draw(st.sampled_from([1, 1, 2]))
    mode = draw(st.sampled_from(["zeros", "zeros", "reflect"]))
    conv = nn.Conv2d(
        width, out, 3, stride, padding=dilation, dilation=dilation, bias=draw(st.booleans()),
        padding_mode=mode,
    )  # fmt: skip
    act = draw(st.sampled_from([nn.ReLU(), nn.PReLU(out), nn.Hardswish(), nn.SELU()]))
    made = nn.Sequential(conv, nn.BatchNorm2d(out), act)
    made.width = out
    return made


class Block(nn.Module):
    def __init__(self, draw, width):
        super().__init__()
        self.one, self.two = plain(draw, width, 1), None
        self.two = nn.Sequential(
            nn.Conv2d(self.one.width, width, 3, padding=1), nn.BatchNorm2d(width)
        )
        self.width = width

    def forward(self, x):
        return F.relu(self.two(self.one(x)) + x)


class Joined(nn.Module):
    def __init__(self, draw, width):
        super().__init__()
        self.more = plain(draw, width, 1)
        self.width = width + self.more.width
        self.norm = nn.BatchNorm2d(self.width)

    def forward(self, x):
        return F.relu(self.norm(torch.cat([x, self.more(x)], 1)))


def depthwise(draw, width):
    made = nn.Sequential(
        nn.Conv2d(width, 2 * width, 3, draw(st.sampled_from([1, 2])), 1, groups=width),
        nn.BatchNorm2d(2 * width),
        nn.ReLU(),
    )
    made.width = 2 * width
    return made


def pool(draw, width):
    made = draw(
        st.sampled_from(
            [nn.MaxPool2d(3, 2, 1), nn.AvgPool2d(2), nn.AvgPool2d(3, 1, 1), nn.Upsample(None, 2)]
        )
    )
    made.width = width
    return made


class Chooses(nn.Module):
    """Branches on sizes."""

    def __init__(self, draw, width):
        super().__init__()
        self.width, self.at = width, draw(st.sampled_from([3, 6, 11]))
        self.asks = draw(st.sampled_from(["odd", "wide", "large", "near"]))

    def forward(self, x):
        h, w = x.shape[2:]
        answer = {
            "odd": w % 2 == 1, "wide": w > h, "large": h * w >= 50, "near": h // self.at == 1,
        }[self.asks]  # fmt: skip
        return F.pad(x, (0, 1, 2, 0)) if answer else -x


class Places(nn.Module):
    """A parameter takes the way of the images."""

    def __init__(self, draw, width):
        super().__init__()
        self.width = width
        self.place = nn.Parameter(torch.randn(1, width, 1, 1))
        self.mix, self.norm = nn.Conv2d(width, width, 1), nn.BatchNorm2d(width)
        self.shares = draw(st.booleans())

    def forward(self, x):
        y = F.relu(self.norm(self.mix(F.dropout(self.place, 0.5, self.training))))
        return self.mix(x) + y if self.shares else x * y


SIDES = st.one_of(st.integers(1, 40), st.sampled_from([15, 16, 17, 32]))


networks_and_sizes = given(
    modules(), st.tuples(SIDES, SIDES), st.lists(st.tuples(SIDES, SIDES), min_size=12)
)


@settings(SLOW, max_examples=8)
@networks_and_sizes
def test_random_networks(module, given, others):
    right_at_any_size(module, given, others)


@pytest.mark.slow
@settings(SLOW, max_examples=150, derandomize=False)
@networks_and_sizes
def test_many_random_networks(module, given, others):
    right_at_any_size(module, given, others)


def right_at_any_size(module, given, others):
    """The same logits whatever the size, or, of a network that branches on sizes, a refusal."""
    assume(any(isinstance(each, nn.BatchNorm1d | nn.BatchNorm2d) for each in module.modules()))
    images = drawn(2, 3, *given)
    if not takes(module, images, given):  # too small for its padding or pooling
        return
    found = compact_module(module, images)
    check(module, found, (1, 3, *given), (5, 3, *given))
    branches = any(isinstance(each, Chooses) for each in module.modules())
    for size in others:
        if takes(module, images, size):
            if found.network.refusal((2, 3, *size)):
                assert branches
                with pytest.raises(ValueError, match="this network takes no images of"):
                    found.network(drawn(2, 3, *size))
            else:
                check(module, found, (2, 3, *size))
