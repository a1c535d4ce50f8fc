"""The networks: exact parameter counts of the paper, keys of other people's state_dicts, starts."""

import hashlib

import numpy as np
import pytest
import torch

from gammabeta import InputError, RunSpec, create_model, select
from gammabeta.fingerprint import fingerprint
from gammabeta.models import architecture
from gammabeta.models.cifar_vgg import PLANS
from gammabeta.models.imagenet_resnet import STAGES
from gammabeta.models.initialise import NORM_INITS, WEIGHT_INITS
from gammabeta.names import IMAGENET_DEPTHS, PAPER_NETWORKS, VGG_DEPTHS, parse_name
from gammabeta.roles import is_norm, roles

# name: total, BatchNorm, of it on shortcuts, output, shortcut convolutions
COUNTS = {
    "cifar_resnet_14": (175_258, 1_120, 192, 650, 2_560),
    "cifar_resnet_20": (272_474, 1_568, 192, 650, 2_560),
    "cifar_resnet_32": (466_906, 2_464, 192, 650, 2_560),
    "cifar_resnet_56": (855_770, 4_256, 192, 650, 2_560),
    "cifar_resnet_110": (1_730_714, 8_288, 192, 650, 2_560),
    "cifar_resnet_218": (3_480_602, 16_352, 192, 650, 2_560),
    "cifar_resnet_434": (6_980_378, 32_480, 192, 650, 2_560),
    "cifar_resnet_866": (13_979_930, 64_736, 192, 650, 2_560),
    "cifar_resnet_14_32": (696_618, 2_240, 384, 1_290, 10_240),
    "cifar_resnet_14_64": (2_777_674, 4_480, 768, 2_570, 40_960),
    "cifar_resnet_14_128": (11_093_130, 8_960, 1_536, 5_130, 163_840),
    "cifar_resnet_14_256": (44_337_418, 17_920, 3_072, 10_250, 655_360),
    "cifar_resnet_14_512": (177_279_498, 35_840, 6_144, 20_490, 2_621_440),
    "cifar_vgg_11": (9_231_114, 5_504, 0, 5_130, 0),
    "cifar_vgg_13": (9_416_010, 5_888, 0, 5_130, 0),
    "cifar_vgg_16": (14_728_266, 8_448, 0, 5_130, 0),
    "cifar_vgg_19": (20_040_522, 11_008, 0, 5_130, 0),
    "imagenet_resnet_18": (11_689_512, 9_600, 1_792, 513_000, 172_032),
    "imagenet_resnet_34": (21_797_672, 17_024, 1_792, 513_000, 172_032),
    "imagenet_resnet_50": (25_557_032, 53_120, 7_680, 2_049_000, 2_768_896),
    "imagenet_resnet_101": (44_549_160, 105_344, 7_680, 2_049_000, 2_768_896),
    "imagenet_resnet_152": (60_192_808, 151_424, 7_680, 2_049_000, 2_768_896),
    "imagenet_resnet_200": (64_673_832, 176_000, 7_680, 2_049_000, 2_768_896),
    "report_resnet20": (571_114, 4_000, 0, 2_570, 41_984),
}


def _sum(network, wanted, shortcut_only=False):
    return sum(
        role.size
        for role in roles(network)
        if role.role in wanted and (role.on_shortcut or not shortcut_only)
    )


@pytest.mark.parametrize(("name", "counts"), COUNTS.items())
def test_parameter_counts(name, counts):
    network = architecture(name)
    norm = ("gamma", "beta")
    assert (
        sum(parameter.numel() for parameter in network.parameters()),
        _sum(network, norm),
        _sum(network, norm, shortcut_only=True),
        _sum(network, ("output",)),
        _sum(network, ("shortcut",)),
    ) == counts


@pytest.mark.parametrize(
    ("name", "canonical"),
    [
        ("cifar_resnet_14", "cifar_resnet_14"),
        ("cifar_resnet_14_16", "cifar_resnet_14"),
        ("cifar_resnet_014", "cifar_resnet_14"),
        ("cifar_resnet_14_032", "cifar_resnet_14_32"),
        ("imagenet_resnet_50_64", "imagenet_resnet_50"),
        ("imagenet_resnet_50_128", "imagenet_resnet_50_128"),
        ("cifar_vgg_11", "cifar_vgg_11"),
        ("report_resnet20", "report_resnet20"),
    ],
)
def test_a_network_has_one_canonical_name(name, canonical):
    assert str(parse_name(name)) == canonical
    assert RunSpec(model=name).id == RunSpec(model=canonical).id


