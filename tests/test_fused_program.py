"""The fused program against autograd in double precision: every gradient, members, stability."""

import pytest
import torch
import torch.nn.functional as F
from fused_networks import batch, check_against_autograd, networks, program_of, share_the_backbone

from gammabeta import create_model, passes
from gammabeta.errors import InputError
from gammabeta.fused.direct_program import DirectProgram
from gammabeta.fused.native_program import NativeProgram
from gammabeta.fused.plan import make_plan
from gammabeta.fused.program import Program


@pytest.mark.parametrize("name", ["cifar_resnet_8_3", "cifar_resnet_14_4"])
@pytest.mark.parametrize(("head", "smoothing"), [(False, 0.0), (True, 0.1)])
def test_gradients_equal_autograd(name, head, smoothing):
    models = networks(name, [3])
    made = program_of(models, dtype=torch.float64, head=head)
    check_against_autograd(made, models, *batch(1, 5), smoothing)
    again = made.gradient.clone()
    made.step(batch(1, 5)[0], batch(1, 5)[1], smoothing)
    assert torch.equal(again, made.gradient)


def test_replicates_train_at_once_on_data_of_their_own():
    models = networks("cifar_resnet_8_3", [0, 1, 2])
    made = program_of(models, dtype=torch.float64, head=True)
    check_against_autograd(made, models, *batch(3, 4))


def test_members_share_one_backbone_and_one_batch():
    models = share_the_backbone(networks("cifar_resnet_8_3", [0, 1]))
    made = program_of(models, shared=True, dtype=torch.float64)
    images, labels = batch(1, 4)
    check_against_autograd(made, models, images, labels)
    assert made.first(images).shape[0] == 1  # the stem runs once for all members


def test_evaluation_uses_the_running_statistics():
    (model,) = networks("cifar_resnet_8_4", [0])
    made = program_of([model], dtype=torch.float64)
    images, labels = batch(1, 6)
    made.step(images, labels)
    model(images[0].permute(0, 3, 1, 2))
    expected = model.eval()(images[0].permute(0, 3, 1, 2))
    torch.testing.assert_close(made.logits(images)[0], expected)


def test_an_input_that_is_no_number_gives_a_loss_that_is_none():
    made = program_of(networks("cifar_resnet_8_3", [0]), dtype=torch.float64)
    images, labels = batch(1, 3)
    images[0, 1, 5, 5, 1] = torch.nan
    assert made.step(images, labels)[0].isnan().all()


def test_another_network_is_refused():
    with pytest.raises(InputError, match="cifar_resnet networks only"):
        make_plan(create_model("cifar_vgg_11"))


def test_the_plan_counts_operations_and_bytes():
    plan = make_plan(create_model("cifar_resnet_14"))
    assert plan.channels == 560
    # Two 3x3 convolutions of 16 channels on 32 x 32 positions: 2 * 9 * 16 * 16 * 1024 each.
    assert plan.blocks[0].first.operations == 2 * 9 * 16 * 16 * 1024
    assert plan.operations(128) == pytest.approx(13.5e9, rel=0.01)
    # Five tensors a segment (the stem or a shortcut is the fifth), and the bits of seven joins.
    tensors = 5 * (16 * 1024 + 32 * 256 + 64 * 64)
    bits = 3 * 16 * 1024 + 2 * 32 * 256 + 2 * 64 * 64
    assert plan.saved_bytes(128, 2) == 128 * (2 * tensors + bits // 8)


@pytest.mark.parametrize(
    ("name", "program"),
    [
        ("cifar_resnet_8_16", NativeProgram),
        ("cifar_resnet_14_3", NativeProgram),
        ("cifar_resnet_8_16", DirectProgram),
        ("cifar_resnet_14_48", DirectProgram),
    ],
)
@pytest.mark.parametrize("head", [False, True])
@pytest.mark.parametrize("count", [1, 5])
def test_the_cpu_program_equals_autograd(name, program, head, count):
    models = networks(name, [3])
    made = program_of(models, program, head=head)
    # With batches of one the last layers normalise 64 values: rounding weighs more there.
    check_against_autograd(made, models, *batch(1, count), 0.1, tolerance=2e-3)


@pytest.mark.parametrize("program", [NativeProgram, DirectProgram])
def test_the_cpu_program_trains_replicates_and_members(program):
    models = networks("cifar_resnet_8_16", [0, 1])
    made = program_of(models, program, head=True)
    check_against_autograd(made, models, *batch(2, 4), tolerance=1e-3)
    models = share_the_backbone(networks("cifar_resnet_8_16", [0, 1]))
    made = program_of(models, program, shared=True)
    images, labels = batch(1, 4)
    check_against_autograd(made, models, images, labels, tolerance=1e-3)
    ours = made.logits(images.float())[1].double()
    theirs = models[1].eval()(images[0].permute(0, 3, 1, 2))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("program", [NativeProgram, DirectProgram])
def test_the_cpu_program_in_bf16_is_near(program):
    (model,) = networks("cifar_resnet_14_16", [0])
    half = program_of([model], program, dtype=torch.bfloat16)
    exact = program_of([model], dtype=torch.float64)
    images, labels = batch(1, 16)
    loss, _ = half.step(images.bfloat16(), labels)
    expected, _ = exact.step(images, labels)
    assert loss.item() == pytest.approx(expected.item(), rel=0.02)
    ours, theirs = half.gradient.double(), exact.gradient
    assert F.cosine_similarity(ours, theirs).item() > 0.97


@pytest.mark.parametrize("program", [NativeProgram, DirectProgram])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_input_that_is_no_number_shows_on_a_cpu_too(program, dtype):
    made = program_of(networks("cifar_resnet_8_16", [0]), program, dtype=dtype)
    images, labels = batch(1, 3)
    images[0, 1, 5, 5, 1] = torch.nan
    assert made.step(images.to(dtype), labels)[0].isnan().all()


@pytest.mark.parametrize("beta", [-0.1, 0.0])
def test_a_dead_channel_gets_no_gradient(beta):
    """gamma = 0 and beta <= 0 before a ReLU: its mask is empty (an identity for any data)."""
    for program in (Program, NativeProgram, DirectProgram):
        (model,) = networks("cifar_resnet_8_16", [0])
        model.blocks[0].bn1.weight.data[3], model.blocks[0].bn1.bias.data[3] = 0, beta
        made = program_of([model], program)
        images, labels = batch(1, 4)
        made.step(images.float(), labels)
        at = made.plan.blocks[0].first.offset + 3
        assert made.dgamma[0, at] == 0
        assert made.dbeta[0, at] == 0
        assert (made.dgamma[0, at + 1 : at + 5] != 0).all()


def test_members_measure_a_shared_stem_once_and_only_in_training(monkeypatch):
    measured = []
    real = passes.measure
    monkeypatch.setattr(passes, "measure", lambda z: measured.append(z.shape) or real(z))
    models = share_the_backbone(networks("cifar_resnet_8_16", [0, 1]))
    made = program_of(models, shared=True, program=NativeProgram)
    images, labels = batch(1, 4)
    images = images.float()
    made.logits(images)
    assert measured == []
    made.step(images, labels)
    assert len(measured) == 1 + 2 * (len(made.plan.layers) - 1)
