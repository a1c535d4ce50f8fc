"""Steps as CUDA graphs. Without a GPU a tape plays the graph: it records operations of torch and
replays them on the same tensors, so what has moved since, or must be waited for, shows."""

import contextlib
from types import SimpleNamespace

import pytest
import torch
from tiny_engines import HEAD, WIDE, make_engine, members, small_data
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from gammabeta import create_model, select
from gammabeta.data.augment import epoch_plan
from gammabeta.engine import graphs
from gammabeta.engine.eager import EagerEngine
from gammabeta.engine.fused import FusedEngine
from gammabeta.engine.lean import LeanEngine
from gammabeta.passes import compiled


class Tape(TorchDispatchMode):
    """What torch.cuda.CUDAGraph is to GraphedSteps. Recording executes, so the first replay, which
    comes at once, does nothing."""

    def __init__(self):
        super().__init__()
        self.calls, self.replays = [], 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        waits = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "lift_fresh")
        name = str(function)
        assert not any(each in name for each in waits), f"a graph cannot wait: {name}"
        out = function(*args, **(kwargs or {}))
        self.calls.append((function, args, kwargs or {}, out))
        return out

    def replay(self):
        self.replays += 1
        if self.replays == 1:
            return
        for function, args, kwargs, out in self.calls:
            for mine, new in zip(
                tree_leaves(out), tree_leaves(function(*args, **kwargs)), strict=True
            ):
                if isinstance(mine, torch.Tensor) and mine.data_ptr() != new.data_ptr():
                    mine.data.copy_(new)


@pytest.fixture
def tapes(monkeypatch):
    """Engines on a CPU take graphs for granted. Gives the list of those they made."""
    made = []

    def make():
        made.append(Tape())
        return made[-1]

    missing = compiled.Unavailable("calls from C++ would not be on the tape")
    monkeypatch.setattr(compiled, "loaded", lambda source: missing)
    monkeypatch.setattr(graphs, "are_usable", lambda device: True)
    monkeypatch.setattr(graphs, "_aside", lambda learn, inputs: learn(*inputs))
    monkeypatch.setattr(torch.cuda, "CUDAGraph", make)
    monkeypatch.setattr(torch.cuda, "graph", lambda tape: tape)
    return made


def epoch(engines, number, sizes=(16, 16, 8), factor=1.0):
    """Losses after an epoch in which all of the engines step."""
    for engine in engines:
        plan = epoch_plan(engine.spec.seed, number, 40, crop_padding=4, flip=True, brightness=0.2)
        engine.begin_epoch(plan)
    start = 0
    for size in sizes:
        for engine in engines:
            engine.step(start, start + size, factor)
        start += size
    return [engine.totals()[0] for engine in engines]


def same(ours, judge, near=1e-4):
    """That both have gone the same way."""
    expected, found = judge.state(), ours.state()
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert (found[key] - value).double().norm() <= near * value.double().norm() + 1e-6, key


@pytest.mark.parametrize(
    "changes",
    [
        {}, {"trainable": "random:2"}, {"nesterov": True, "lr_by_role": {"gamma": 0.05}},
        {"precision": "bf16", "trainable": "bn+output"}, {"statistics": "batch"},
        *(pytest.param(changes, marks=pytest.mark.slow) for changes in (
            {"trainable": "all"}, {"trainable": "none"}, {"momentum": 0.0},
            {"statistics": "frozen"}, {"label_smoothing": 0.1},
        )),
    ],
    ids=str,
)  # fmt: skip
def test_lean_steps_from_a_graph_are_those_without(tapes, changes):
    spec = WIDE.replace(brightness=0.2, lr=0.02, **changes)
    ours = make_engine(spec, engine=LeanEngine)
    judge = make_engine(spec, engine=LeanEngine)
    judge._graphed = None
    if judge.optimizer is not None:
        for group in judge.optimizer.param_groups:
            group["lr"] = group["base_lr"]
    for number, factor in enumerate((1.0, 1.0, 0.5)):
        losses = [epoch([each], number, factor=factor)[0] for each in (ours, judge)]
        assert losses[0] == pytest.approx(losses[1], rel=1e-3 if spec.precision == "bf16" else 1e-5)
    same(ours, judge, 1e-2 if spec.precision == "bf16" else 1e-4)
    assert [tape.replays for tape in tapes] == [4, 1]  # of both sizes all but the first two
    assert ours.evaluate()["test_loss"] == pytest.approx(judge.evaluate()["test_loss"], rel=1e-2)


def test_what_cannot_be_captured_is_not(tapes):
    adam = make_engine(WIDE.replace(optimizer="adam"), engine=LeanEngine)
    eager = make_engine(WIDE, engine=EagerEngine)
    for engine in (adam, eager):
        epoch([engine], 0)
        epoch([engine], 1)
    assert tapes == []


