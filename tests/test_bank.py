"""A bank of tasks: every sample is what it would be if its task were the only one."""

import copy
import re
import runpy
from pathlib import Path

import pytest
import torch
from networks import Foreign, Mixed, Odd
from test_delta import Strided, assert_same, moved, small
from torch import nn

import gammabeta
from gammabeta import Bank, InputError, load_delta, save_delta, select
from gammabeta.delta import make_delta


@pytest.fixture(autouse=True)
def _same_draws():
    torch.manual_seed(0)


def made(base, texts, **keywords):
    """A bank over `base` with a task for each subset, and the network of each task."""
    bank, alone = Bank(base), {}
    for number, text in enumerate(texts):
        network = copy.deepcopy(base)
        subset = select(network, text, **keywords)
        delta = make_delta(moved(network, subset, seed=number), subset)
        bank.add(f"task{number}", delta)
        alone[f"task{number}"] = network.eval()
    return bank, alone


def assert_each_alone(bank, alone, x, tasks, tolerance=1e-6):
    with torch.no_grad():
        ours = bank.forward(x, tasks=tasks)
        whole = {task: network(x) for task, network in alone.items()}  # N is no batch of one
        theirs = torch.stack([whole[task][n] for n, task in enumerate(tasks)])
    assert ours.shape == theirs.shape
    scale = theirs.abs().max()
    assert len({tuple(row) for row in theirs.tolist()}) > 1
    assert (ours - theirs).abs().max() <= tolerance * scale