def test_every_depth_that_has_a_name_can_be_built():
    assert tuple(PLANS) == VGG_DEPTHS
    assert tuple(STAGES) == IMAGENET_DEPTHS


def test_every_network_of_the_paper_is_counted():
    assert set(PAPER_NETWORKS) <= COUNTS.keys()


@pytest.mark.parametrize("name", [n for n in PAPER_NETWORKS if n != "report_resnet20"])
def test_two_random_weights_a_channel_are_as_many_as_gamma_and_beta(name):
    network = architecture(name)
    assert select(network, "random:2").count == select(network, "bn").count


def test_the_reports_network_counts_as_keras_counts_it():
    network = architecture("report_resnet20")
    values = sum(parameter.numel() for parameter in network.parameters())
    statistics = sum(b.numel() for n, b in network.named_buffers() if "running" in n)
    assert (values + statistics, statistics, values) == (575_114, 4_000, 571_114)


@pytest.mark.parametrize(("depth", "biases"), [(11, 2_752), (13, 2_944), (16, 4_224), (19, 5_504)])
def test_vgg_convolutions_keep_their_bias(depth, biases):
    network = architecture(f"cifar_vgg_{depth}")
    assert select(network, "bias").count == biases + 10


def test_keys_are_those_of_open_lth_and_torchvision():
    keys = architecture("cifar_resnet_20").state_dict().keys()
    for key in (
        "conv.weight", "bn.weight", "bn.running_var", "blocks.0.conv1.weight",
        "blocks.2.bn2.bias", "blocks.3.shortcut.0.weight", "blocks.3.shortcut.1.running_mean",
        "blocks.8.conv2.weight", "fc.weight", "fc.bias",
    ):  # fmt: skip
        assert key in keys
    assert "blocks.9.conv1.weight" not in keys
    assert "blocks.1.shortcut.0.weight" not in keys
    keys = architecture("cifar_vgg_16").state_dict().keys()
    assert {"layers.0.conv.bias", "layers.3.bn.weight", "layers.16.conv.weight"} <= keys
    assert "layers.2.conv.weight" not in keys  # a max-pool
    keys = architecture("imagenet_resnet_50").state_dict().keys()
    for key in (
        "conv1.weight", "bn1.bias", "layer1.0.downsample.0.weight", "layer1.0.downsample.1.bias",
        "layer3.5.conv3.weight", "layer4.2.bn3.num_batches_tracked", "fc.weight",
    ):  # fmt: skip
        assert key in keys


@pytest.mark.parametrize(
    ("name", "size", "classes"),
    [
        ("cifar_resnet_8_5", 32, 7),
        ("cifar_resnet_14", 32, None),
        ("cifar_vgg_11", 32, 3),
        ("imagenet_resnet_18_4", 64, None),
        ("imagenet_resnet_50_4", 64, 11),
        ("report_resnet20", 32, None),
    ],
)
def test_logits_have_a_column_for_each_class(name, size, classes):
    network = create_model(name, num_classes=classes)
    default = 1000 if name.startswith("imagenet") else 10
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    assert network(images).shape == (2, classes or default)


def test_strides_are_where_they_belong():
    resnet = architecture("cifar_resnet_14")
    strides = [block.conv1.stride[0] for block in resnet.blocks]
    assert strides == [1, 1, 2, 1, 2, 1]  # the first segment keeps 32 x 32
    bottleneck = architecture("imagenet_resnet_50").layer2[0]
    assert (bottleneck.conv1.stride[0], bottleneck.conv2.stride[0]) == (1, 2)
    report = architecture("report_resnet20")
    assert [block.conv2.stride[0] for block in report.blocks] == [1, 1, 2, 1, 2, 1]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cifar_resnet_15", "cifar_resnet_14 or cifar_resnet_20"),
        ("cifar_resnet_1", "cifar_resnet_8 or cifar_resnet_14"),
        ("cifar_resnet_14_0", "between 1 and 4096 filters"),
        ("cifar_resnet_14_16_3", "did you mean cifar_resnet_14"),
        ("cifar_resnet_x", "did you mean cifar_resnet"),
        ("cifar_vgg_12", "cifar_vgg_11 or cifar_vgg_13"),
        ("imagenet_resnet_51", "imagenet_resnet_34 or imagenet_resnet_50"),
        ("resnet_110", "did you mean"),
        ("report_resnet", "did you mean report_resnet20"),
        ("cifar_resnet_" + "9" * 5000, "unknown network"),
        ("cifar_vgg_11_64", "or cifar_vgg_11"),
        ("", "known"),
    ],
)
def test_a_wrong_name_gets_the_nearest_right_ones(name, message):
    with pytest.raises(InputError) as caught:
        create_model(name)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("norm_init", NORM_INITS)
