"""Same tensors, another function: refused by name. Another way to train the same one: loaded."""

import functools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from test_delta import small
from torch import nn

from gammabeta import InputError, load_delta, select
from gammabeta.delta import make_delta
from gammabeta.delta_file import from_bytes, to_bytes
from gammabeta.settings import difference, layers


class Config:
    def __init__(self, **entries):
        self.entries = entries

    def to_dict(self):
        return self.entries


class Block(nn.Module):
    """With whatever attributes of its own."""

    def __init__(self, buffer=None, **attributes):
        super().__init__()
        self.norm, self.drop, self.head = nn.BatchNorm1d(3), nn.Dropout(0.1), nn.Linear(3, 2)
        self.register_buffer("own", buffer, persistent=False)
        self.__dict__.update(attributes)


def middle(layer):
    return lambda: nn.Sequential(nn.BatchNorm2d(3), layer(), nn.Flatten(), nn.Linear(3, 2))


def encoder(**options):
    return lambda: nn.Sequential(
        nn.TransformerEncoderLayer(4, 2, 8, **options), nn.Flatten(), nn.Linear(4, 2)
    )


def block(**attributes):
    return functools.partial(Block, **attributes)


def loaded(one, two, forth=lambda network: network):
    """Load a delta of one into two, through the bytes of its file."""
    torch.manual_seed(0)
    trained = one()
    subset = select(trained, "bn")
    other = forth(two())
    other.load_state_dict(trained.state_dict())
    load_delta(other, from_bytes(to_bytes(make_delta(trained, subset)), "f"))


FREQUENCIES = 10000.0 ** -(torch.arange(6) / 6)
OTHERS = [
    (middle(nn.ELU), middle(lambda: nn.ELU(3.0)), "'1' has alpha 3.0 here and 1.0 in the delta"),
    (middle(nn.Softplus), middle(lambda: nn.Softplus(5)), "'1' has beta 5 here"),
    (middle(lambda: nn.Threshold(1, 0)), middle(lambda: nn.Threshold(1, 2)), "'1' has value 2"),
    (middle(nn.Hardtanh), middle(lambda: nn.Hardtanh(-2, 1)), "'1' has min_val -2 here"),
    (middle(lambda: nn.AvgPool2d(3, 2, 1)),
     middle(lambda: nn.AvgPool2d(3, 2, 1, count_include_pad=False)), "count_include_pad false"),
    (middle(lambda: nn.Upsample(None, 2.0)), middle(lambda: nn.Upsample(None, 2.0, "bilinear")),
     r"mode \"bilinear\" here and \"nearest\""),
    (middle(lambda: nn.Softmax(1)), middle(lambda: nn.Softmax(2)), "'1' has dim 2"),
    (encoder(), encoder(norm_first=True), "'0' has norm_first true"),
    (encoder(), encoder(batch_first=True), "'0.self_attn' has batch_first true"),
    (encoder(), encoder(activation="gelu"), "'0' has activation"),
    (block(scale=1.0), block(scale=0.1), "the network has scale 0.1 here and 1.0 in the delta"),
    (block(scale=1.0), block(), "the network has scale in the delta only"),
    (block(), block(scale=1.0), "the network has scale here only"),
    (block(act=F.relu), block(act=F.silu), r"has act \"silu\" here and \"relu\""),
    (block(act=functools.partial(F.elu, alpha=1.0)), block(act=functools.partial(F.elu, alpha=2.0)),
     "has act"),
    (block(norm_layer=nn.LayerNorm), block(norm_layer=nn.RMSNorm), "has norm_layer"),
    (block(sizes=[(1, 2)]), block(sizes=[(1, 3)]), r"has sizes \[\[1, 3\]\]"),
    (block(sizes=[*range(99)]), block(sizes=[*range(98), 0]), "has sizes \"sha256"),
    (block(limit=float("inf")), block(limit=1.0), "has limit 1.0 here and \"inf\""),
    (block(scale=np.float32(1)), block(scale=np.float32(2)), "has scale 2.0 here"),
    (block(options={"a": {"b": 1}}), block(options={"a": {"b": 2}}), r"has options\[a\]\[b\] 2"),
    (block(config=Config(act="relu", rope={"theta": 1})),
     block(config=Config(act="relu", rope={"theta": 2})), r"has config.rope\[theta\] 2 here"),
    (block(buffer=FREQUENCIES), block(buffer=FREQUENCIES * 1.001), r"has buffer own \(1.001,"),
    (block(buffer=FREQUENCIES), block(buffer=FREQUENCIES[:5]), "has buffer own"),
    (block(buffer=FREQUENCIES), block(), "has buffer own in the delta only"),
    (block(buffer=torch.ones(2, 2).tril() > 0), block(buffer=torch.ones(2, 2) > 0), "buffer own"),
]  # fmt: skip


