"""A subset in somebody's own training loop: parameter groups, DistributedDataParallel and
torch.compile."""

import os
import subprocess
import sys
from pathlib import Path

import parallel_worker
import pytest
import torch
from test_bank import made
from test_delta import small
from torch import nn
from torch._dynamo.testing import CompileCounter

from gammabeta import InputError, select
from gammabeta.delta_file import read_delta


def test_groups_are_the_leaves_by_role():
    module = small()
    subset = select(module, "bn+output+random:2")
    leaves = subset.apply(module)
    groups = subset.parameter_groups(module, lr={"output": 0.01, "gamma": 0.5}, decay=0.0)
    assert [group["role"] for group in groups] == ["conv", "gamma", "beta", "shortcut", "output"]
    held = [id(leaf) for group in groups for leaf in group["params"]]
    assert sorted(held) == sorted(id(leaf) for leaf in leaves.values())
    for optimizer in (torch.optim.SGD(groups, lr=0.1), torch.optim.AdamW(groups, lr=0.1)):
        rates = {group["role"]: group["lr"] for group in optimizer.param_groups}
        assert rates == {"conv": 0.1, "gamma": 0.5, "beta": 0.1, "output": 0.01, "shortcut": 0.1}
        assert {group["weight_decay"] for group in optimizer.param_groups} == {0.0}
        groups = subset.parameter_groups(module, lr={"output": 0.01, "gamma": 0.5}, decay=0.0)
    assert all("lr" not in group for group in subset.parameter_groups(module))


def test_wrong_groups_are_refused():
    module = small()
    subset = select(module, "bn")
    with pytest.raises(InputError, match="call apply first"):
        select(module, "random:1").parameter_groups(module)
    subset.apply(module)
    with pytest.raises(InputError, match=r"lr names 'output', of which nothing trains .* beta, ga"):
        subset.parameter_groups(module, lr={"output": 0.1})
    with pytest.raises(InputError, match="decay of 'gamma' is -1: write 0 or more"):
        subset.parameter_groups(module, decay={"gamma": -1})
    with pytest.raises(InputError, match="lr of 'gamma' is nan"):
        subset.parameter_groups(module, lr=float("nan"))
    select(module, "output").apply(module)
    with pytest.raises(InputError, match="call apply first"):
        subset.parameter_groups(module)


def test_two_processes_train_what_one_would(tmp_path):
    place = Path(__file__).parent
    paths = [str(place.parent), str(place), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(path for path in paths if path),
        "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo",
    }  # fmt: skip
    words = [sys.executable, place / "parallel_worker.py"]
    workers = [
        subprocess.Popen([*words, str(rank), tmp_path / "meeting", tmp_path], env=environment)
        for rank in range(2)
    ]
    try:
        assert [worker.wait(timeout=300) for worker in workers] == [0, 0]
    finally:
        for worker in workers:
            worker.kill()
    for number, text in enumerate(parallel_worker.TEXTS):
        module, subset = parallel_worker.network(text)
        start = subset.extract(module)
        parallel_worker.train(module, subset, slice(None), module)
        for rank in range(2):
            delta = read_delta(tmp_path / f"{number}-{rank}.delta")
            for name, value in subset.extract(module).items():
                assert not torch.equal(value, start[name])
                torch.testing.assert_close(delta.values[name], value, rtol=1e-4, atol=1e-6)
    _check_tracked([read_delta(tmp_path / f"tracked-{rank}.delta") for rank in range(2)])


def _check_tracked(deltas):
    """By hand, in one process: each pass begins with the first copy's statistics, and gradients are
    averaged. So what trained agrees, and the statistics saved are those of a process's own shares
    behind the first one's."""
    copies = [parallel_worker.network(parallel_worker.TRACKED, "track") for _ in range(2)]
    leaves = [
        [parameter for parameter in module.parameters() if parameter.requires_grad]
        for module, _ in copies
    ]
    optimizers = [torch.optim.SGD(each, lr=0.1, momentum=0.9, weight_decay=0.01) for each in leaves]
    for x, y in zip(*parallel_worker.images(), strict=True):
        first = {name: value.clone() for name, value in copies[0][0].named_buffers()}
        for rank, (module, _) in enumerate(copies):
            for name, value in module.named_buffers():
                value.copy_(first[name])
            optimizers[rank].zero_grad()
            part = slice(4 * rank, 4 * rank + 4)
            nn.functional.cross_entropy(module(x[part]), y[part]).backward()
        for one, two in zip(*leaves, strict=True):
            one.grad = two.grad = (one.grad + two.grad) / 2
        for optimizer in optimizers:
            optimizer.step()
    for delta, (module, subset) in zip(deltas, copies, strict=True):
        state = subset.state(module)
        for name, value in delta.values.items():
            torch.testing.assert_close(value, state[f"trained/{name}"], rtol=1e-4, atol=1e-6)
            assert torch.equal(value, deltas[0].values[name])
        for name, value in delta.buffers.items():
            torch.testing.assert_close(value, state[f"statistics/{name}"], rtol=1e-4, atol=1e-6)
    assert not torch.allclose(*(each.buffers["bn.running_mean"] for each in deltas), rtol=0.01)


def _trained(text, policy, backend):
    module = small()
    subset = select(module, text, statistics=policy)
    leaves = subset.apply(module)
    network = module if backend is None else torch.compile(module, backend=backend)
    optimizer = torch.optim.SGD(leaves.values(), lr=0.1, momentum=0.9)
    for x, y in zip(*parallel_worker.images(), strict=True):
        network.train()
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(x), y).backward()
        optimizer.step()
    network.eval()
    return network(parallel_worker.images()[0][0]), subset.state(module)


@pytest.mark.parametrize(
    ("text", "policy", "backend"),
    [
        ("bn+output", "track", "eager"),
        *(
            pytest.param(*each, "aot_eager", marks=pytest.mark.slow)
            for each in (("bn", "track"), ("bn", "frozen"), ("bn", "batch"), ("random:2", "track"))
        ),
    ],
)
def test_a_subset_compiled_after_select_trains_as_without(text, policy, backend):
    logits, state = _trained(text, policy, None)
    torch._dynamo.reset()
    compiled, its_state = _trained(text, policy, backend)
    torch.testing.assert_close(compiled, logits, rtol=1e-5, atol=1e-6)
    assert state.keys() == its_state.keys()
    for name, value in state.items():
        torch.testing.assert_close(its_state[name], value, rtol=1e-5, atol=1e-6)


def test_a_compiled_network_follows_the_bank_without_compiling_again():
    base = small().eval()
    bank, alone = made(base, ["bn+output", "bn"])
    x = torch.randn(4, 3, 8, 8)
    torch._dynamo.reset()
    counter = CompileCounter()
    compiled = torch.compile(base, backend=counter)
    seen = []
    for task in ("task0", "task1", "task0"):
        bank.activate(task)
        with torch.no_grad():
            seen.append(compiled(x))
            torch.testing.assert_close(seen[-1], alone[task](x))
        assert counter.frame_count == 1
    assert not torch.equal(seen[0], seen[1])
    assert torch.equal(seen[0], seen[2])
