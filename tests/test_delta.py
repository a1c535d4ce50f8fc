"""Deltas: bit-exact round trips, small files, and refusals that name what differs."""

import copy
import dataclasses
import json

import pytest
import torch
from networks import Foreign, Mixed, Odd
from torch import nn

import gammabeta
from gammabeta import Bank, InputError, RunError, create_model, load_delta, save_delta, select
from gammabeta.delta import current_tensors, make_delta
from gammabeta.delta_file import from_bytes, read_delta, to_bytes
from gammabeta.sparse import attached
from gammabeta.tensorfile import encode


def moved(module, subset, seed=0):
    """As training leaves a network: every trained value and every statistic has moved."""
    draw = torch.Generator().manual_seed(seed)
    leaves = subset.apply(module)
    with torch.no_grad():
        for leaf in leaves.values():
            leaf.add_(torch.randn(leaf.shape, generator=draw).to(leaf.dtype))
        for name, buffer in module.named_buffers():
            if buffer.is_floating_point():
                buffer.add_(torch.rand(buffer.shape, generator=draw).to(buffer.dtype))
            elif name.endswith("num_batches_tracked"):
                buffer.add_(7)
    return module


def assert_same(one, two):
    ours, theirs = current_tensors(one), current_tensors(two)
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert value.dtype == theirs[name].dtype
        assert torch.equal(value, theirs[name]), name


def small():
    return create_model("cifar_resnet_8_4", seed=3)


@pytest.mark.parametrize("text", ["bn", "bn+output", "random:2+beta", "all", "none", "bias+gamma"])
def test_a_round_trip_is_bit_exact_and_the_seed_rebuilds_the_rest(text, tmp_path):
    module = small()
    moved(module, select(module, text, seed=5))
    path = tmp_path / "task.delta"
    subset = select(module, text, seed=5)
    save_delta(module, subset, path)
    other = load_delta_into(small(), path)
    assert_same(module, other)
    rebuilt = gammabeta.load_network(path)
    assert not rebuilt.training
    assert_same(module, rebuilt)
    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(rebuilt(x), module.eval()(x))


def load_delta_into(module, path):
    load_delta(module, path)
    return module


@pytest.mark.parametrize("make", [Mixed, Odd, Foreign])
@pytest.mark.parametrize("kind", ["fp32", "bf16", "mixed"])
def test_other_peoples_networks_in_every_precision(make, kind, tmp_path):
    base = make()
    if kind != "fp32":
        base.bfloat16()
    if kind == "mixed":
        for layer in base.modules():
            if "Norm" in type(layer).__name__:
                layer.float()
    trained = copy.deepcopy(base)
    subset = select(trained, "bn")
    moved(trained, subset)
    save_delta(trained, subset, tmp_path / "delta")
    assert_same(load_delta_into(base, tmp_path / "delta"), trained)


def test_a_base_in_another_precision():
    base = Mixed()
    trained = copy.deepcopy(base)
    subset = select(trained, "bn+output")
    delta = make_delta(moved(trained, subset), subset)
    rounded = copy.deepcopy(base).bfloat16()
    load_delta(rounded, delta)
    assert_same(rounded, copy.deepcopy(trained).bfloat16())
    # The way back loses nothing: a bfloat16 delta on the fp32 base, saved from there, loaded again.
    narrow = make_delta(rounded, subset)
    wide = load_delta_into(copy.deepcopy(base), narrow)
    again = load_delta_into(copy.deepcopy(base).bfloat16(), make_delta(wide, subset))
    assert_same(again, rounded)
    with pytest.raises(InputError, match=r"'conv.weight'|float16 here"):
        load_delta(copy.deepcopy(base).half(), delta)


def test_the_same_delta_gives_the_same_bytes_and_keeps_what_it_is_told(tmp_path):
    module = small()
    subset = select(module, "bn")
    delta = save_delta(module, subset, tmp_path / "a", info={"task": "cats", "accuracy": 0.5})
    data = (tmp_path / "a").read_bytes()
    assert to_bytes(delta) == data == to_bytes(read_delta(tmp_path / "a"))
    assert read_delta(tmp_path / "a").describe() == delta.describe()
    assert delta.info == {"task": "cats", "accuracy": 0.5}
    assert delta.network["seed"] == 3
    with pytest.raises(InputError, match="JSON"):
        save_delta(module, subset, tmp_path / "b", info={"x": float("nan")})
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_resnet_866_takes_less_than_600_kilobytes():
    with torch.device("meta"):
        meta = gammabeta.models.architecture("cifar_resnet_866")
    module = meta.to_empty(device="cpu")  # its values need not be drawn to know the size
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for tensor in (*module.parameters(), *module.buffers()):
            if tensor.is_floating_point():
                tensor.uniform_(generator=draw)
            else:
                tensor.fill_(1)
    whole = sum(tensor.nbytes for tensor in module.state_dict().values())
    assert whole > 55_000_000
    size = len(to_bytes(make_delta(module, select(module, "bn"))))
    assert size < 600_000


