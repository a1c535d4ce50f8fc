"""The lean functions and the conversion: gradients against autograd in double precision, memory,
odd shapes, and every network of ours and look-alikes of other people's."""

import copy
import gc
import itertools
from collections import Counter

import pytest
import torch
import torch.nn.functional as F
from random_gradients import LAST, draw, gradients
from torch import nn

from gammabeta import create_model, select
from gammabeta.lean import convert, restore
from gammabeta.lean.functions import FrozenConvolution, NormAct
from gammabeta.lean.layers import LeanConv, LeanNorm
from gammabeta.statistics import set_statistics_policy

CONVOLUTIONS = [
    {"kernel_size": 3, "padding": 1},
    {"kernel_size": 3, "padding": 1, "stride": 2},
    {"kernel_size": 1, "stride": 2},
    {"kernel_size": 7, "padding": 3, "stride": 2},
    {"kernel_size": 3, "padding": 2, "dilation": 2, "groups": 2},
    {"kernel_size": (3, 1), "padding": (0, 2), "stride": (1, 3), "groups": 4},
    {"kernel_size": 2, "stride": 3},
]


@pytest.mark.parametrize("options", CONVOLUTIONS, ids=str)
@pytest.mark.parametrize("size", [(7, 7), (8, 5), (9, 12)])
def test_a_frozen_convolution_has_autograds_gradient_and_keeps_no_input(options, size):
    conv = nn.Conv2d(4, 8, **options).double()
    x = draw(3, 4, *size).requires_grad_()
    expected = gradients(conv(x), [x])[0]
    conv.requires_grad_(False)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda each: kept.append(each) or each, lambda each: each
    ):
        out = LeanConv(conv)(x)
    assert [each.data_ptr() for each in kept] == [conv.weight.data_ptr()]
    torch.testing.assert_close(gradients(out, [x])[0], expected)


def stock(z, norm, residual, relu):
    out = norm(z)
    out = out if residual is None else out + residual
    return F.relu(out) if relu else out


@pytest.mark.parametrize(("relu", "with_residual"), list(itertools.product([0, 1], repeat=2)))
@pytest.mark.parametrize("policy", ["track", "frozen", "batch"])
@pytest.mark.parametrize("shape", [(3, 5, 4, 7), (2, 1, 3, 3), (1, 16, 4, 4), (5, 16, 1, 1)])
@pytest.mark.parametrize(
    "wanted", ["gamma", "beta", "z", "gamma beta", "gamma beta z residual", "z residual"]
)
def test_norm_and_relu_have_autograds_gradients(relu, with_residual, policy, shape, wanted):
    norm = nn.BatchNorm2d(shape[1]).double()
    norm.weight.data, norm.bias.data = draw(shape[1], seed=3), draw(shape[1], seed=4)
    norm.weight.data[0] = 0
    norm.running_mean.copy_(draw(shape[1], seed=5))
    set_statistics_policy(norm, policy)
    z = (2 * draw(*shape) + 1).requires_grad_("z" in wanted.split())
    residual = draw(*shape, seed=1).requires_grad_("residual" in wanted) if with_residual else None
    norm.weight.requires_grad_("gamma" in wanted)
    norm.bias.requires_grad_("beta" in wanted)
    twin = copy.deepcopy(norm)
    inputs = [each for each in (z, residual) if each is not None and each.requires_grad]
    ours = LeanNorm(norm, bool(relu))(z, residual)
    theirs = stock(z, twin, residual, relu)
    torch.testing.assert_close(ours, theirs)
    mine = gradients(ours, inputs + [p for p in norm.parameters() if p.requires_grad])
    his = gradients(theirs, inputs + [p for p in twin.parameters() if p.requires_grad])
    for one, other in zip(mine, his, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-8)
    for name, buffer in twin.named_buffers():
        torch.testing.assert_close(norm.get_buffer(name), buffer, msg=name)
    for module in (norm, twin):
        module.eval()
    torch.testing.assert_close(
        LeanNorm(norm, bool(relu))(z, residual), stock(z, twin, residual, relu)
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layout", [LAST, torch.contiguous_format])
def test_norm_and_relu_in_the_types_that_train(dtype, layout):
    """Through the compiled passes, in both layouts, twice over the same tensor."""
    norm = nn.BatchNorm2d(16)
    norm.weight.data = draw(16, seed=3, dtype=torch.float32)
    lean, twin = LeanNorm(norm, relu=True), copy.deepcopy(norm).double()
    z = draw(4, 16, 5, 5, dtype=dtype).contiguous(memory_format=layout).requires_grad_()
    exact = z.detach().double().requires_grad_()
    ours = lean(z, z)  # double use: z is normalised and added
    theirs = F.relu(twin(exact) + exact)
    tolerance = 1e-4 if dtype == torch.float32 else 0.05
    close = {"rtol": tolerance, "atol": tolerance}
    torch.testing.assert_close(ours.double(), theirs, **close)
    for one, other in zip(
        gradients(ours, [z, norm.weight, norm.bias]),
        gradients(theirs, [exact, twin.weight, twin.bias]), strict=True,
    ):  # fmt: skip
        torch.testing.assert_close(one.double(), other, rtol=tolerance, atol=tolerance * 5)


def test_what_is_no_number_is_not_hidden():
    z = draw(2, 16, 3, 3, dtype=torch.float32)
    z[0, 3, 1, 1] = torch.nan
    assert LeanNorm(nn.BatchNorm2d(16), relu=True)(z).isnan().any()


def test_a_single_value_per_channel_is_refused_as_torch_does():
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        LeanNorm(nn.BatchNorm2d(4), relu=True)(draw(1, 4, 1, 1, dtype=torch.float32))
    with pytest.raises(ValueError, match="4D"):
        LeanNorm(nn.BatchNorm2d(4), relu=True)(torch.randn(3, 4))


def test_a_second_backward_says_it_is_not_there():
    z = draw(2, 3, 3, 3).requires_grad_()
    out, *_ = NormAct.apply(z, draw(3), draw(3), None, None, None, 1e-5, True, None)
    (first,) = torch.autograd.grad(out.sum(), z, create_graph=True)
    with pytest.raises(RuntimeError, match="does not require grad"):
        first.sum().backward()
    x = draw(2, 3, 4, 4).requires_grad_()
    out = FrozenConvolution.apply(x, draw(3, 3, 3, 3), None, (1, 1), (1, 1), (1, 1), 1)
    assert out.shape == x.shape


NETWORKS = [("cifar_resnet_8_4", 32), ("cifar_vgg_11", 32), ("imagenet_resnet_18_8", 64),
            ("imagenet_resnet_50_8", 64), ("report_resnet20", 32)]  # fmt: skip


@pytest.mark.parametrize(("name", "size"), NETWORKS)
@pytest.mark.parametrize("text", ["bn", "gamma+output", "all", "random:2+beta", "none"])
def test_a_converted_network_has_autograds_gradients(name, size, text):
    model = create_model(name, norm_init="symmetric", num_classes=7).double()
    images, labels = draw(3, 3, size, size), torch.tensor([0, 3, 6])
    found = []
    for lean in (False, True):
        one = copy.deepcopy(model)
        leaves = select(one, text).apply(one)
        if lean:
            rows = convert(one)
            assert not any("not found" in row.how or "drawn" in row.how for row in rows)
        loss = F.cross_entropy(one(images), labels)
        wanted = list(leaves.values())
        grads = torch.autograd.grad(loss, wanted) if wanted else ()
        found.append((loss, grads, dict(one.named_buffers()), one.eval()(images)))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-9)


