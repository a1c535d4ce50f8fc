"""The CPU program's own convolutions against the slow twin in double precision."""

import dataclasses
import functools
import itertools
import subprocess

import pytest
import torch
from fused_networks import batch, networks, program_of

from gammabeta import create_model
from gammabeta.fused import direct
from gammabeta.fused.direct_program import DirectProgram
from gammabeta.fused.plan import make_plan
from gammabeta.fused.program import Join, Kept
from gammabeta.passes import compiled
from gammabeta.passes.twin import pack

pytestmark = pytest.mark.skipif(
    isinstance(compiled.loaded(direct.SOURCE), compiled.Unavailable),
    reason="no C++ compiler on this machine",
)
# Sixteens of channels: one, two and four; three, six and twelve; four, eight and sixteen.
WIDTHS = (16, 48, 64)


@functools.cache
def judged(width, count):
    """A network, its images and random cotangents, and what the twin makes of them in fp64."""
    (model,) = networks(f"cifar_resnet_8_{width}", [width])
    for norm in model.modules():
        if isinstance(norm, torch.nn.BatchNorm2d):
            norm.eps, norm.momentum = 3e-3, 0.3
            norm.bias.data[1] = 40.0  # a mean far from zero, for the layers behind
            norm.weight.data[2] = 1e-42  # a denormal
    images, _ = batch(1, count, seed=width)
    cotangents = torch.randn(
        1, count, 4 * width, generator=torch.Generator().manual_seed(1), dtype=torch.float64
    )
    return (
        model,
        images,
        cotangents,
        *passed(program_of([model], dtype=torch.float64), images, cotangents),
    )


def passed(program, images, cotangents):
    """Everything a step makes: features, raw outputs, gradients, running statistics, logits."""
    dtype = program.dtype
    runs = program.member(0, None) if isinstance(program, DirectProgram) else program
    features = runs.forward(images.to(dtype), training=True)
    raw = [each.join.z for each in runs.kept] + [each.z1 for each in runs.kept]
    raw += [each.z_shortcut for each in runs.kept if each.z_shortcut is not None]
    runs.backward(cotangents.to(program.exact))
    logits = program.logits(images.to(dtype))
    made = [features, *raw, program.gradient, program.running_mean, program.running_var, logits]
    return [each.double() for each in made]


def far(ours, theirs):
    return ((ours - theirs).norm() / theirs.norm()).item()


@pytest.mark.parametrize(("width", "count"), [(16, 1), (16, 3), (48, 3), (64, 3)])
def test_every_output_is_the_twins(width, count):
    model, images, cotangents, *theirs = judged(width, count)
    assert direct.takes(make_plan(model), torch.float32)
    ours = passed(program_of([model], DirectProgram), images, cotangents)
    for index, (mine, judge) in enumerate(zip(ours, theirs, strict=True)):
        assert far(mine, judge) < 3e-5, index


STATE = ("mean", "inv", "scale", "shift", "dgamma", "dbeta")


def doubled(each):
    """A Join or Kept with its tensors in fp64."""
    values = {field.name: getattr(each, field.name) for field in dataclasses.fields(each)}
    return type(each)(**{
        name: value.double() if isinstance(value, torch.Tensor) else value
        for name, value in values.items()
    })  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("width", WIDTHS)