def test_saving_under_a_wrapper_saves_the_network_inside():
    module = small()
    subset = select(module, "bn")
    wrapped = nn.DataParallel(module)
    assert to_bytes(make_delta(wrapped, subset)) == to_bytes(make_delta(module, subset))


def test_loading_reads_into_attached_entries():
    trained = small()
    subset = select(trained, "random:2", seed=1)
    delta = make_delta(moved(trained, subset), subset)
    module = small()
    subset.apply(module)
    load_delta(module, delta)
    assert_same(module, trained)
    leaf = attached(module)["conv.weight"].leaf
    assert torch.equal(leaf.detach(), delta.values["conv.weight"])


def test_the_policy_comes_along():
    trained = small()
    subset = select(trained, "bn", statistics="batch")
    delta = make_delta(moved(trained, subset), subset)
    module = load_delta_into(small(), delta).eval()
    x = torch.randn(4, 3, 8, 8)
    assert torch.equal(module(x), trained.eval()(x))
    load_delta(module, make_delta(small(), select(small(), "bn")))
    assert torch.equal(module(x), small().eval()(x))


def test_a_seed_that_does_not_hold_is_not_claimed(tmp_path):
    module = small()
    with torch.no_grad():
        module.conv.weight[0, 0, 0, 0] += 1  # other weights were loaded
    delta = make_delta(module, select(module, "bn"))
    assert delta.network is None
    with pytest.raises(InputError, match="does not follow from a seed"):
        gammabeta.load_network(delta)
    with pytest.raises(InputError, match=r"'conv.weight' has other values here"):
        load_delta(small(), delta)


def test_a_rebuild_with_other_values_says_which(monkeypatch):
    delta = make_delta(small(), select(small(), "bn"))
    monkeypatch.setitem(delta.network, "seed", 4)
    with pytest.raises(RunError, match=r"'conv.weight' has other values .* numpy"):
        gammabeta.load_network(delta)


class Strided(nn.Module):
    def __init__(self, stride=1, eps=1e-5, classes=2, extra=False, act=nn.ReLU):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, stride=stride)
        self.bn = nn.BatchNorm2d(4, eps=eps)
        self.act = act()
        self.head = nn.Linear(4, classes)
        if extra:
            self.more = nn.Linear(1, 1)

    def forward(self, x):
        return self.head(self.act(self.bn(self.conv(x))).mean((2, 3)))


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"stride": 2}, r"'conv' has stride \[2, 2\] here and \[1, 1\] in the delta"),
        ({"eps": 1e-3}, "'bn' has eps 0.001 here and 1e-05 in the delta"),
        ({"act": nn.GELU}, '\'act\' has class "GELU" here and "ReLU" in the delta'),
        ({"classes": 3}, r"'head.weight' has shape \(2, 4\) in the delta and \(3, 4\) here"),
        ({"extra": True}, "the delta has no 'more.weight'"),
    ],
)
def test_another_architecture_is_refused_by_name_and_nothing_changes(other, message):
    torch.manual_seed(0)
    trained = Strided()
    subset = select(trained, "bn+output", output="head")
    delta = make_delta(trained, subset)
    module = Strided(**other)
    before = copy.deepcopy(module)
    with pytest.raises(InputError, match=message) as raised:
        load_delta(module, delta)
    assert "\n" not in str(raised.value)
    assert_same(module, before)
    with pytest.raises(InputError, match="another network"):
        make_delta(module, subset) if "classes" in other else make_delta(Mixed(), subset)


def test_the_first_frozen_tensor_that_differs_is_named():
    module = small()
    delta = make_delta(module, select(module, "gamma"))
    other = small()
    with torch.no_grad():
        other.fc.bias[0] += 1e-6
        other.blocks[1].conv2.weight[0] *= 2
    before = copy.deepcopy(other)
    with pytest.raises(InputError, match=r"'blocks.1.conv2.weight' .* from seed 3"):
        load_delta(other, delta)
    assert_same(other, before)