@pytest.mark.parametrize(("one", "two", "message"), OTHERS)
def test_the_same_tensors_in_another_function_are_refused_by_name(one, two, message):
    loaded(one, one)
    for first, second in ((one, two), (two, one)):
        with pytest.raises(InputError, match="another architecture: ") as raised:
            loaded(first, second)
        assert "\n" not in str(raised.value)
    with pytest.raises(InputError, match=message):
        loaded(one, two)


def older(network):
    """As if torch had kept less of its own layers in those days."""
    for layer in network.modules():
        if type(layer).__module__.startswith("torch."):
            for word in ("norm_first", "add_zero_attn", "count_include_pad", "affine"):
                layer.__dict__.pop(word, None)
    return network


def retrained(network):
    """What training leaves behind, and choices that only training knows."""
    for layer in network.train().modules():
        if isinstance(layer, nn.BatchNorm1d):
            layer.momentum, layer.track_running_stats = 0.5, False
        if isinstance(layer, nn.Dropout):
            layer.p = 0
    network.steps, network.attention_dropout, network.init_values = 7, 0.5, 1e-6
    network.gradient_checkpointing = True
    network._seen, network.cache = 3, torch.randn(2)
    network.forward = lambda x: x
    return network


def test_what_changes_no_output_is_not_compared():
    loaded(block(), block(), retrained)
    loaded(encoder(dropout=0.1), encoder(dropout=0.2))
    loaded(encoder(norm_first=True), encoder(norm_first=True), older)
    loaded(lambda: older(encoder()()), encoder())
    loaded(block(scale=1), block(scale=1.0))
    same = Config(act="relu", use_cache=True, hidden_dropout_prob=0.1, id2label={0: "a"}, old=1)
    later = Config(act="relu", use_cache=False, hidden_dropout_prob=0, transformers_version="9")
    loaded(block(config=same), block(config=later))
    loaded(middle(nn.ReLU), middle(lambda: nn.ReLU(inplace=True)))


def test_buffers_that_no_file_holds_may_differ_by_rounding():
    near = FREQUENCIES * (1 + 2e-7)
    assert not torch.equal(near, FREQUENCIES)
    loaded(block(buffer=FREQUENCIES), block(buffer=near))
    loaded(block(buffer=FREQUENCIES), block(buffer=FREQUENCIES.bfloat16()))
    with pytest.raises(InputError, match="buffer own"):
        loaded(block(buffer=FREQUENCIES), block(buffer=(FREQUENCIES * 1.05).bfloat16()))


def test_wrappers_do_not_matter_and_layers_share_their_words():
    network = small()
    about = layers(network)
    for wrap in (nn.DataParallel, functools.partial(torch.compile, backend="eager")):
        assert layers(wrap(small())) == about
        assert not difference(layers(wrap(small())), about, wrap(small()))
    synced = nn.SyncBatchNorm.convert_sync_batchnorm(small())
    assert not difference(layers(synced), about, synced)
    shared = Config(act="relu")
    both = nn.Sequential(Block(config=shared), Block(config=shared))
    assert [name for name, told in layers(both).items() if "config.act" in told] == ["0"]
