"""A CIFAR ResNet laid out for the fused program: its convolutions in order, each with the
BatchNorm behind it and that BatchNorm's place in flat buffers over all channels."""

from dataclasses import dataclass

from torch import nn

from gammabeta.errors import InputError
from gammabeta.models.cifar_resnet import Block as ResidualBlock
from gammabeta.models.cifar_resnet import CifarResNet
from gammabeta.passes.edges import output_padding

IMAGE = 32  # height and width of CIFAR's images


@dataclass(frozen=True)
class Layer:
    """A convolution (k x k, padding k // 2, no bias) and the BatchNorm behind it.

    size: height and width of its output; its input is `size * stride`. offset: where its channels
    begin in a flat buffer over the channels of all layers.
    """

    conv: str
    norm: str
    channels_in: int
    channels: int
    kernel: int
    stride: int
    size: int
    offset: int
    eps: float
    momentum: float

    @property
    def place(self) -> slice:
        """Its channels in a flat buffer."""
        return slice(self.offset, self.offset + self.channels)

    @property
    def padding(self) -> int:
        return self.kernel // 2

    @property
    def output_padding(self) -> int:
        """Of the transposed convolution that leads back to its input."""
        size, out = self.size * self.stride, self.size
        return output_padding(size, out, self.kernel, self.stride, self.padding)

    @property
    def operations(self) -> int:
        """Multiplications and additions of its forward pass, per image."""
        return 2 * self.kernel**2 * self.channels_in * self.channels * self.size**2

    @property
    def values(self) -> int:
        """Numbers in its output, per image."""
        return self.channels * self.size**2


@dataclass(frozen=True)
class Block:
    """first - second, plus the shortcut (None: the identity)."""

    first: Layer
    second: Layer
    shortcut: Layer | None

    @property
    def layers(self) -> tuple[Layer, ...]:
        last = () if self.shortcut is None else (self.shortcut,)
        return (self.first, self.second, *last)


@dataclass(frozen=True)
class Plan:
    """The whole network: stem, blocks, global average pooling, one linear layer (`head`)."""

    stem: Layer
    blocks: tuple[Block, ...]
    head: str
    features: int
    classes: int

    @property
    def layers(self) -> tuple[Layer, ...]:
        """All convolutions, in the order of a forward pass."""
        return (self.stem, *(layer for block in self.blocks for layer in block.layers))

    @property
    def channels(self) -> int:
        """Channels of all BatchNorms: the number of gammas."""
        return sum(layer.channels for layer in self.layers)

    def operations(self, batch: int) -> int:
        """Multiplications and additions of one training step: every convolution forward, and the
        input gradient of all but the stem. There is no weight gradient."""
        forward = sum(layer.operations for layer in self.layers)
        return batch * (2 * forward - self.stem.operations)

    def saved_bytes(self, batch: int, value_bytes: int) -> int:
        """Bytes kept between forward and backward: each raw convolution output once, and one bit
        for each value after a residual join."""
        raw = sum(layer.values for layer in self.layers) * value_bytes
        joins = self.stem.values + sum(block.second.values for block in self.blocks)
        return batch * (raw + -(-joins // 8))

    def moved_bytes(self, batch: int, value_bytes: int) -> int:
        """Bytes a step moves when every pass of the program reads and writes memory once and no
        cache helps (../docs/performance.md counts them): forward 6 and backward 9 tensors a block,
        6 more where a shortcut has a convolution, whose block reads a larger input. At the ends:
        the images, and four times the last output. Bits are left out."""
        blocks = sum((21 if block.shortcut else 15) * block.second.values for block in self.blocks)
        images = self.stem.channels_in * IMAGE**2
        return batch * value_bytes * (images + blocks + 4 * self.blocks[-1].second.values)


def make_plan(model: nn.Module) -> Plan:
    """The plan of a CIFAR ResNet. Raises InputError for any other network."""
    if not isinstance(model, CifarResNet):
        raise InputError("the fused program is made for cifar_resnet networks only")
    offset = 0

    def layer(conv_name: str, norm_name: str, size: int) -> Layer:
        nonlocal offset
        conv, norm = model.get_submodule(conv_name), model.get_submodule(norm_name)
        assert isinstance(conv, nn.Conv2d)
        assert isinstance(norm, nn.BatchNorm2d)
        assert norm.momentum is not None
        made = Layer(
            conv=conv_name,
            norm=norm_name,
            channels_in=conv.in_channels,
            channels=conv.out_channels,
            kernel=conv.kernel_size[0],
            stride=conv.stride[0],
            size=size // conv.stride[0],
            offset=offset,
            eps=norm.eps,
            momentum=norm.momentum,
        )
        offset += made.channels
        return made

    stem = layer("conv", "bn", IMAGE)
    blocks = []
    size = stem.size
    for index, module in enumerate(model.blocks):
        assert isinstance(module, ResidualBlock)
        name = f"blocks.{index}"
        first = layer(f"{name}.conv1", f"{name}.bn1", size)
        second = layer(f"{name}.conv2", f"{name}.bn2", first.size)
        shortcut = None
        if len(module.shortcut):
            shortcut = layer(f"{name}.shortcut.0", f"{name}.shortcut.1", size)
        blocks.append(Block(first, second, shortcut))
        size = first.size
    return Plan(stem, tuple(blocks), "fc", model.fc.in_features, model.fc.out_features)