def test_damage_is_noticed_wherever_it_is(tmp_path):
    module = small()
    data = to_bytes(make_delta(module, select(module, "bn")))
    assert to_bytes(from_bytes(data, "f")) == data
    for place in [*range(0, len(data), 97), len(data) - 1]:
        damaged = bytearray(data)
        damaged[place] ^= 0x10
        with pytest.raises(InputError, match=r"^f .*"):
            from_bytes(bytes(damaged), "f")
    for end in [0, 1, 8, 9, 100, len(data) // 2, len(data) - 1]:
        with pytest.raises(InputError, match=r"^f "):
            from_bytes(data[:end], "f")
    with pytest.raises(InputError, match="no delta"):
        from_bytes(encode({"x": torch.zeros(2)}, {}), "f")
    for number, what in ((b"1", "save it again"), (b"2", "save it again"), (b"9", "update gamma")):
        with pytest.raises(InputError, match=f"has format .*, this version reads 3: {what}"):
            from_bytes(data.replace(b'_delta":"3"', b'_delta":"%s"' % number), "f")


def test_paths_that_cannot_be_read_or_written(tmp_path):
    module = small()
    subset = select(module, "bn")
    for path in (tmp_path, tmp_path / "no" / "x", tmp_path / ("x" * 300), "a\0b"):
        for function in (lambda p: save_delta(module, subset, p), read_delta):
            with pytest.raises(InputError) as raised:
                function(path)
            assert "\n" not in str(raised.value)
    assert list(tmp_path.iterdir()) == []


def test_a_failing_disk_leaves_the_earlier_file(tmp_path, monkeypatch):
    module = small()
    subset = select(module, "bn")
    save_delta(module, subset, tmp_path / "a")
    before = (tmp_path / "a").read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(RunError, match="No space left"):
        save_delta(module, subset, tmp_path / "a", info={"more": 1})
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_bytes() == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layers": {"": {}}}, "another architecture: the delta has no 'conv'"),
        ({"frozen_sha256": "0" * 64, "frozen_rounded": "0" * 64}, r"other values .* \(its sha256"),
        ({"statistics": "bogus"}, "unknown statistics policy 'bogus'"),
    ],
)
def test_what_short_marks_cannot_tell_is_refused_and_nothing_changes(change, message):
    trained = small()
    subset = select(trained, "bn")
    delta = dataclasses.replace(make_delta(moved(trained, subset), subset), **change)
    for given in (delta, from_bytes(to_bytes(delta), "f")):
        module = small()
        with pytest.raises(InputError, match=message):
            load_delta(module, given)
        assert_same(module, small())
    with pytest.raises(InputError, match=message):
        Bank(small()).add("task", delta)


def test_a_sum_over_nonsense_is_no_delta():
    delta = make_delta(small(), select(small(), "bn"))
    for change in ({"text": None}, {"statistics": 3}, {"network": "x"}, {"dtype": None}):
        with pytest.raises(InputError, match="f is no delta"):
            from_bytes(to_bytes(dataclasses.replace(delta, **change)), "f")


def test_a_recipe_of_another_version_is_refused():
    delta = make_delta(small(), select(small(), "bn"))
    for change in ({"bogus": 1}, {"name": 5}, {"name": "nothing"}):
        wrong = dataclasses.replace(delta, network=delta.network | change)
        with pytest.raises(InputError) as raised:
            gammabeta.load_network(wrong)
        assert "\n" not in str(raised.value)
    with pytest.raises(InputError, match="none that this version makes"):
        gammabeta.load_network(dataclasses.replace(delta, dtype="nothing"))


@pytest.mark.parametrize("text", ["bn+output", "random:2+beta", "all"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_a_start_in_another_type_is_rebuilt_in_it(text, dtype):
    trained = small().to(dtype)
    if "bn" in text:
        trained.bn.float()  # as mixed precision keeps it
    subset = select(trained, text, seed=1)
    delta = from_bytes(to_bytes(make_delta(moved(trained, subset), subset)), "f")
    assert delta.network["seed"] == 3
    assert delta.dtype == ("float32" if text == "all" else str(dtype).removeprefix("torch."))
    assert_same(gammabeta.load_network(delta), trained)


def test_frozen_values_in_several_types_claim_no_seed():
    module = small().bfloat16()
    module.bn.float()
    delta = make_delta(module, select(module, "output"))
    assert (delta.dtype, delta.network) == ("mixed", None)
    load_delta(copy.deepcopy(module), delta)


def test_rounded_values_in_a_wide_type_do_not_follow_from_the_seed():
    module = small().bfloat16().float()
    assert make_delta(module, select(module, "bn")).network is None


class Sharing(nn.Module):
    """Two layers with one running mean."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.head = nn.BatchNorm1d(3), nn.BatchNorm1d(3), nn.Linear(3, 2)
        self.b.running_mean = self.a.running_mean

    def forward(self, x):
        return self.head(self.b(self.a(x)))


def test_layers_that_share_a_running_mean(tmp_path):
    base = Sharing()
    trained = copy.deepcopy(base)
    subset = select(trained, "bn")
    names = [row.name for row in subset.table if row.role == "statistics"]
    assert "a.running_mean" in names
    assert "b.running_mean" not in names
    save_delta(moved(trained, subset), subset, tmp_path / "d")
    other = copy.deepcopy(base)
    load_delta(other, tmp_path / "d")
    assert_same(other, trained)
    x = torch.randn(4, 3)
    assert torch.equal(other.eval()(x), trained.eval()(x))
    bank = Bank(base)
    bank.add("task", tmp_path / "d")
    torch.testing.assert_close(bank.forward(x, tasks=["task"] * 4), trained(x))


def test_a_network_without_values_is_refused():
    delta = make_delta(small(), select(small(), "bn"))
    with pytest.raises(InputError, match=r"'conv.weight' has no values \(meta device\)"):
        load_delta(small().to("meta"), delta)


def test_the_file_is_plain_safetensors(tmp_path):
    from safetensors import safe_open

    module = small()
    subset = select(module, "bn+output")
    save_delta(module, subset, tmp_path / "a")
    with safe_open(tmp_path / "a", "pt") as file:
        assert file.get_tensor("trained/gamma/float32").shape == (84,)
        assert file.get_tensor("statistics/num_batches_tracked/int64").dtype == torch.int64
        assert json.loads(file.metadata()["about"])["trainable"] == "bn+output"