def test_every_pass_is_the_twins_to_its_rounding(width, dtype):
    """Each on random tensors, so that the roundings of others do not add up."""
    model, *_ = judged(width, 3)
    near = 5e-3 if dtype == torch.bfloat16 else 2e-6
    program = program_of([model], DirectProgram, dtype=dtype)
    member = program.member(0, None)
    twin = program_of([model], dtype=torch.float64)
    twin.weights = {name: weight.double() for name, weight in program.weights.items()}
    member.training, twin.training = True, False  # one measures; both have the same statistics
    draw = torch.Generator().manual_seed(2)
    state = {name: torch.randn(twin.plan.channels, generator=draw) for name in STATE}
    high = [layer.offset + 3 for layer in twin.plan.layers]  # channels around 1000, never closed
    state["mean"][high] = 1000
    state["shift"][high] = 50 - 1000 * state["scale"][high]

    def settle():
        for name, made in itertools.product(STATE, (program, twin)):
            getattr(made, name)[0] = state[name]

    def random(layer):
        shape = (1, 3, layer.size, layer.size, layer.channels)
        return (3 * torch.randn(shape, generator=draw) + 1).to(dtype)

    def raw(layer):
        z = random(layer)
        z[..., 3] += 1000
        return z

    def check_statistics(layer, z):
        """Of what was written, to the last digits, also where that is bf16."""
        var, mean = torch.var_mean(z.double(), (0, 1, 2, 3), correction=0)
        found = program.mean[0, layer.place], program.inv[0, layer.place] ** -2 - layer.eps
        assert far(found[0].double(), mean) < 2e-6
        assert far(found[1].double(), var) < 2e-5

    def check_sums(layer, z, u):
        x_hat = (z.double() - state["mean"][layer.place]) * state["inv"][layer.place]
        for sums, exact in (("dbeta", u.double()), ("dgamma", u.double() * x_hat)):
            found = getattr(program, sums)[0, layer.place].double()
            assert far(found, exact.sum((0, 1, 2, 3))) < 1e-5

    before, input_ = twin.plan.stem, None
    for block in twin.plan.blocks:
        join = Join(before, raw(before))
        if input_ is not None and input_.shortcut is None:
            join.skip = random(before)
        elif input_ is not None:
            join.shortcut, join.z_shortcut = input_.shortcut, raw(input_.shortcut)
        settle()
        a, positive, z1, side = twin.enter(block, doubled(join))
        ours = member.enter(block, join)
        check_statistics(block.first, ours[2])
        if block.shortcut is not None:
            check_statistics(block.shortcut, ours[3])
        settle()
        assert torch.equal(ours[1], pack(positive))
        if block.shortcut is None:
            assert far(ours[0].double(), a) < near
        else:
            assert far(ours[3].double(), side) < near
        assert far(ours[2].double(), z1) < near
        z1 = raw(block.first)
        theirs = twin.middle(block, z1.double())
        assert far(member.middle(block, z1).double(), theirs) < near

        settle()
        u, v, z2 = random(block.second), random(block.first), raw(block.second)
        kept = Kept(join, ours[1], z1, z2, block.shortcut and raw(block.shortcut))
        judge = doubled(kept)
        judge.join, judge.positive = doubled(join), positive
        for name, given in (("middle_backward", (block, u)), ("enter_backward", (block, v, u))):
            mine = getattr(member, name)(*given, kept)
            wide = [each.double() if isinstance(each, torch.Tensor) else each for each in given]
            assert far(mine.double(), getattr(twin, name)(*wide, judge)) < near
            if name == "middle_backward":
                check_sums(block.first, z1, mine)
            else:
                check_sums(before, join.z, mine)
                if join.shortcut is not None:
                    check_sums(join.shortcut, join.z_shortcut, mine)
            settle()
        before, input_ = block.second, block


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_number_of_threads_changes_nothing(dtype):
    model, images, cotangents, *_ = judged(48, 16)
    found, threads = [], torch.get_num_threads()
    try:
        for count in (1, 2, 2, 2, 5):
            torch.set_num_threads(count)
            made = program_of([model], DirectProgram, dtype=dtype)
            found.append(
                passed(made, images, cotangents)[1:-1]
            )  # not the pooling, nor the classifier
    finally:
        torch.set_num_threads(threads)
    for other in found[1:]:
        assert all(torch.equal(mine, its) for mine, its in zip(found[0], other, strict=True))


def test_what_it_does_not_take(monkeypatch):
    plan = make_plan(create_model("cifar_resnet_8_16"))
    assert direct.takes(plan, torch.float32)
    assert direct.takes(plan, torch.bfloat16)
    assert not direct.takes(plan, torch.float64)
    assert not direct.takes(plan, torch.float16)
    assert not direct.takes(make_plan(create_model("cifar_resnet_8_20")), torch.float32)
    monkeypatch.setattr(compiled, "loaded", lambda _: compiled.Unavailable("no compiler"))
    assert not direct.takes(plan, torch.float32)


@pytest.mark.slow
def test_other_processors_compile_it_too(monkeypatch, tmp_path):
    """The code without AVX-512 has other tiles, and multiplies bf16 in fp32."""
    made = tmp_path / "plain.so"
    flags = [flag for flag in compiled._FLAGS if flag != "-march=native"]
    compiler = compiled._compiler()
    include = ["-I", str(compiled._SHARED)]
    command = [*compiler, *flags, *include, "-shared", str(direct.SOURCE), "-o", str(made)]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip(f"{compiler[0]} cannot build for a plain processor here")
    plain, real = compiled._open(made), compiled.loaded
    monkeypatch.setattr(
        compiled, "loaded", lambda source: plain if source == direct.SOURCE else real(source)
    )
    for width, dtype in itertools.product(WIDTHS, (torch.float32, torch.bfloat16)):
        test_every_pass_is_the_twins_to_its_rounding(width, dtype)
