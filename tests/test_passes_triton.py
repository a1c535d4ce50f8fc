"""The passes as Triton kernels against their slow twin. Without a GPU they run in Triton's
interpreter."""

import itertools

import pytest
import torch
from test_passes import near, per_channel, tensors

from gammabeta import passes
from gammabeta.passes import twin

pytest.importorskip("triton")
from gammabeta.passes import on_gpu

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
# The interpreter rounds to bf16 in a way of its own.
TYPES = [torch.float32, torch.float16] + [torch.bfloat16] * (DEVICE == "cuda")
# One row; fewer channels than a tile is wide; several tiles a program, several programs, the last
# of them with fewer rows; two tiles side by side, the second of them not full.
SHAPES = [(1, 16), (5, 8), (70, 24), (40, 40)]


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(on_gpu, "DEVICE", DEVICE)
    monkeypatch.setattr(on_gpu, "_TILE", 256)
    monkeypatch.setattr(on_gpu, "_WIDEST", 32)
    monkeypatch.setattr(on_gpu, "_PROGRAMS", 5)
    monkeypatch.setattr(on_gpu, "_LINES", 2)


def there(*values):
    return [each.to(DEVICE) for each in values]


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize(("rows", "channels"), SHAPES)
def test_measure(rows, channels, dtype):
    (z,) = there(tensors(rows, channels, dtype, 1)[0] * 3 + 1)
    assert on_gpu.supports(z)
    mean, var = on_gpu.measure(z)
    expected = torch.var_mean(z.double(), 0, correction=0)
    torch.testing.assert_close(mean.double(), expected[1], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(var.double(), expected[0], rtol=1e-5, atol=1e-6)


def test_a_mean_far_from_zero_costs_no_precision():
    (z,) = there(tensors(300, 16, torch.float32, 1)[0] + 30_000)
    mean, var = on_gpu.measure(z)
    torch.testing.assert_close(var.double(), z.double().var(0, correction=0), rtol=1e-4, atol=0)
    torch.testing.assert_close(mean.double(), z.double().mean(0), rtol=1e-7, atol=0)


def test_a_constant_channel_has_no_variance():
    assert (on_gpu.measure(torch.full((200, 16), 0.1, device=DEVICE))[1] == 0).all()


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize(("rows", "channels"), SHAPES)
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("add", ["nothing", "skip", "shortcut"])
def test_normalise(rows, channels, dtype, relu, add):
    z, skip = there(*tensors(rows, channels, dtype, 2))
    s, t, s2, t2 = there(*per_channel(channels, 4))
    more = {"nothing": (), "skip": (skip,), "shortcut": (skip, s2, t2)}[add]
    ours, bits = on_gpu.normalise(z, s, t, *more, relu=relu, keep=True)
    theirs, _ = twin.normalise(z, s, t, *more, relu=relu, keep=True)
    near(ours, theirs, dtype)
    assert torch.equal(bits, twin.pack(ours > 0))
    assert on_gpu.normalise(z, s, t, *more, relu=relu, keep=False)[1] is None


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize(("rows", "channels"), SHAPES[2:])
@pytest.mark.parametrize("opened", ["everywhere", "recomputed", "bits"])
@pytest.mark.parametrize(
    ("with_more", "with_shortcut", "keep"), list(itertools.product([0, 1], repeat=3))
)
def test_sums(rows, channels, dtype, opened, with_more, with_shortcut, keep):
    g, more, z, z2 = there(*tensors(rows, channels, dtype, 4))
    mean, inv, s, t, mean2, inv2 = there(*per_channel(channels, 6))
    options = {
        "opened": {"everywhere": None, "recomputed": (s, t), "bits": twin.pack(z2 > 0)}[opened],
        "more": more if with_more else None,
        "shortcut": (z2, mean2, inv2) if with_shortcut else None,
        "keep": bool(keep),
    }
    ours = on_gpu.sums(g, z, mean, inv, **options)
    theirs = twin.sums(g, z, mean, inv, **options)
    assert [each is None for each in ours] == [each is None for each in theirs]
    for index, (one, other) in enumerate(zip(ours, theirs, strict=True)):
        if one is not None:
            near(one, other, dtype if index == 3 else torch.float32, scale=1 if index == 3 else 10)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize(("rows", "channels"), SHAPES)
@pytest.mark.parametrize("recomputed", [False, True])
def test_input_gradient(rows, channels, dtype, recomputed):
    g, z = there(*tensors(rows, channels, dtype, 2))
    mean, inv, s, k1, k2, t = there(*per_channel(channels, 6))
    options = (t,) if recomputed else ()
    ours = on_gpu.input_gradient(g, z, mean, inv, s, k1, k2, *options)
    near(ours, twin.input_gradient(g, z, mean, inv, s, k1, k2, *options), dtype)


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # numpy's, in the interpreter
@pytest.mark.parametrize("dtype", TYPES)
def test_what_is_no_number_passes_the_relu(dtype):
    (z,) = there(*tensors(40, 16, dtype, 1))
    z[3, 5], z[7, 2] = torch.nan, torch.inf
    ones = torch.ones(16, device=DEVICE)
    out, _ = on_gpu.normalise(z, ones, 0 * ones, relu=True, keep=False)
    assert out[3, 5].isnan()
    assert out[7, 2].isinf()
    assert on_gpu.measure(z)[0][5].isnan()
    assert on_gpu.sums(z, z, ones, ones)[0][5].isnan()


@pytest.mark.parametrize(
    "z",
    [torch.randn(4, 12), torch.randn(16, 4).T, torch.randn(4, 16, dtype=torch.float64)],
    ids=["channels", "strided", "fp64"],
)
def test_what_they_do_not_take_goes_to_the_twin(z):
    (z,) = there(z)
    assert not on_gpu.supports(z)
    mean, var = on_gpu.measure(z)
    torch.testing.assert_close(var, z.var(0, correction=0).to(var.dtype))
    ones = torch.ones(z.shape[1], dtype=mean.dtype, device=DEVICE)
    out, _ = on_gpu.normalise(z, ones, 0 * ones, relu=True, keep=False)
    assert torch.equal(out, z.relu())
    expected = twin.sums(z, z, mean, ones)
    assert torch.equal(on_gpu.sums(z, z, mean, ones)[1], expected[1])
    found = on_gpu.input_gradient(z, z, mean, ones, ones, mean, ones)
    assert torch.equal(found, twin.input_gradient(z, z, mean, ones, ones, mean, ones))


def test_each_device_has_its_passes():
    assert passes._for(torch.zeros(1)).__name__ == "gammabeta.passes.native"
    assert passes._for(torch.zeros(1, device="meta")) is on_gpu