@pytest.mark.parametrize("engine", [pytest.param(LeanEngine, marks=pytest.mark.slow), FusedEngine])
def test_a_graph_forgets_what_was_loaded_over(tapes, engine):
    spec = HEAD.replace(lr=0.02)
    one, other = make_engine(spec, engine=engine), make_engine(spec, engine=engine)
    epoch([one], 0)
    epoch([one], 1)
    for number in (5, 6, 7):
        epoch([other], number)
    other.load(one.state())
    for number in (2, 3):
        losses = [epoch([each], number)[0] for each in (one, other)]
        assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    same(other, one)


@pytest.mark.parametrize(
    "specs",
    [
        [WIDE, WIDE.replace(lr=0.01), WIDE.replace(weight_decay=0.1)],
        [WIDE, WIDE.replace(seed=1), WIDE.replace(seed=2, norm_init="ones")],
    ],
    ids=["one backbone", "replicates"],
)
def test_fused_members_from_a_graph_are_those_without(tapes, monkeypatch, specs):
    specs = [spec.replace(brightness=0.2) for spec in specs]
    ours = members(specs)
    monkeypatch.setattr(graphs, "are_usable", lambda device: False)
    judges = members(specs)
    monkeypatch.setattr(graphs, "are_usable", lambda device: True)
    for number, factor in enumerate((1.0, 1.0, 0.5)):
        losses = [epoch(each, number, factor=factor) for each in (ours, judges)]
        assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    for one, judge in zip(ours, judges, strict=True):
        same(one, judge)
    assert [tape.replays for tape in tapes] == [4, 1]


def test_whose_batch_members_share_may_leave(tapes, monkeypatch):
    specs = [WIDE, WIDE.replace(lr=0.01)]
    ours = members(specs)
    monkeypatch.setattr(graphs, "are_usable", lambda device: False)
    alone = make_engine(specs[1], engine=FusedEngine)
    monkeypatch.setattr(graphs, "are_usable", lambda device: True)
    for number in range(2):
        epoch(ours, number)
        epoch([alone], number)
    ours[0].leave()
    for number in (2, 3):
        assert epoch(ours[1:], number) == pytest.approx(epoch([alone], number), rel=1e-4)


def test_a_graph_for_each_shape(tapes):
    total = torch.zeros(())

    def learn(images, factor):
        total.add_(images.sum() * factor[0])

    steps, expected = graphs.GraphedSteps(learn), 0.0
    for count in (4, 4, 2, 4, 2, 2, 4):
        images, factor = torch.randn(1, count, 2), torch.rand(1)
        steps(images, factor)
        expected += float(images.sum() * factor)
    assert total.item() == pytest.approx(expected, abs=1e-5)
    assert [tape.replays for tape in tapes] == [2, 1]


def test_what_a_graph_holds_is_counted_whatever_was_cached_before(monkeypatch):
    """Capturing frees what torch has cached, the memory of the first steps among it."""
    held = {"others": 5, "cached": 100, "pool": 0}

    @contextlib.contextmanager
    def capture(graph):
        held["cached"] = 0
        yield
        held["pool"] += 7

    monkeypatch.setattr(graphs, "_aside", lambda learn, inputs: None)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: SimpleNamespace(replay=lambda: None))
    monkeypatch.setattr(torch.cuda, "graph", capture)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: held.update(cached=0))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda: sum(held.values()))
    steps = graphs.GraphedSteps(lambda x: None)
    for size in (2, 3):
        for _ in range(4):
            steps(torch.ones(size))
    assert steps.pool_bytes == 14


def test_the_tape_notices_who_waits(tapes):
    steps = graphs.GraphedSteps(lambda x: x.add_(float(x.sum())))
    steps(torch.ones(2))
    steps(torch.ones(2))
    for _ in range(2):  # what has failed is tried again, and not replayed
        with pytest.raises(AssertionError, match="cannot wait"):
            steps(torch.ones(2))


def test_the_tape_notices_what_has_moved(tapes):
    place = {"at": torch.zeros(())}
    steps = graphs.GraphedSteps(lambda x: place["at"].add_(x.sum()))
    for _ in range(4):
        steps(torch.ones(2))
    place["at"] = torch.zeros(())
    steps(torch.ones(2))
    assert place["at"] == 0


@pytest.mark.gpu
@pytest.mark.parametrize("engine", [LeanEngine, FusedEngine])
def test_on_a_gpu(engine):
    model = create_model(WIDE.model, norm_init=WIDE.norm_init)
    gpu = engine(model, select(model, "bn"), WIDE, small_data(), torch.device("cuda"))
    cpu = make_engine(WIDE)
    for number in range(4):
        found, expected = epoch([gpu], number), epoch([cpu], number)
        assert found == pytest.approx(expected, rel=1e-2)
