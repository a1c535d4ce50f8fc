"""Compaction of random networks, as people write them."""

import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_compact import switched_off
from test_compact_networks import check, drawn
from torch import nn

from gammabeta.compact import compact_module

SLOW = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # a busy machine


@st.composite
def modules(draw):
    """Random small networks as people write them."""
    torch.manual_seed(draw(st.integers(0, 10_000)))
    layers, width = [], 3
    for _ in range(draw(st.integers(1, 3))):
        kind = draw(st.sampled_from(["plain", "plain", "block", "depthwise", "dense", "pool"]))
        made = {
            "plain": plain, "block": Block, "depthwise": depthwise, "dense": Joined, "pool": pool,
        }[kind](draw, width)  # fmt: skip
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


@settings(SLOW, max_examples=6)
@given(modules())
def test_random_networks(module):
    found = compact_module(module, drawn(2, 3, 16, 16))
    assert found.notes == []
    check(module, found, (1, 3, 16, 16), (5, 3, 16, 16), (2, 3, 17, 20))