def kept_bytes(model, images):
    """Bytes of activations that autograd keeps: storages once, parameters and the input not."""
    own = {p.untyped_storage().data_ptr() for p in [*model.parameters(), *model.buffers(), images]}
    kept = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        out = model(images)
    assert out.requires_grad
    return sum(kept.values())


def test_one_tensor_a_layer_is_kept():
    model = create_model("cifar_resnet_14").to(memory_format=LAST)
    select(model, "bn").apply(model)
    images = draw(16, 3, 32, 32, dtype=torch.float32)
    gc.collect()
    before = kept_bytes(model, images)
    convert(model)
    after = kept_bytes(model, images)
    # Five raw outputs a segment and the bits of six joins: what plan.saved_bytes counts, less the
    # stem's bits, which are not needed there.
    tensors = 5 * (16 * 1024 + 32 * 256 + 64 * 64)
    bits = 2 * (16 * 1024 + 32 * 256 + 64 * 64)
    assert after == pytest.approx(16 * (4 * tensors + bits / 8), rel=0.01)
    assert after < 0.55 * before


def test_conversion_leaves_the_network_as_it_is_and_can_be_undone():
    model = create_model("cifar_resnet_8_16")
    select(model, "bn").apply(model)
    names, types = list(model.state_dict()), [type(each) for each in model.modules()]
    before = model(draw(2, 3, 32, 32, dtype=torch.float32))
    rows = convert(model)
    assert list(model.state_dict()) == names
    assert [type(each) for each in model.modules()] == types
    assert Counter(row.how for row in rows) == {
        "frozen convolution": 9, "norm + relu": 4, "norm + add + relu": 3, "norm": 2,
    }  # fmt: skip
    twin = copy.deepcopy(model)
    twin.bn.weight.data.zero_()
    twin.bn.bias.data.zero_()
    model.eval()
    assert not torch.equal(
        twin.eval()(before[:0].new_ones(1, 3, 32, 32)), model(torch.ones(1, 3, 32, 32))
    )
    assert "forward" in model.__dict__
    restore(model)
    assert "forward" not in model.__dict__
    assert convert(model) == rows == convert(model)


def test_requires_grad_changed_after_conversion_is_still_right():
    model = create_model("cifar_resnet_8_4").double()
    select(model, "bn").apply(model)
    convert(model)
    select(model, "all").apply(model)  # too late for the conversion, but not wrong
    twin = create_model("cifar_resnet_8_4").double()
    images = draw(2, 3, 32, 32)
    model(images).square().sum().backward()
    twin(images).square().sum().backward()
    for one, other in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-7, atol=1e-9)