@pytest.mark.parametrize("name", ["cifar_resnet_14", "report_resnet20"])
def test_norm_initialisers(name, norm_init):
    network = create_model(name, norm_init=norm_init)
    norms = [module for module in network.modules() if is_norm(module)]
    gamma = torch.cat([norm.weight.detach() for norm in norms])
    beta = torch.cat([norm.bias.detach() for norm in norms])
    low, high, mean, shift = {
        "uniform": (0, 1, 0.5, 0),
        "ones": (1, 1, 1, 0),
        "ones_ones": (1, 1, 1, 1),
        "symmetric": (-1, 1, 0, 0),
    }[norm_init]
    assert low <= gamma.min() <= gamma.max() <= high
    assert (high - low) * 0.9 <= gamma.max() - gamma.min()
    assert abs(gamma.mean() - mean) < 0.06
    assert (beta == shift).all()
    assert all((norm.running_mean == 0).all() and (norm.running_var == 1).all() for norm in norms)


@pytest.mark.parametrize("weight_init", WEIGHT_INITS)
def test_weight_initialisers(weight_init):
    network = create_model("cifar_resnet_14", weight_init=weight_init, seed=3)
    weight = network.blocks[3].conv2.weight.detach()  # 32 x 32 x 3 x 3
    fan_in = weight[0].numel()
    flat = weight.flatten(1)
    if weight_init == "orthogonal":
        assert torch.allclose(flat @ flat.T, torch.eye(32), atol=1e-5)
        return
    assert abs(weight.std() / (2 / fan_in) ** 0.5 - 1) < 0.03
    assert abs(weight.mean()) < 0.003
    if weight_init == "binary":
        assert len(weight.unique()) == 2
        assert weight.unique().sum() == 0
    elif weight_init == "kaiming_uniform":
        assert weight.abs().max() <= (6 / fan_in) ** 0.5
        assert weight.abs().max() > 0.99 * (6 / fan_in) ** 0.5
    else:
        fourth = ((weight / weight.std()) ** 4).mean()  # 3 for a normal distribution
        assert abs(fourth - 3) < 0.15


def test_biases_are_torchs_default_uniform():
    bias = create_model("cifar_vgg_11").layers[8].conv.bias.detach()
    bound = (512 * 9) ** -0.5
    assert 0.9 * bound < bias.abs().max() <= bound
    assert bias.min() < 0 < bias.max()


def test_the_same_seed_gives_the_same_network_and_another_another():
    one, same, other = (create_model("cifar_resnet_14", seed=seed) for seed in (5, 5, 6))
    assert fingerprint(one) == fingerprint(same)
    differing = {k for k, v in fingerprint(other).items() if v != fingerprint(one)[k]}
    assert all(name in differing for name, p in one.named_parameters() if p.std() > 0)


def test_a_draw_does_not_depend_on_depth_or_torchs_generator():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    shallow, deep = create_model("cifar_resnet_8", seed=2), create_model("cifar_resnet_14", seed=2)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(shallow.blocks[0].conv1.weight, deep.blocks[0].conv1.weight)
    assert torch.equal(shallow.bn.weight, deep.bn.weight)


def test_the_weights_of_a_seed_are_fixed_for_ever():
    weights = create_model("cifar_resnet_14", seed=0).state_dict()
    raw = b"".join(np.ascontiguousarray(v.numpy()).tobytes() for v in weights.values())
    assert hashlib.sha256(raw).hexdigest()[:16] == "6493e43fd92a586c"


def test_wrong_initialisers_are_refused():
    with pytest.raises(InputError, match="did you mean kaiming_normal"):
        create_model("cifar_resnet_14", weight_init="kaiming_norm")
    with pytest.raises(InputError, match="did you mean ones"):
        create_model("cifar_resnet_14", norm_init="one")
    with pytest.raises(InputError, match="write 1 or more"):
        create_model("cifar_resnet_14", num_classes=0)


def test_a_network_is_on_the_cpu_whatever_the_default_device():
    with torch.device("meta"):
        model = create_model("cifar_resnet_8_4")
    assert {value.device.type for value in model.state_dict().values()} == {"cpu"}
    assert all(leaf.requires_grad for leaf in model.parameters())
