"""The benchmark: contenders compute the same, bytes are counted right, what is wrong is said."""

import contextlib
import json
import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from gammabeta import bench, create_model, select
from gammabeta.bench import contenders, rounds
from gammabeta.bench.contenders import CONTENDERS, Contender
from gammabeta.bench.floors import Convolutions, Copy, moved_bytes
from gammabeta.bench.memsave import memsave
from gammabeta.bench.rounds import Row, print_peak
from gammabeta.bench.show import cells, number
from gammabeta.cli import main
from gammabeta.engine.fused import FusedEngine
from gammabeta.fused.plan import make_plan

CPU = torch.device("cpu")
QUICK = ["torch", "torch-nhwc", "memsave", "eager", "lean", "fused"]


def case(model="cifar_resnet_8", trainable="bn", precision="fp32", batch=16):
    return replace(bench.make_case(model, trainable, batch, CPU), precision=precision)


@pytest.fixture
def quick_rounds(monkeypatch):
    """One step a repeat: these tests are about numbers, not about times."""
    monkeypatch.setattr(rounds, "_SECONDS", 0.0)


@pytest.mark.parametrize("name", ["cifar_resnet_8_3", "imagenet_resnet_50_4", "cifar_vgg_11"])
@pytest.mark.parametrize("trainable", ["bn", "bn+output", "all"])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_memsave_has_autograds_gradients(name, trainable, memory_format):
    draw = torch.Generator().manual_seed(0)
    size = 64 if "imagenet" in name else 32
    images = torch.randn(3, 3, size, size, generator=draw).double()
    images = images.contiguous(memory_format=memory_format)
    found = []
    for change in (lambda model: model, memsave):
        model = create_model(name, norm_init="symmetric").double().to(memory_format=memory_format)
        leaves = select(model, trainable).apply(model)
        logits = change(model)(images)
        cotangent = torch.randn(logits.shape, generator=torch.Generator().manual_seed(1)).double()
        found.append(torch.autograd.grad(logits, list(leaves.values()), cotangent))
    for ours, theirs in zip(*found[::-1], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_what_is_kept_for_the_backward_pass(precision):
    made = case("cifar_resnet_14", precision=precision, batch=8)
    plan = make_plan(create_model("cifar_resnet_14"))
    kept = {}
    for name in ("torch", "memsave", "eager", "lean", "fused"):
        ready = CONTENDERS[name].make(made)
        ready.step()
        kept[name] = ready.saved()
    size = 2 if precision == "bf16" else 4
    raw = 8 * size * sum(layer.values for layer in plan.layers)
    # Counted by hand: each raw output, and behind each but those of the shortcuts and the first
    # BatchNorms of a join a ReLU's output, which the convolution behind it reads.
    relus = 8 * sum(
        layer.values
        for layer in (plan.stem, *(each for block in plan.blocks for each in block.layers[:2]))
    )
    assert kept["torch"] == pytest.approx(raw + size * relus, rel=0.01)
    assert kept["memsave"] == pytest.approx(raw + relus, rel=0.01)
    assert kept["eager"] == pytest.approx(kept["torch"], rel=0.01)
    assert kept["lean"] < 0.56 * kept["eager"]
    assert kept["fused"] == plan.saved_bytes(8, size)


def test_a_program_that_keeps_more_is_noticed(monkeypatch):
    ready = CONTENDERS["fused"].make(case(batch=2))
    plan = make_plan(create_model("cifar_resnet_8"))
    assert ready.saved() == plan.saved_bytes(2, 4)
    from gammabeta.fused.direct_program import DirectMember

    enter = DirectMember.enter

    def wasteful(self, block, join):
        found = enter(self, block, join)
        join.z_shortcut = found[0] if join.shortcut is None else join.z_shortcut
        return found

    monkeypatch.setattr(DirectMember, "enter", wasteful)
    assert ready.saved() > plan.saved_bytes(2, 4)


def test_contenders_agree_and_their_rows_are_whole(quick_rounds):
    result = bench.measure(case(), QUICK, ["fp32", "bf16"], repeats=5)
    assert bench.faults(result) == []
    rows = {(row["contender"], row["precision"]): row for row in result["rows"]}
    names = [bench.CONVOLUTIONS, *QUICK]
    assert rows.keys() == {(name, each) for name in names for each in ("fp32", "bf16")}
    for (name, precision), row in rows.items():
        assert row["min_ms"] <= row["median_ms"] <= row["max_ms"]
        assert (row["repeats"], row["steps"]) == (5, 1)
        assert row["images_per_second"] == pytest.approx(16_000 / row["median_ms"])
        assert row["compile_s"] > 0
        assert row["warm_up_s"] > 0
        if name != bench.CONVOLUTIONS:
            assert row["distance"] == pytest.approx(row["median_ms"] / row["floor_ms"])
            assert row["floor_ms"] > rows[bench.CONVOLUTIONS, precision]["median_ms"]
            assert row["saved_bytes"] > 0
    losses = {round(row["loss"], 3) for row in result["rows"] if row["precision"] == "fp32"
              and row["loss"]}  # fmt: skip
    assert len(losses) == 1
    assert rows["torch", "fp32"]["ratio"] == [1, 1, 1]
    table = bench.bench_table(result)
    assert table.row_count == len(rows)
    assert any("cifar_resnet_8, bn, batch 16" in line for line in bench.bench_lines(result))
    json.dumps(result, allow_nan=False)


def test_a_busy_machine_is_told_of():
    row = {"contender": "torch", "precision": "fp32", "wrong": None, "error": None}
    result = {
        "model": "m", "trainable": "bn", "batch": 8, "image": 32, "moved_bytes": {},
        "copy_gb_s": None, "peak": None,
        "environment": {"threads": 1, "hardware": "cpu", "torch": "2"},
    }  # fmt: skip
    for medians, told in (([12, 11, 30], False), ([14, 11, 30], True), ([None], False)):
        rows = [{**row, "median_ms": each, "min_ms": each and 10} for each in medians]
        lines = bench.bench_lines(result | {"rows": rows})
        assert any("the median round took 1.4 times" in line.lower() for line in lines) == told


def test_the_convolutions_are_those_of_the_plan():
    plan = make_plan(create_model("cifar_resnet_14"))
    assert Convolutions(case("cifar_resnet_14", batch=4)).operations == plan.operations(4)
    forward = 4 * sum(layer.operations for layer in plan.layers)
    only_forward = Convolutions(case("cifar_resnet_14", "output", batch=4))
    assert only_forward.operations == forward
    everything = Convolutions(case("cifar_resnet_14", "all", batch=4))
    assert everything.operations == plan.operations(4) + forward
    assert moved_bytes(case("cifar_resnet_14", precision="bf16", batch=4)) == plan.moved_bytes(4, 2)
    assert moved_bytes(case("cifar_vgg_11")) is None
    for each in (only_forward, everything):
        each.step()


def test_the_convolutions_alone_compute_what_a_network_does(monkeypatch):
    alone = Convolutions(case("imagenet_resnet_18_16", batch=2))
    sizes = {tuple(call.x.shape) for call in alone.calls}
    assert (2, 3, 224, 224) in sizes
    assert (2, 128, 7, 7) in sizes
    for call in alone.calls:
        assert alone._forward(call).shape == call.dz.shape
        assert call.x.is_contiguous(memory_format=torch.channels_last)


def test_a_copy_has_a_rate(monkeypatch):
    copy = Copy(CPU)
    copy.source, copy.target = copy.source[: 2**20], copy.target[: 2**20]
    assert 1e7 < copy.rate() < 1e13


def broken(wrong):
    """A contender like plain torch with another loss, or none at all."""

    def make(case):
        ready = CONTENDERS["torch"].make(case)
        if wrong == "raises":
            raise RuntimeError("the kernel\ndoes not compile")
        return replace(ready, loss=lambda: wrong)

    return Contender("broken", make)


@pytest.mark.parametrize(("wrong", "said"), [
    (2.5, "its first loss is 2.5, plain torch's 2."), (math.nan, "its first loss is nan"),
    ("raises", "RuntimeError: the kernel"),
], ids=str)  # fmt: skip
def test_what_is_wrong_is_marked_and_fails_the_command(
    wrong, said, monkeypatch, quick_rounds, capsys, tmp_path
):
    monkeypatch.setitem(CONTENDERS, "broken", broken(wrong))
    out = tmp_path / "bench.json"
    arguments = (
        "bench --model cifar_resnet_8_4 --batch-size 8 --repeats 5 --precision fp32 "
        f"--contenders broken,eager --out {out}"
    )
    assert main(arguments.split()) == 1
    shown = capsys.readouterr()
    assert f"gammabeta: broken fp32: {said}" in shown.err.splitlines()[-1]
    assert "broken" in shown.out
    assert "NaN" not in out.read_text()
    rows = {row["contender"]: row for row in json.loads(out.read_text())["rows"]}
    assert said in (rows["broken"]["wrong"] or rows["broken"]["error"])
    assert rows["eager"]["median_ms"] > 0
    assert (rows["eager"]["wrong"], rows["eager"]["error"]) == (None, None)


def test_bf16_may_be_off_where_plain_torch_is(monkeypatch):
    def entrant(name, precision, loss):
        made = case(precision=precision)
        return rounds._Entrant(name, made, Row(name, precision, loss=loss))

    def judged(stock):
        entrants = [entrant("torch", "fp32", 1.0), entrant("torch", "bf16", stock),
                    entrant("fused", "bf16", 0.9), entrant("fused", "fp32", 1.002)]  # fmt: skip
        rounds._judge(entrants, None)
        return [each.row.wrong is not None for each in entrants[2:]]

    assert judged(1.04) == [False, True]
    assert judged(1.01) == [True, True]


def test_the_command_prints_json(capsys, quick_rounds):
    arguments = ["bench", "--model", "cifar_resnet_8", "--batch-size", "16", "--repeats", "5",
                 "--precision", "bf16", "--contenders", "lean,fused", "--json"]  # fmt: skip
    assert main(arguments) == 0
    shown = capsys.readouterr()
    result = json.loads(shown.out)
    assert [row["contender"] for row in result["rows"]] == [
        "torch", "convolutions", "lean", "fused",
    ]  # fmt: skip
    assert (result["model"], result["trainable"], result["batch"]) == ("cifar_resnet_8", "bn", 16)
    assert {"commit", "hardware", "threads", "torch"} <= result["environment"].keys()
    assert "round 5 of 5" in shown.err


def test_no_time_left(quick_rounds):
    result = bench.measure(case(), ["eager"], ["fp32"], repeats=5, deadline=-math.inf)
    assert {row["error"] for row in result["rows"]} == {"no time was left"}
    assert {row["median_ms"] for row in result["rows"]} == {None}


def test_ours_are_made_ready_first_and_time_is_kept_for_the_rounds(monkeypatch, quick_rounds):
    """With a clock of our own, on which every contender takes a second to make ready and a tenth
    for its turn."""
    now, order = [0.0], []

    def prepare(self):
        now[0] += 1.0
        self.ready, self.row.steps, self.turn_s = CONTENDERS["torch"].make(self.case), 1, 0.1
        self.row.loss = 1.0

    def turn(self):
        now[0] += 0.1
        self.times.append(100.0)

    monkeypatch.setattr(rounds.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(rounds._Entrant, "prepare", prepare)
    monkeypatch.setattr(rounds._Entrant, "turn", turn)
    names = ["torch", "torch-compile", "eager", "lean", "fused"]
    made = case("cifar_resnet_8_4", batch=2)
    result = bench.measure(made, names, ["fp32", "bf16"], deadline=11.5, begin=order.append)
    start = ["torch", bench.CONVOLUTIONS, bench.CONVOLUTIONS]
    assert order == [*start, "lean", "fused", "lean", "fused", "eager"]
    assert [row["contender"] for row in result["rows"]][:3] == ["torch", "convolutions",
                                                               "torch-compile"]  # fmt: skip
    ran = [row for row in result["rows"] if row["error"] is None]
    assert len(ran) == len(order)
    assert {row["error"] for row in result["rows"] if row not in ran} == {bench.NO_TIME}
    assert {row["repeats"] for row in ran} == {bench.FEWEST}


def test_who_failed_first_is_said(quick_rounds, monkeypatch):
    monkeypatch.setitem(CONTENDERS, "broken", broken("raises"))
    result = bench.measure(case("cifar_resnet_8_4", batch=2), ["eager", "broken"], ["fp32"],
                           repeats=5)  # fmt: skip
    assert result["failed"] == ["broken"]


def test_memory_of_graphs_is_asked_of_the_engines(monkeypatch):
    engine = FusedEngine(*_parts(case("cifar_resnet_8_4", batch=2)))
    assert contenders.pool_bytes(engine) == 0
    engine.team.learn = SimpleNamespace(pool_bytes=7)
    assert contenders.pool_bytes(engine) == 7
    lean = SimpleNamespace(_graphed=SimpleNamespace(pool_bytes=8))
    assert contenders.pool_bytes(lean) == 8
    assert contenders.pool_bytes(SimpleNamespace(_graphed=None)) == 0


def test_a_graph_of_the_convolutions_is_captured_once_and_replayed(monkeypatch):
    """CUDA's part is played by a list."""
    alone, said = Convolutions(case("cifar_resnet_8_4", batch=2)), []
    graph = SimpleNamespace(replay=lambda: said.append("replay"))
    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: graph)
    monkeypatch.setattr(torch.cuda, "graph", lambda graph: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: said.append("wait"))
    monkeypatch.setattr(alone, "_all", lambda: said.append("launch"))
    alone.step()
    alone._device = torch.device("cuda")
    for _ in range(3):
        alone.step()
    assert said == ["launch", "launch", "wait", "launch", "replay", "replay"]


def test_defaults(monkeypatch):
    assert bench.make_case("imagenet_resnet_18", "bn", None, CPU).batch == 8
    assert bench.make_case("cifar_resnet_14", "bn", None, CPU).batch == 128
    assert bench.make_case("imagenet_resnet_18", "bn", None, torch.device("cuda")).batch == 128
    assert bench.choose_contenders(None, case(trainable="all")) == [
        "torch", "torch-nhwc", "torch-compile", "memsave", "eager", "lean",
    ]  # fmt: skip
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    assert "torch-compile" not in bench.choose_contenders(None, case())
    assert bench.choose_contenders(" lean, eager,lean", case()) == ["lean", "eager"]


def test_all_contenders_see_one_ready_batch():
    made = case()
    engine = FusedEngine(*_parts(made))
    engine.batches = batches = bench.case.OneBatch(made)
    assert torch.equal(batches.images(0, 3), made.images())
    assert made.images().is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(batches.labels(5, 9), made.labels())


def _parts(made):
    from gammabeta.data import load_dataset

    model, subset = made.make(torch.contiguous_format)
    return model, subset, made.spec(), load_dataset("synthetic"), CPU


def test_peak_memory_of_a_process(capsys):
    """Here in this process, so only that the plumbing holds."""
    values = {"model": "cifar_resnet_8", "trainable": "bn", "precision": "fp32", "batch": "4",
              "device": "cpu", "name": "eager", "threads": "1"}  # fmt: skip
    print_peak(values)
    assert isinstance(json.loads(capsys.readouterr().out), int)


def test_numbers_are_short():
    assert [number(value, 4) for value in (None, 0.012345, 12.345, 1234.5, 123456.0)] == [
        "-", "0.01235", "12.35", "1,234", "123,500",
    ]  # fmt: skip
    assert cells(vars(Row("x", "fp32"))) == ["-"] * 9
    ratio = cells(vars(Row("x", "fp32", ratio=[1.5123, 1.25, 2.0])))[4]
    assert ratio == "1.51 (1.25 to 2)"


@pytest.mark.slow
def test_compiled_contenders_agree(quick_rounds):
    result = bench.measure(case(batch=4), ["torch-compile", "torch-compile-max"], ["fp32"],
                           repeats=5)  # fmt: skip
    assert bench.faults(result) == []
    rows = {row["contender"]: row for row in result["rows"]}
    assert rows["torch-compile"]["compile_s"] > 10 * rows["torch-compile"]["median_ms"] / 1000
    assert rows["torch-compile"]["saved_bytes"] > 0


def test_the_loss_of_the_batch_is_right():
    made = case(batch=8)
    model = create_model("cifar_resnet_8").train()
    expected = float(F.cross_entropy(model(made.images()), made.labels()).detach())
    for name in QUICK:
        ready = CONTENDERS[name].make(made)
        ready.step()
        assert ready.loss() == pytest.approx(expected, rel=1e-5), name
        ready.step()
        assert ready.loss() < expected, name  # of the last step, not of all


@pytest.mark.parametrize("name", ["cifar_resnet_8", "cifar_resnet_14", "cifar_resnet_26_5"])
def test_bytes_moved_are_those_of_the_passes(name):
    """Every read and write of docs/performance.md, one after the other."""
    plan = make_plan(create_model(name))
    moved = plan.stem.channels_in * 32 * 32 + plan.stem.values  # the images; the stem's z
    joins = [(plan.stem.values, 0, 0)]  # z, skip, and whether the skip is a raw output
    for block in plan.blocks:
        (z, skip, _), out = joins[-1], block.second.values
        moved += z + skip + out + out  # F1: z and skip, z1, and a or the shortcut's raw output
        moved += out + out  # F2: z1, z2
        joins.append((out, out, int(block.shortcut is not None)))
    z, skip, raw = joins[-1]
    moved += z + skip + z + z + raw * skip  # the pooling there and back: u, and z for its sums
    for block, (z, skip, raw) in zip(plan.blocks[::-1], joins[-2::-1], strict=True):
        out = block.second.values
        moved += 4 * out  # B2: u, z2, z1, v
        moved += 3 * out + (out if block.shortcut else 0)  # B1: v, z1, u, the shortcut's z
        moved += z + z + raw * skip  # u and the sums of the join before
    assert plan.moved_bytes(3, 2) == 3 * 2 * moved
