"""Names are those of the network itself, whatever it or its parts are wrapped in."""

import copy

import pytest
import torch
from networks import Foreign, Mixed
from test_delta import Strided, assert_same, moved, small
from torch import nn
from torch.optim.swa_utils import AveragedModel

from gammabeta import Bank, InputError, load_delta, save_delta, select
from gammabeta.delta import make_delta
from gammabeta.weights import keep_weights, kept_weights, load_weights
from gammabeta.wrappers import named_buffers, named_modules, named_parameters, plain, submodule


def compiled(module):
    return torch.compile(module, backend="eager")


def inside(module):
    """Some of the network's parts compiled, one of them within another."""
    module.blocks[0].conv1 = compiled(module.blocks[0].conv1)
    module.blocks[0] = compiled(module.blocks[0])
    module.fc = compiled(module.fc)
    return module


WRAPS = {
    "compile": compiled, "parallel": nn.DataParallel, "averaged": AveragedModel, "inside": inside,
    "both": lambda module: nn.DataParallel(compiled(inside(module))),
}  # fmt: skip


@pytest.mark.parametrize("make", [small, Mixed, Foreign])
def test_an_unwrapped_network_has_the_names_that_torch_gives_it(make):
    module = make()
    assert list(named_modules(module)) == list(module.named_modules())
    assert list(named_parameters(module)) == [name for name, _ in module.named_parameters()]
    assert list(named_buffers(module)) == [name for name, _ in module.named_buffers()]
    for name, child in module.named_modules():
        assert submodule(module, name) is child


@pytest.mark.parametrize(
    ("wrap", "text"),
    [(wrap, "bn+output") for wrap in WRAPS.values()]
    + [(wrap, "random:1+beta") for wrap in WRAPS.values() if wrap is not AveragedModel],
)
def test_a_subset_of_a_wrapped_network_is_that_of_the_network(wrap, text, tmp_path):
    expected = small()
    subset = select(expected, text, seed=2)
    wrapped = wrap(small())
    assert select(wrapped, text, seed=2) == subset
    moved(expected, subset)
    leaves = subset.apply(wrapped)
    values = subset.extract(expected)
    assert list(leaves) == list(values)
    subset.restore(wrapped, values)
    for name, value in subset.extract(wrapped).items():
        assert torch.equal(value, values[name])
    subset.load_state(wrapped, subset.state(expected))
    save_delta(wrapped, subset, tmp_path / "from-wrapped")
    save_delta(expected, subset, tmp_path / "from-plain")
    assert (tmp_path / "from-wrapped").read_bytes() == (tmp_path / "from-plain").read_bytes()
    for name in ("from-wrapped", "from-plain"):
        assert_same(load(small(), tmp_path / name), expected)
        assert_same(load(wrap(small()), tmp_path / name), expected)


def load(module, path):
    load_delta(module, path)
    return plain(module)


def test_the_classifier_is_found_inside_wrappers():
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.head, self.aux = compiled(nn.Linear(2, 4)), nn.Linear(4, 4)

        def get_classifier(self):
            return self.head

    for module in (Own(), compiled(Own()), nn.DataParallel(Own())):
        assert set(select(module, "output").trained) == {"head.weight", "head.bias"}


def test_a_bank_over_compiled_parts_mixes_and_switches():
    torch.manual_seed(0)
    base, alone = small(), {}
    bank = Bank(compiled(inside(base)))
    for number in range(2):
        network = small()
        subset = select(network, "bn+output")
        bank.add(f"task{number}", make_delta(moved(network, subset, seed=number), subset))
        alone[f"task{number}"] = network.eval()
    x = torch.randn(3, 3, 8, 8)
    tasks = ["task1", "task0", "task1"]
    with torch.no_grad():
        ours = bank.forward(x, tasks=tasks)
        theirs = torch.cat([alone[task](x[n : n + 1]) for n, task in enumerate(tasks)])
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    assert_same(bank.activate("task0"), alone["task0"])


def test_the_entries_that_averaging_leaves_out_are_not_saved_as_if_it_had_not():
    module = small()
    subset = select(module, "random:1")
    moved(module, subset)
    with pytest.raises(InputError, match="AveragedModel averages parameters"):
        make_delta(AveragedModel(module), subset)


def test_a_file_of_weights_of_a_compiled_network_loads(tmp_path, monkeypatch):
    monkeypatch.setenv("GAMMABETA_CACHE", str(tmp_path / "cache"))
    trained = moved(small(), select(small(), "all"))
    for wrap in (compiled, inside):
        torch.save(wrap(copy.deepcopy(trained)).state_dict(), tmp_path / "w.pt")
        other = small()
        load_weights(other, kept_weights(keep_weights(tmp_path / "w.pt")))
        assert_same(other, trained)


def test_what_is_no_network_is_refused_by_name(tmp_path):
    module = Strided()
    subset = select(module, "bn")
    delta = save_delta(module, subset, tmp_path / "d")
    for wrong in (None, module.state_dict(), "resnet"):
        for use in (
            Bank,
            lambda each: load_delta(each, delta),
            lambda each: save_delta(each, subset, tmp_path / "e"),
        ):
            with pytest.raises(InputError, match=r"a network is a torch.nn.Module, not") as raised:
                use(wrong)
            assert "\n" not in str(raised.value)
    with pytest.raises(InputError, match="'bn' is no subset"):
        save_delta(module, "bn", tmp_path / "e")
    for path in (None, 5):
        for use in (lambda p: save_delta(module, subset, p), lambda p: load_delta(module, p)):
            with pytest.raises(InputError, match="is no file name"):
                use(path)
    assert [path.name for path in tmp_path.iterdir()] == ["d"]