class Tokens(nn.Module):
    """LayerNorm, RMSNorm and GroupNorm around frozen layers, and a head of its own size."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(11, 8)
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dropout=0.5)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.group = nn.GroupNorm(2, 8)
        self.rms = nn.RMSNorm(8)
        self.head = nn.Linear(8, 3)

    def forward(self, tokens, weights=None):
        x = self.encoder(self.embed(tokens))
        x = self.rms(self.group(x.transpose(1, 2)).mean(2))
        logits = self.head(x)
        return logits if weights is None else {"logits": logits * weights[:, None], "x": x}


TASKS = ["task2", "task0", "task1", "task0", "task2", "task2"]


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("make", [small, Mixed, Foreign])
def test_a_mixed_batch_is_each_task_alone(make, double):
    base = make().double() if double else make()
    bank, alone = made(base, ["bn+output", "bn", "output+gamma"])
    x = torch.randn(6, 3, 8, 8, dtype=torch.float64 if double else torch.float32)
    assert_each_alone(bank, alone, x, TASKS, 1e-12 if double else 1e-6)
    bank.activate("task1")  # plays no part
    assert_each_alone(bank, alone, x, TASKS, 1e-12 if double else 1e-6)


def test_transformers_several_inputs_and_outputs():
    bank, alone = made(Tokens(), ["bn+output", "bn", "bias+gamma"])
    tokens, weights = torch.randint(11, (6, 5)), torch.rand(6)
    with torch.no_grad():
        ours = bank.forward(tokens, tasks=TASKS, weights=weights)
        for n, task in enumerate(TASKS):
            theirs = alone[task](tokens, weights)
            for key in ("logits", "x"):
                torch.testing.assert_close(ours[key][n], theirs[key][n], rtol=1e-5, atol=1e-6)


def test_convolutions_that_trained_are_each_samples_own():
    bank, alone = made(small(), ["all", "shortcut", "none"])
    assert_each_alone(bank, alone, torch.randn(6, 3, 8, 8), TASKS)


def test_the_pass_leaves_the_network_as_it_was_also_after_an_error():
    base = Mixed().train()
    base.group.eval()
    bank, _ = made(base, ["bn", "bn"])
    before, modes = copy.deepcopy(base), [layer.training for layer in base.modules()]
    bank.forward(torch.randn(2, 3, 8, 8), tasks=["task0", "task1"])
    with pytest.raises(RuntimeError):
        bank.forward(torch.randn(2, 4, 8, 8), tasks=["task0", "task1"])
    assert_same(base, before)
    assert [layer.training for layer in base.modules()] == modes
    assert all(isinstance(each, nn.Parameter) for each in base.parameters())
    assert torch.backends.mha.get_fastpath_enabled()


@pytest.mark.parametrize("make", [small, Mixed])
def test_activate_is_the_task_and_none_the_base(make):
    base = make()
    start = copy.deepcopy(base)
    texts = ["bn+output", "random:2+beta", "output", "random:1", "all"]
    bank, alone = made(base, texts, seed=4)
    places = [tensor.data_ptr() for tensor in (*base.parameters(), *base.buffers())]
    for task in ["task1", "task0", "task3", "task2", "task4", "task1", "task0"]:
        assert bank.activate(task) is base
        assert_same(base, alone[task])
    assert_same(bank.activate(None), start)
    assert [tensor.data_ptr() for tensor in (*base.parameters(), *base.buffers())] == places


def test_a_task_added_while_another_is_active_is_checked_against_the_base(tmp_path):
    base = small()
    bank, alone = made(base, ["all"])
    network = small()
    subset = select(network, "bn")
    save_delta(moved(network, subset, 9), subset, tmp_path / "more")
    bank.activate("task0")
    with pytest.raises(InputError, match="other values"):
        load_delta(base, tmp_path / "more")
    bank.add("more", tmp_path / "more")
    assert bank.tasks == ("task0", "more")
    assert_same(bank.activate("more"), network)
    alone["more"] = network.eval()
    assert_each_alone(bank, alone, torch.randn(2, 3, 8, 8), ["more", "task0"])
    bank.remove("task0")
    assert bank.tasks == ("more",)
    assert_each_alone(bank, alone, torch.randn(2, 3, 8, 8), ["more", "more"])


def test_one_copy_of_the_values_also_after_a_mixed_batch():
    base = small()
    bank, _ = made(base, ["bn"] * 5)
    before = bank.nbytes
    bank.forward(torch.randn(1, 3, 8, 8), tasks=["task0"])
    assert bank.nbytes == before
    table = next(iter(bank._table.tables.values()))
    inside = range(table.data_ptr(), table.data_ptr() + table.nbytes)
    for values in bank._tasks.values():
        assert values["bn.weight"].data_ptr() in inside


@pytest.mark.parametrize("texts", [["bn"] * 5, ["bn", "output", "all", "beta", "none"]])
def test_what_is_removed_is_freed_and_nbytes_tells_what_is_held(texts):
    base = small()
    never, _ = made(base, texts[:1])
    bank, alone = made(base, texts)
    x = torch.randn(1, 3, 8, 8)
    bank.forward(x, tasks=["task0"])
    widths = {name for values in bank._table.views.values() for name in values}
    floats = sum(base.state_dict()[n].nbytes for n in widths if "batches" not in n)
    assert bank.nbytes >= 5 * floats  # the table has a row of all of it for each task
    for number in range(1, 5):
        bank.remove(f"task{number}")
    stores = {v.untyped_storage() for v in bank._tasks["task0"].values()}
    held = sum(store.nbytes() for store in stores)
    assert held == sum(value.nbytes for value in never._tasks["task0"].values())
    assert bank.nbytes == held + sum(value.nbytes for value in bank._base.values())
    torch.testing.assert_close(bank.forward(x, tasks=["task0"]), alone["task0"](x))


def test_a_failure_adds_nothing():
    base = Strided()
    subset = select(base, "bn+output", output="head")
    bank = Bank(base)
    bank.add("good", make_delta(base, subset))
    other = Strided(classes=5)
    clash = make_delta(other, select(other, "bn+output", output="head"))
    with pytest.raises(InputError, match=r"task 'more': .*'head.weight' has shape \(5, 4\)"):
        bank.add("more", clash)
    batch = make_delta(base, select(base, "bn", statistics="batch"))
    with pytest.raises(InputError, match="normalises by the batch"):
        bank.add("more", batch)
    with pytest.raises(InputError, match="has a task 'good' already"):
        bank.add("good", make_delta(base, subset))
    with pytest.raises(InputError, match="cannot name a task"):
        bank.add("", make_delta(base, subset))
    with pytest.raises(InputError, match="does not exist"):
        bank.add("more", "nothing.delta")
    assert bank.tasks == ("good",)


def test_what_a_mixed_batch_cannot_be():
    bank, _ = made(small(), ["bn", "random:1"])
    x = torch.randn(2, 3, 8, 8)
    for tasks, message in [
        (["task0"], "1 tasks for 2 samples"),
        ([], "a task's name for each sample"),
        ("task0", "a task's name for each sample"),
        (["task0", "taks0"], "no task 'taks0': did you mean task0"),
        (["task0", None], "None is no task of a batch"),
        (["task0", "task1"], "task 'task1' trained random entries of 'blocks.0.conv1.weight'"),
    ]:
        with pytest.raises(InputError, match=message) as raised:
            bank.forward(x, tasks=tasks)
        assert "\n" not in str(raised.value)
    with pytest.raises(InputError, match="it has none"):
        Bank(small()).activate("task0")
    bank, _ = made(Odd(), ["bn"])
    with pytest.raises(InputError, match="'no_statistics' has no running statistics"):
        bank.forward(x, tasks=["task0", "task0"])


def test_a_network_that_normalises_by_the_batch_is_refused_whenever_it_does():
    base = small()
    bank, alone = made(base, ["bn", "bn"])
    x = torch.randn(6, 3, 8, 8)
    select(base, "bn", statistics="batch").apply(base)
    tasks = ["task0", "task1"]
    with pytest.raises(InputError, match="normalises by the batch"):
        bank.forward(x[:2], tasks=tasks)
    with pytest.raises(InputError, match="normalises by the batch"):
        Bank(base)
    bank.activate("task1")  # which brings its own policy
    with torch.no_grad():
        assert torch.equal(base.eval()(x), alone["task1"](x))
    assert_each_alone(bank, alone, x[:2], tasks)


@pytest.mark.parametrize("backend", [None, "eager"])
def test_the_policy_goes_with_the_task(backend):
    base = Strided()  # small: it is compiled three times
    bank, _ = made(base, ["bn"], statistics="frozen")
    moving = copy.deepcopy(base)
    bank.add("moving", make_delta(moved(moving, select(moving, "bn")), select(moving, "bn")))
    torch._dynamo.reset()
    network = base if backend is None else torch.compile(base, backend=backend)
    base.train()
    for task, moves in (("moving", True), ("task0", False), (None, True), ("task0", False)):
        bank.activate(task)
        before = base.bn.running_mean.clone()
        network(torch.randn(4, 3, 8, 8))
        assert torch.equal(before, base.bn.running_mean) != moves, task
        base.load_state_dict(base.state_dict())


def test_a_frozen_weight_that_changed_after_the_first_task_is_noticed():
    base = small()
    bank, _ = made(base, ["bn"])
    more = make_delta(small(), select(small(), "bn"))
    bank.add("before", more)
    base.conv.weight.data.mul_(2)  # which no version counter sees
    with pytest.raises(InputError, match=r"task 'after': 'conv.weight' has other values"):
        bank.add("after", more)


class Flags(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.head = nn.BatchNorm1d(3), nn.Linear(3, 2)

    def forward(self, x, flip=True, scale=1.0, shift=1, words=None, peek=False):
        if peek and x.mean() > 0:
            return x
        x = self.head(self.norm(x)) * scale + shift
        return -x if flip else x


def test_keywords_that_count_as_nothing_are_given_on():
    bank, alone = made(Flags(), ["bn+output", "bn"])
    x, tasks = torch.randn(3, 3), ["task1", "task0", "task1"]
    for keywords in (
        {}, {"flip": False}, {"scale": 0.0}, {"shift": 0}, {"flip": False, "shift": False},
        {"words": ""}, {"words": []}, {"words": None, "shift": 2},
    ):  # fmt: skip
        ours = bank.forward(x, tasks=tasks, **keywords)
        whole = {task: network(x, **keywords) for task, network in alone.items()}
        theirs = torch.stack([whole[task][n] for n, task in enumerate(tasks)])
        torch.testing.assert_close(ours, theirs)


def test_what_vmap_cannot_run_is_one_line():
    bank, _ = made(Flags(), ["bn", "bn"])
    x, tasks = torch.randn(2, 3), ["task0", "task1"]
    with pytest.raises(
        InputError, match=r"data-dependent control flow\): write activate"
    ) as raised:
        bank.forward(x, tasks=tasks, peek=True)
    assert "\n" not in str(raised.value)
    with pytest.raises(InputError, match="a tensor without dimensions"):
        bank.forward(x, tasks=tasks, scale=torch.tensor(2.0))
    with pytest.raises(InputError, match="no task"):
        bank.forward(x, tasks=[["task0"], "task1"])
    with pytest.raises(InputError, match="a task's name for each sample"):
        bank.forward(x, tasks=torch.tensor([0, 1]))


def test_a_delta_that_holds_nothing():
    base = nn.Linear(3, 2)
    bank = Bank(base)
    bank.add("nothing", make_delta(base, select(base, "none")))
    bank.activate("nothing")
    x = torch.randn(2, 3)
    torch.testing.assert_close(bank.forward(x, tasks=["nothing"] * 2), base(x))


def test_a_deep_network_differs_by_rounding_only():
    base = type(small())(9, 4, 10)  # cifar_resnet_56 with 4 filters
    for layer in base.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight)
    for twin, tolerance in ((base, 1e-5), (copy.deepcopy(base).double(), 1e-12)):
        bank, alone = made(twin, ["bn", "bn", "bn"])
        x = torch.randn(6, 3, 8, 8, dtype=twin.fc.weight.dtype)
        assert_each_alone(bank, alone, x, TASKS, tolerance)


def test_the_example_runs(capsys):
    path = Path(__file__).parents[1] / "examples" / "ten_tasks.py"
    runpy.run_path(str(path))["main"](steps=8)
    out = capsys.readouterr().out
    assert "ten tasks in 86," in out
    assert "2,000 questions, the same answers as one task at a time: True" in out


def test_the_pages_examples_run_in_order(tmp_path, monkeypatch):
    page = (Path(__file__).parent.parent / "docs" / "deltas.md").read_text(encoding="utf-8")
    first, second, third = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    monkeypatch.chdir(tmp_path)
    names = {"gammabeta": gammabeta, "torch": torch, "model": small(), "other": small()}
    exec(first, names)
    assert {group["lr"] for group in names["groups"]} == {0.01, 0.1}
    exec(second, names)
    moved(names["other"], names["subset"])
    save_delta(names["other"], names["subset"], "birds.delta")
    exec(third, names | {"images": torch.randn(3, 3, 8, 8)})
