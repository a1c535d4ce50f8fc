"""The compiled passes against their slow twin: both types, odd shapes, every combination."""

import ctypes
import itertools
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from gammabeta.passes import compiled, native, twin

pytestmark = pytest.mark.skipif(
    isinstance(native.loaded(), native.Unavailable), reason="no C++ compiler on this machine"
)
TYPES = [torch.float32, torch.bfloat16]
SHAPES = [(1, 16), (5, 16), (1024, 32), (2500, 48), (1025, 64), (33, 128), (3, 2048)]


def tensors(rows, channels, dtype, count, seed=0):
    draw = torch.Generator().manual_seed(seed)
    return [torch.randn(rows, channels, generator=draw).to(dtype) for _ in range(count)]


def per_channel(channels, count, seed=1):
    """Of both signs, with a zero and a denormal."""
    draw = torch.Generator().manual_seed(seed)
    made = [torch.randn(channels, generator=draw) for _ in range(count)]
    for each in made:
        each[0], each[1] = 0.0, 1e-40
    return made


def near(ours, theirs, dtype, scale=1.0):
    tolerance = (1e-5 if dtype == torch.float32 else 1e-2) * scale
    torch.testing.assert_close(ours.double(), theirs.double(), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize(("rows", "channels"), SHAPES)
def test_measure(rows, channels, dtype):
    (z,) = tensors(rows, channels, dtype, 1)
    z = z * 3 + 1
    assert native.supports(z)
    mean, var = native.measure(z)
    expected = torch.var_mean(z.double(), 0, correction=0)
    torch.testing.assert_close(mean.double(), expected[1], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(var.double(), expected[0], rtol=1e-5, atol=1e-6)


def test_a_mean_far_from_zero_costs_no_precision():
    (z,) = tensors(3000, 16, torch.float32, 1)
    z = z + 30_000
    exact = z.double().var(0, correction=0)
    for version in (native, twin):
        mean, var = version.measure(z)
        torch.testing.assert_close(var.double(), exact, rtol=1e-4, atol=0)
        torch.testing.assert_close(mean.double(), z.double().mean(0), rtol=1e-7, atol=0)


def test_a_constant_channel_has_no_variance():
    z = torch.full((2000, 16), 0.1)
    assert (native.measure(z)[1] == 0).all()


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize(("rows", "channels"), SHAPES[1:4])
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("add", ["nothing", "skip", "shortcut"])
def test_normalise(rows, channels, dtype, relu, add):
    z, skip = tensors(rows, channels, dtype, 2)
    s, t, s2, t2 = per_channel(channels, 4)
    more = {"nothing": (), "skip": (skip,), "shortcut": (skip, s2, t2)}[add]
    ours, bits = native.normalise(z, s, t, *more, relu=relu, keep=True)
    theirs, _ = twin.normalise(z, s, t, *more, relu=relu, keep=True)
    near(ours, theirs, dtype)
    assert torch.equal(twin.unpack(bits, z), ours > 0)
    assert native.normalise(z, s, t, *more, relu=relu, keep=False)[1] is None


def test_bits_are_packed_as_the_twin_packs_them():
    mask = tensors(7, 16, torch.float32, 1)[0] > 0
    assert torch.equal(twin.unpack(twin.pack(mask), mask), mask)
    z = mask.float()
    _, bits = native.normalise(z, torch.ones(16), torch.zeros(16), relu=True, keep=True)
    assert torch.equal(bits, twin.pack(mask))
    odd = torch.tensor([True, False, True])
    assert torch.equal(twin.unpack(twin.pack(odd), odd), odd)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize(("rows", "channels"), SHAPES[1:4])
@pytest.mark.parametrize("opened", ["everywhere", "recomputed", "bits"])
@pytest.mark.parametrize(
    ("with_more", "with_shortcut", "keep"), list(itertools.product([0, 1], repeat=3))
)
def test_sums(rows, channels, dtype, opened, with_more, with_shortcut, keep):
    g, more, z, z2 = tensors(rows, channels, dtype, 4)
    mean, inv, s, t, mean2, inv2 = per_channel(channels, 6)
    where = {"everywhere": None, "recomputed": (s, t), "bits": twin.pack(z2 > 0)}[opened]
    options = {
        "opened": where,
        "more": more if with_more and opened != "recomputed" else None,
        "shortcut": (z2, mean2, inv2) if with_shortcut else None,
        "keep": bool(keep),
    }
    ours = native.sums(g, z, mean, inv, **options)
    theirs = twin.sums(g, z, mean, inv, **options)
    assert [each is None for each in ours] == [each is None for each in theirs]
    for index, (one, other) in enumerate(zip(ours, theirs, strict=True)):
        if one is not None:
            # bf16: a sum of rows values, each rounded to 1/256 before it is added
            near(one, other, dtype if index == 3 else torch.float32, scale=1 if index == 3 else 10)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize(("rows", "channels"), SHAPES[1:4])
@pytest.mark.parametrize("recomputed", [False, True])
def test_input_gradient(rows, channels, dtype, recomputed):
    g, z = tensors(rows, channels, dtype, 2)
    mean, inv, s, k1, k2, t = per_channel(channels, 6)
    options = (t,) if recomputed else ()
    ours = native.input_gradient(g, z, mean, inv, s, k1, k2, *options)
    near(ours, twin.input_gradient(g, z, mean, inv, s, k1, k2, *options), dtype)


@pytest.mark.parametrize("dtype", TYPES)
def test_what_is_no_number_passes_the_relu(dtype):
    (z,) = tensors(40, 16, dtype, 1)
    z[3, 5], z[7, 2] = torch.nan, torch.inf
    out, _ = native.normalise(z, torch.ones(16), torch.zeros(16), relu=True, keep=False)
    assert out[3, 5].isnan()
    assert out[7, 2].isinf()
    assert native.measure(z)[0][5].isnan()


def test_the_number_of_threads_changes_nothing():
    g, z = tensors(5000, 32, torch.bfloat16, 2)
    mean, inv = per_channel(32, 2)
    found = []
    before = torch.get_num_threads()
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        found.append(torch.cat([*native.measure(z), *native.sums(g, z, mean, inv)[:2]]))
    torch.set_num_threads(before)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


@pytest.mark.parametrize(
    "z",
    [torch.randn(4, 12), torch.randn(16, 4).T, torch.randn(4, 16, dtype=torch.float64)],
    ids=["channels", "strided", "fp64"],
)
def test_what_they_do_not_take_goes_to_the_twin(z):
    assert not native.supports(z)
    mean, var = native.measure(z)
    torch.testing.assert_close(var, z.var(0, correction=0).to(var.dtype))
    ones = torch.ones(z.shape[1], dtype=mean.dtype)
    assert torch.equal(native.normalise(z, ones, 0 * ones, relu=True, keep=False)[0], z.relu())


def test_a_machine_without_a_compiler_is_told_why(monkeypatch, tmp_path):
    monkeypatch.setenv("GAMMABETA_CACHE", str(tmp_path))
    monkeypatch.setenv("CXX", "no-such-compiler")
    compiled.loaded.cache_clear()
    assert "no-such-compiler" in native.why_slow()
    monkeypatch.delenv("CXX")
    monkeypatch.setattr(compiled.shutil, "which", lambda _: None)
    compiled.loaded.cache_clear()
    assert "no C++ compiler was found" in native.why_slow()
    (z,) = tensors(5, 16, torch.float32, 1)
    torch.testing.assert_close(native.measure(z)[0], z.mean(0))
    compiled.loaded.cache_clear()


def test_a_source_that_does_not_compile_leaves_nothing_behind(monkeypatch, tmp_path):
    broken = tmp_path / "broken.cpp"
    broken.write_text("int main( {")
    monkeypatch.setenv("GAMMABETA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(native, "_SOURCE", broken)
    compiled.loaded.cache_clear()
    assert "could not compile" in native.why_slow()
    assert list((tmp_path / "cache").iterdir()) == []
    compiled.loaded.cache_clear()


def test_of_several_at_once_one_compiles(monkeypatch, tmp_path):
    log, script, source = (tmp_path / name for name in ("log", "compiler.sh", "one.cpp"))
    script.write_text(f'echo "$@" >> {log}; sleep 0.2; exec g++ "$@"')
    source.write_text('extern "C" int one() { return 1; }')
    monkeypatch.setenv("CXX", f"sh {script}")
    monkeypatch.setenv("GAMMABETA_CACHE", str(tmp_path / "cache"))
    with ThreadPoolExecutor(3) as threads:  # each with an opening of the lock of its own
        made = list(threads.map(compiled._compiled, [source] * 3))
    assert made == made[:1] * 3
    assert ctypes.CDLL(str(made[0])).one() == 1
    assert log.read_text().count("\n") == 2  # the unit and the library, once


@pytest.mark.slow
def test_a_torn_library_is_compiled_again(monkeypatch, tmp_path):
    monkeypatch.setenv("GAMMABETA_CACHE", str(tmp_path))
    compiled.loaded.cache_clear()
    assert native.why_slow() is None
    (kept,) = tmp_path.glob("*.so")
    whole = kept.read_bytes()
    torn = tmp_path / "torn.so"  # in use is the old file; this one takes its name
    torn.write_bytes(whole[:3000])
    torn.replace(kept)
    compiled.loaded.cache_clear()
    assert native.why_slow() is None
    assert len(kept.read_bytes()) == len(whole)
    compiled.loaded.cache_clear()


def test_what_is_per_channel_must_be_plain_too():
    g, z = tensors(8, 16, torch.float32, 2)
    s, t = per_channel(16, 2)
    for wrong in (s.double(), s.bfloat16(), torch.ones(8), torch.ones(32)[::2]):
        assert not native.supports(z, channel=(wrong, t))
    assert not native.supports(z, g[:2])
    assert not native.supports(z[:0])
    ours, _ = native.normalise(z, s.double(), t.double(), relu=True, keep=False)
    torch.testing.assert_close(ours, native.normalise(z, s, t, relu=True, keep=False)[0])


@pytest.mark.slow
def test_a_compiler_with_arguments(monkeypatch, tmp_path):
    monkeypatch.setenv("GAMMABETA_CACHE", str(tmp_path))
    monkeypatch.setenv("CXX", "g++ -O1")
    compiled.loaded.cache_clear()
    assert native.why_slow() is None
    compiled.loaded.cache_clear()


@pytest.mark.slow
def test_other_processors_compile_the_passes_too(monkeypatch, tmp_path):
    """The code without AVX-512 is another one; here it is compiled and held against the twin."""
    made = tmp_path / "plain.so"
    flags = [flag for flag in compiled._FLAGS if flag != "-march=native"]
    compiler = compiled._compiler()
    command = [*compiler, *flags, "-shared", str(native._SOURCE), "-o", str(made)]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip(f"{compiler[0]} cannot build for a plain processor here")
    plain = compiled._open(made)
    monkeypatch.setattr(native, "loaded", lambda: plain)
    for dtype in TYPES:
        test_normalise(5, 16, dtype, True, "shortcut")
        test_sums(1025, 32, dtype, "bits", 1, 1, 1)
        test_what_is_no_number_passes_the_relu(dtype)


@pytest.mark.slow
def test_a_cache_that_cannot_be_made_costs_the_cache_alone(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("GAMMABETA_CACHE", str(tmp_path / "file" / "cache"))
    compiled.loaded.cache_clear()
    assert native.why_slow() is None
    compiled.loaded.cache_clear()
