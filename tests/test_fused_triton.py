"""The Triton kernels against the plain program in double precision. Without a GPU they run in
Triton's interpreter, in fp32: slow, and it knows nothing of registers, types or races."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from fused_networks import batch, networks, program_of, share_the_backbone

from gammabeta.fused.optimiser import sgd
from gammabeta.fused.program import Program

pytest.importorskip("triton")
from gammabeta.fused.tiles import MOST, TILES, Tile, cut, fit
from gammabeta.fused.triton_program import TritonProgram

OPTIMISERS = pytest.mark.parametrize(
    ("momentum", "nesterov"), [(0.9, True), (0.9, False), (0.0, False)]
)
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


if DEVICE.type == "cpu":  # the interpreter takes its time for each tile, whatever its size
    FEW = {16: Tile(2048, 4096, 8, 2), 32: Tile(1024, 1024, 8, 2), 64: Tile(256, 256, 8, 1)}
    MORE = {16: Tile(1024, 2048, 8, 2), 32: Tile(512, 512, 8, 2), 64: Tile(64, 128, 8, 1)}
    PARTS = {16: Tile(512, 512, 8, 2), 32: Tile(128, 128, 8, 2), 64: Tile(64, 64, 8, 1)}
else:
    FEW = MORE = PARTS = TILES
UNPACKED = {size: Tile(tile.rows, tile.span, 8, 1) for size, tile in FEW.items()}


class Coarse(TritonProgram):
    """Few programs, for the interpreter."""

    tiles = FEW


class Fine(Coarse):
    """Several programs, each with several tiles; of three images some have no rows for the last."""

    tiles = MORE


class Torn(Coarse):
    """Several programs for an image: each reads pixels that others make."""

    tiles = PARTS


class Blocks(Coarse):
    """More than 32 channels are cut into blocks, and their totals get kernels of their own."""

    widest = 32


class Settled(Coarse):
    """All totals get kernels of their own, and no row is packed."""

    merges = 0
    tiles = UNPACKED


def pair(models, program=Coarse, shared=False, **options):
    """The Triton program and its twin in double precision, with the same numbers in it."""
    models = [model.float().double().to(DEVICE) for model in models]
    ours = program_of(models, program, shared, **options)
    return ours, program_of(models, Program, shared, **options | {"dtype": torch.float64})


def on_device(images, labels):
    """Images that fp32 holds exactly."""
    return images.float().to(DEVICE), labels.to(DEVICE)


def check_step(ours, twin, images, labels, smoothing=0.0, tolerance=2e-4):
    images, labels = on_device(images, labels)
    loss, correct = ours.step(images, labels, smoothing)
    expected, expected_correct = twin.step(images.double(), labels, smoothing)
    torch.testing.assert_close(loss.double(), expected, rtol=tolerance, atol=0)
    assert torch.equal(correct, expected_correct)
    for name in ("mean", "inv", "running_mean", "running_var", "dgamma", "dbeta"):
        mine, theirs = getattr(ours, name).double(), getattr(twin, name)
        for layer in ours.plan.layers:
            near(mine[:, layer.place], theirs[:, layer.place], tolerance, f"{name} {layer.norm}")
    if ours.head:
        near(ours.dweight.double(), twin.dweight, tolerance, "classifier's weight")
        near(ours.dbias.double(), twin.dbias, tolerance, "classifier's bias")


def near(ours, theirs, tolerance, name):
    off = (ours - theirs).abs().max() / theirs.abs().max()
    assert off < tolerance, f"{name}: off by {off:.1e} of the largest"


@pytest.mark.parametrize(
    ("name", "program", "count", "head"),
    [
        ("cifar_resnet_8_3", Fine, 3, True),  # odd numbers of channels
        ("cifar_resnet_14_3", Torn, 1, False),  # identity skips between blocks
        pytest.param("cifar_resnet_8_16", Blocks, 1, True, marks=pytest.mark.slow),
    ],
)
def test_a_step_equals_the_twin(name, program, count, head):
    ours, twin = pair(networks(name, [3]), program, head=head)
    check_step(ours, twin, *batch(1, count), smoothing=0.1 if head else 0.0)


@pytest.mark.slow
def test_members_with_networks_and_batches_of_their_own():
    ours, twin = pair(networks("cifar_resnet_8_3", [0, 1]), head=True)
    check_step(ours, twin, *batch(2, 1))


def test_members_share_one_backbone_and_one_batch():
    models = share_the_backbone(networks("cifar_resnet_8_3", [0, 1]))
    ours, twin = pair(models, Settled, shared=True)
    images, labels = batch(1, 2)
    check_step(ours, twin, images, labels)
    assert ours.first(on_device(images, labels)[0]).shape[0] == 1  # one stem for all


@pytest.mark.slow
def test_members_share_a_batch_but_no_backbone():
    ours, twin = pair(networks("cifar_resnet_8_3", [0, 1]))
    images, _ = on_device(*batch(1, 1))
    features = ours.forward(images, training=True)
    near(features.double(), twin.forward(images.double(), training=True), 1e-4, "features")


def test_means_far_from_zero_cost_no_digits():
    """Means thousands of times the deviation: from sums of squares in fp32 variances would be below
    zero. Only the middle taps are left, or the border would see the padding and deviate."""
    models = networks("cifar_resnet_8_3", [0])
    for layer in models[0].modules():
        if isinstance(layer, torch.nn.Conv2d) and layer.kernel_size == (3, 3):
            middle = layer.weight.data[:, :, 1, 1].clone()
            layer.weight.data.zero_()[:, :, 1, 1] = middle
    for block in models[0].blocks:
        block.bn1.bias.data += 1000
    ours, twin = pair(models, Fine)
    images, _ = on_device(1000 + batch(1, 3)[0], batch(1, 3)[1])
    ours.forward(images, training=True)
    twin.forward(images.double(), training=True)
    for layer in ours.plan.layers:
        near(ours.inv[:, layer.place].double(), twin.inv[:, layer.place], 1e-2, layer.norm)


@pytest.mark.slow
def test_the_last_bit_and_the_memory_stay_and_a_short_batch_changes_neither():
    ours, twin = pair(networks("cifar_resnet_8_3", [0]))
    images, labels = batch(1, 3)
    views = {name: getattr(ours, name)[0] for name in ("running_mean", "running_var", "gradient")}
    results, places = [], []
    for _ in range(2):
        loss, _ = ours.step(*on_device(images, labels))
        state = (loss, ours.gradient, ours.mean, ours.inv)
        results.append([each.clone() for each in state])
        if not places:
            twin.step(images.float().double().to(DEVICE), labels.to(DEVICE))
            check_step(ours, twin, images[:, :1], labels[:, :1])
        places.append({key: buffer.data_ptr() for key, buffer in ours._buffers.items()})
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))
    assert places[0] == places[1]
    assert all(torch.equal(view, getattr(ours, name)[0]) for name, view in views.items())


def test_evaluation_uses_the_running_statistics():
    ours, twin = pair(networks("cifar_resnet_8_16", [0]), Blocks)
    images, _ = on_device(*batch(1, 1))
    for made in (ours, twin):
        draw = torch.Generator().manual_seed(0)
        shape = made.running_mean.shape
        made.running_mean.copy_(torch.randn(shape, generator=draw))
        made.running_var.copy_(torch.rand(shape, generator=draw) + 0.5)
    before = ours.running_mean.clone()
    near(ours.logits(images).double(), twin.logits(images.double()), 1e-4, "logits")
    assert torch.equal(ours.running_mean, before)


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # the interpreter's numpy
def test_an_input_that_is_no_number_gives_a_loss_that_is_none():
    ours, _ = pair(networks("cifar_resnet_8_3", [0, 1]))
    images, labels = on_device(*batch(2, 1))
    images[1, 0, 5, 5, 1] = torch.nan
    features = ours.forward(images, training=True)
    assert ours.classify(features, labels, 0.0)[0].isnan().tolist() == [False, True]


def test_a_dead_channel_gets_no_gradient():
    """gamma = 0 and beta <= 0 before a ReLU: its mask is empty (an identity for any data)."""
    (model,) = networks("cifar_resnet_8_3", [0])
    norm = model.blocks[0].bn1
    norm.weight.data[:] = torch.tensor([0, 1e-40, -0.5])
    norm.bias.data[:] = torch.tensor([0, -0.1, 0.2])
    ours, _ = pair([model])
    ours.step(*on_device(*batch(1, 1)))
    at = ours.plan.blocks[0].first.offset
    for gradient in (ours.dgamma, ours.dbeta):
        assert (gradient[0, at : at + 3] != 0).tolist() == [False, False, True]


@pytest.mark.parametrize("rows", [64, 8192, 80 * 1024, 128 * 1024, 500 * 1024, 2000 * 1024])
def test_no_layer_has_more_programs_than_the_next_can_merge(rows):
    for tile in TILES.values():
        fitted = fit(tile, rows)
        assert cut(rows, fitted.span) <= MOST
        assert fitted.span % fitted.rows == 0
        assert rows > tile.span * MOST or fitted == tile


@OPTIMISERS
def test_the_plain_optimiser_equals_torchs(momentum, nesterov):
    """Members and segments each have their own rate and decay."""
    draw = torch.Generator().manual_seed(0)
    values, rate, decay = (torch.rand(2, 3, generator=draw, dtype=torch.float64) for _ in range(3))
    theirs = [torch.nn.Parameter(value.clone()) for value in values.flatten()]
    groups = [
        {"params": [value], "lr": float(full), "full": float(full), "weight_decay": float(share)}
        for value, full, share in zip(theirs, rate.flatten(), decay.flatten(), strict=True)
    ]
    judge = torch.optim.SGD(groups, momentum=momentum, nesterov=nesterov)
    velocity = torch.zeros_like(values)
    for factor in (1.0, 1.0, 0.1, 0.5):
        gradient = torch.randn(2, 3, generator=draw, dtype=torch.float64)
        for group, slope in zip(judge.param_groups, gradient.flatten(), strict=True):
            group["params"][0].grad = slope.clone()
            group["lr"] = group["full"] * factor
        judge.step()
        scale = torch.tensor([factor], dtype=torch.float64)
        sgd(values, gradient, velocity, rate, decay, scale, momentum, nesterov)
        torch.testing.assert_close(values.flatten(), torch.stack(theirs).detach())


@OPTIMISERS
def test_the_optimiser_equals_its_twin(momentum, nesterov):
    ours, twin = pair(networks("cifar_resnet_8_3", [0, 1]), head=True)
    draw = torch.Generator().manual_seed(0)
    shape = ours.values.shape
    rate, decay, gradient = (torch.rand(shape, generator=draw).to(DEVICE) for _ in range(3))
    velocities = [torch.zeros_like(made.values) for made in (ours, twin)]
    for factor in (1.0, 0.1, 0.5):
        gradient = gradient.roll(1)
        for made, velocity in zip((ours, twin), velocities, strict=True):
            made.gradient.copy_(gradient)
            options = (rate.to(made.exact), decay.to(made.exact), torch.tensor([factor]).to(rate))
            made.optimise(velocity, *options, momentum, nesterov)
    torch.testing.assert_close(ours.values.double(), twin.values, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(velocities[0].double(), velocities[1], rtol=1e-6, atol=1e-6)


@pytest.mark.slow
def test_all_kernels_compile_for_an_h100_and_spill_no_registers(tmp_path):
    environment = {key: os.environ[key] for key in os.environ if key != "TRITON_INTERPRET"}
    environment["TRITON_CACHE_DIR"] = str(tmp_path)
    script = Path(__file__).parent / "compile_for_h100.py"
    done = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    kernels = done.stdout.splitlines()
    assert {line.split(":")[0] for line in kernels} == {
        "convolve", "convolve_back", "leave", "leave_back", "classify", "settle_back", "optimise",
        "measure", "merge_moments", "normalise", "sums", "merge_sums", "input_gradient",
    }  # fmt: skip
    assert all(" 0 bytes spilled" in line for line in kernels), done.stdout


def in_bf16(count):
    """The real thing: a ResNet-14 on a GPU."""
    models = [model.to(DEVICE) for model in networks("cifar_resnet_14_16", [0])]
    half = program_of(models, TritonProgram, dtype=torch.bfloat16, head=True)
    images, labels = on_device(*batch(1, count))
    return models, half, images, labels


@pytest.mark.gpu
@pytest.mark.parametrize("count", [1, 80, 128])
def test_bf16_is_near(count):
    models, half, images, labels = in_bf16(count)
    exact = program_of(models, Program, head=True)
    loss, _ = half.step(images.bfloat16(), labels)
    expected, _ = exact.step(images, labels)
    assert loss.item() == pytest.approx(expected.item(), rel=0.02)
    if count > 1:  # statistics of 64 values in bf16 say little
        assert F.cosine_similarity(half.gradient, exact.gradient).item() > 0.97
        torch.testing.assert_close(half.running_var, exact.running_var, rtol=0.02, atol=1e-3)


@pytest.mark.gpu
def test_bf16_agrees_to_the_last_bit():
    _, half, images, labels = in_bf16(128)
    half.step(images.bfloat16(), labels)
    first = half.gradient.clone()
    for _ in range(20):
        half.step(images.bfloat16(), labels)
        assert torch.equal(half.gradient, first)


@pytest.mark.gpu
def test_a_step_in_a_graph_is_the_same_step():
    """Two steps of a graph with another learning rate each, against the same two without one."""
    velocity, rate, factor = [], [], torch.ones(1, device=DEVICE)
    programs = [in_bf16(128) for _ in range(2)]
    for _, half, _, _ in programs:
        velocity.append(torch.zeros_like(half.values))
        rate.append(torch.full_like(half.values, 0.1))

    def step(which):
        _, half, images, labels = programs[which]
        half.step(images, labels)
        half.optimise(velocity[which], rate[which], 1e-3 * rate[which], factor, 0.9, True)

    for which in range(2):
        step(which)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step(0)
    for value in (0.5, 0.1):
        factor.fill_(value)
        graph.replay()
        step(1)
        assert torch.equal(programs[0][1].values, programs[1][1].values)
        assert torch.equal(programs[0][1].running_var, programs[1][1].running_var)
