"""The residual network for CIFAR (He et al. 2015, section 4.2), as the paper uses it.

A 3x3 stem, three segments of D basic blocks with W, 2W and 4W filters, global average pooling, one
linear layer. The first block of segments 2 and 3 halves the image and has a 1x1 convolution with
BatchNorm on its shortcut (not the parameter-free shortcut of He et al.).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Block(nn.Module):
    """conv3x3 - BatchNorm - ReLU - conv3x3 - BatchNorm, plus the shortcut, then ReLU."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.shortcut = nn.Sequential()
        if stride != 1:
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels_in, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return F.relu(out + self.shortcut(x))


class CifarResNet(nn.Module):
    """blocks: D, the blocks of each segment. filters: W, the filters of the first segment."""

    def __init__(self, blocks: int, filters: int, num_classes: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, filters, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(filters)
        layers = []
        channels_in = filters
        for segment in range(3):
            channels = filters * 2**segment
            for index in range(blocks):
                stride = 2 if segment > 0 and index == 0 else 1
                layers.append(Block(channels_in, channels, stride))
                channels_in = channels
        self.blocks = nn.Sequential(*layers)
        self.fc = nn.Linear(channels_in, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn(self.conv(x)))  # N W 32 32
        out = self.blocks(out)  # N 4W 8 8
        out = torch.flatten(F.adaptive_avg_pool2d(out, 1), 1)  # N 4W
        logits: Tensor = self.fc(out)
        return logits
