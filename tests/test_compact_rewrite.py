"""Compaction of graphs: never a wrong output, and what can go goes."""

import pytest
import torch
from graphs import SIZES, Builder, difference, values
from hypothesis import HealthCheck, find, given, settings
from hypothesis import strategies as st

from gammabeta.compact import analyse, rewrite
from gammabeta.compact.analyse import constants
from gammabeta.compact.fold import fold
from gammabeta.compact.graph import OPAQUE, Graph
from gammabeta.compact.rewrite import shrink

SLOW = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # a busy machine
POINTWISE = ["relu", "sigmoid", "hardtanh", "gelu", "tanh"]


@st.composite
def graphs(draw):
    """Random small networks: strides, dilations, paddings, groups, pools, residual sums,
    concatenations, opaque operations, two readers of one tensor, gammas of zero with every sign of
    beta, a head of a mean or of flattened places."""
    build = Builder(draw(st.integers(1, 3)), draw(st.integers(0, 10_000)))
    x = "images"
    halvings = []

    def stride():
        if len(halvings) < 2 and draw(st.booleans()):
            halvings.append(2)
            return 2
        return 1

    def layer(x, channels, stride=1, padding=None, act=True):
        kernel = draw(st.sampled_from([1, 3]))
        dilation = draw(st.sampled_from([1, 1, 2])) if kernel == 3 and padding is None else 1
        padding = dilation * (kernel // 2) if padding is None else padding
        x = build.conv(
            x, channels, kernel, stride, padding, bias=draw(st.booleans()), dilation=dilation
        )
        if draw(st.integers(0, 4)):
            off = draw(st.sets(st.integers(0, channels - 1)))
            x = build.norm(x, off, draw(st.sampled_from([-1.0, 0.0, 1.0])))
        if act and draw(st.integers(0, 5)):
            x = build.call(f"aten.{draw(st.sampled_from(POINTWISE))}.default", [x])
        return x

    x = layer(x, draw(st.integers(1, 5)))
    for _ in range(draw(st.integers(1, 4))):
        what = draw(st.sampled_from(
            ["layer", "valid", "block", "project", "depthwise", "grouped", "pool", "opaque", "two",
             "dense"]
        ))  # fmt: skip
        width = build.channels(x)
        if what == "layer":
            x = layer(x, draw(st.integers(1, 5)), stride())
        elif what == "valid":
            x = layer(x, draw(st.integers(1, 5)), padding=0)
        elif what == "dense":
            joined = build.join(x, layer(x, draw(st.integers(1, 3))))
            off = draw(st.sets(st.integers(0, build.channels(joined) - 1)))
            x = build.relu(build.norm(joined, off, draw(st.sampled_from([-1.0, 1.0]))))
        elif what == "block":
            x = build.relu(build.plus(layer(layer(x, 4), width, act=False), x))
        elif what == "project":
            step = stride()
            here = layer(layer(x, 3, step), 4, act=False)
            x = build.relu(build.plus(here, layer(x, 4, step, act=False)))
        elif what == "depthwise":
            x = build.conv(x, width * 2, groups=width, padding=draw(st.integers(0, 1)))
            x = build.relu(build.norm(x, draw(st.sets(st.integers(0, 2 * width - 1)))))
        elif what == "grouped":
            x = layer(x, 4)
            x = build.conv(x, 6, groups=2, bias=True)
            x = build.relu(build.norm(x, draw(st.sets(st.integers(0, 5))), -1.0))
        elif what == "pool":
            how = draw(st.sampled_from(["max", "max_padded", "avg", "avg_padded", "avg_inside"]))
            if len(halvings) == 2:
                how = "max_padded" if how == "max" else "avg_padded" if how == "avg" else how
            elif how in ("max", "avg"):
                halvings.append(2)
            x = {
                "max": lambda x: build.call("aten.max_pool2d.default", [x], [2, 2]),
                "max_padded": lambda x: build.call(
                    "aten.max_pool2d.default", [x], [3, 3], [1, 1], [1, 1]
                ),
                "avg": lambda x: build.call("aten.avg_pool2d.default", [x], [2, 2]),
                "avg_padded": lambda x: build.call(
                    "aten.avg_pool2d.default", [x], [3, 3], [1, 1], [1, 1]
                ),
                "avg_inside": lambda x: build.call(
                    "aten.avg_pool2d.default", [x], [3, 3], [1, 1], [1, 1], False, False
                ),
            }[how](x)
        elif what == "opaque":
            x = build.call("aten.flip.default", [x], [1], kind=OPAQUE)
        else:
            x = build.plus(layer(x, 3), build.relu(layer(x, 3)))
    if draw(st.booleans()):
        return build.head(x)
    x = build.call("aten.adaptive_avg_pool2d.default", [x], [2, 2])
    x = build.linear(build.flatten(x, 4), 5)
    x = build.relu(build.norm(x, draw(st.sets(st.integers(0, 4))), -1.0))
    return Graph(build.steps, build.linear(x, 3))


def test_channels_that_enter_a_pool_are_drawn_and_removed():
    def pooled(graph):
        pools = [s for s in graph.steps.values() if "max_pool2d" in str(s.node.settings)]
        return any(graph.steps[s.node.inputs[0]].channels > after_shrink(graph, s) for s in pools)

    def after_shrink(graph, step):
        small = graph.copy()
        shrink(small)
        left = small.steps.get(step.node.name)
        return left.channels if left else step.channels

    find(graphs(), pooled, settings=settings(SLOW, max_examples=300))


@settings(SLOW, max_examples=100)
@given(graphs())
def test_the_output_never_changes(graph):
    small = graph.copy()
    ledger = shrink(small)
    assert difference(graph, small, SIZES) < 1e-11
    assert all(step.channels >= 1 for step in small.steps.values())
    left = {name: len(step.origin) for name, step in small.steps.items() if step.origin}
    told = {row["layer"]: row["after"] for row in ledger.layers() if row["after"]}
    assert told == left
    assert all(entry.why for entry in ledger.entries)
    again = small.copy()
    shrink(again)  # a fixpoint
    assert {name: step.channels for name, step in again.steps.items()} == {
        name: step.channels for name, step in small.steps.items()
    }


@settings(SLOW, max_examples=40)
@given(graphs(), st.booleans())
def test_what_is_called_constant_is_constant_everywhere(graph, folded):
    if folded:
        fold(graph)
    told = constants(graph)
    for size in SIZES:
        images = torch.randn(2, graph.steps["images"].channels, *size, dtype=torch.float64)
        for name, found in values(graph, images).items():
            known = ~told[name].isnan()
            by_channel = found.transpose(0, 1).flatten(1)[known]
            expected = told[name][known][:, None].expand_as(by_channel)
            torch.testing.assert_close(by_channel, expected, rtol=1e-9, atol=1e-9)


def widths(graph):
    return [step.channels for step in graph.steps.values() if step.origin]


def two_layers(off, sign, padding=1, kernel=3):
    """conv 8 - norm with some gammas of zero - relu - conv 4 - relu - head."""
    build = Builder()
    x = build.relu(build.norm(build.conv("images", 8), off, sign))
    x = build.relu(build.conv(x, 4, kernel, padding=padding))
    return build.head(x)


@pytest.mark.parametrize(
    ("sign", "padding", "kernel", "left"),
    [
        (-1.0, 1, 3, 5),  # dead behind the relu
        (0.0, 1, 3, 5),
        (1.0, 0, 3, 5),  # constants, moved into a bias
        (1.0, 0, 1, 5),
        (1.0, 1, 3, 6),  # behind zero padding one of them stays
    ],
)
def test_how_many_channels_are_left(sign, padding, kernel, left):
    graph = two_layers({1, 4, 6}, sign, padding, kernel)
    small = graph.copy()
    shrink(small)
    assert widths(small) == [left, 4, 3]
    assert difference(graph, small) < 1e-12


def test_a_bias_behind_zero_padding_would_be_noticed(monkeypatch):
    graph = two_layers({1, 4, 6}, 1.0)
    small = graph.copy()
    for module in (analyse, rewrite):
        monkeypatch.setattr(module, "pads", lambda step: False)
    shrink(small)
    assert difference(graph, small) > 1e-3


def test_what_nothing_reads_goes_all_the_way_back():
    build = Builder()
    x = build.relu(build.norm(build.conv("images", 8), ()))
    x = build.relu(build.norm(build.conv(x, 6), range(5), -1.0))
    graph = build.head(x)
    first = next(step for step in graph.steps.values() if step.origin)
    other = [step for step in graph.steps.values() if step.origin][1]
    other.node.tensors["weight"][5, 3:] = 0  # the only row left reads three channels
    small = graph.copy()
    ledger = shrink(small)
    assert widths(small) == [3, 1, 3]
    assert difference(graph, small) < 1e-12
    gone = [entry.channel for entry in ledger.entries
            if entry.layer == first.node.name and not entry.stays]  # fmt: skip
    assert gone == [3, 4, 5, 6, 7]


def residual(off_stem, off_branch, sign=-1.0):
    build = Builder()
    x = build.relu(build.norm(build.conv("images", 6), off_stem, sign))
    y = build.relu(build.norm(build.conv(x, 5), ()))
    y = build.norm(build.conv(y, 6), off_branch, sign)
    return build.head(build.relu(build.plus(y, x)))


@pytest.mark.parametrize(
    ("stem", "branch", "left"),
    [
        ({0, 1}, {1, 2}, [5, 5, 5, 3]),  # channel 1 is off in both writers, 0 and 2 in one
        ({0, 1}, (), [6, 5, 6, 3]),
        ((), range(6), [6, 3]),  # the branch adds a constant: it goes, and its shift stays
    ],
)
def test_a_residual_stream_loses_what_every_writer_allows(stem, branch, left):
    graph = residual(stem, branch)
    small = graph.copy()
    shrink(small)
    assert widths(small) == left
    assert difference(graph, small) < 1e-12


def test_groups_go_whole():
    build = Builder()
    x = build.relu(build.norm(build.conv("images", 6), ()))
    x = build.conv(x, 6, groups=3)
    x = build.relu(build.norm(x, {0, 1, 2}, -1.0))  # all of group 0, half of group 1
    graph = build.head(x)
    small = graph.copy()
    shrink(small)
    assert widths(small) == [4, 4, 3]
    grouped = [step for step in small.steps.values() if step.grouped]
    assert [step.node.settings["groups"] for step in grouped] == [2]
    assert difference(graph, small) < 1e-12


def test_a_flattened_channel_takes_all_its_places_along():
    build = Builder()
    x = build.relu(build.norm(build.conv("images", 4), {0, 2}))
    graph = Graph(build.steps, build.linear(build.flatten(x, 81), 3))
    small = graph.copy()
    shrink(small)
    assert widths(small) == [2, 3]
    assert small.steps[small.output].node.tensors["weight"].shape == (3, 162)
    assert difference(graph, small, sizes=((9, 9),)) < 1e-12


def test_one_channel_stays_in_a_layer_that_is_off():
    graph = two_layers(range(8), 1.0, padding=0)
    small = graph.copy()
    ledger = shrink(small)
    assert widths(small)[0] == 1
    assert difference(graph, small) < 1e-12
    assert "last channel" in next(entry.why for entry in ledger.entries if entry.stays)


def test_what_is_opaque_keeps_its_channels():
    build = Builder()
    x = build.relu(build.norm(build.conv("images", 6), {1, 2}, -1.0))
    x = build.call("aten.flip.default", [x], [1], kind=OPAQUE)
    graph = build.head(build.relu(build.conv(x, 4)))
    small = graph.copy()
    ledger = shrink(small)
    assert widths(small) == [6, 4, 3]
    assert "aten.flip.default reads it" in ledger.entries[1].why
