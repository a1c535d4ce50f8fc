"""`report_resnet20`: the network of the non-author report, which calls it ResNet20.

It is not the ResNet-20 of He et al. (272,474 parameters): it is a bottleneck network of depth
9n+2. Keras counts 575,114 values in it: 571,114 parameters, 4,000 of them gamma and beta, and
4,000 running statistics. Every convolution has a bias, the convolutions on shortcuts have no
BatchNorm, and one more BatchNorm and ReLU stand before the pooling. Keras' BatchNorm has epsilon
1e-3 and a running average with momentum 0.99 (0.01 in torch's terms). Keras pads a strided 3x3
convolution at the far edge only, torch at both: the same network on images shifted by a pixel.
The report starts gamma at 1 and every bias at 0: `norm_init="ones"`, `bias_init="zeros"`.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)


class Block(nn.Module):
    """1x1, 3x3 (with the stride), 1x1, each with BatchNorm; the first of a group projects."""

    def __init__(self, channels_in: int, inner: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, inner, 1)
        self.bn1 = _norm(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride, padding=1)
        self.bn2 = _norm(inner)
        self.conv3 = nn.Conv2d(inner, channels, 1)
        self.bn3 = _norm(channels)
        self.shortcut = nn.Sequential()
        if channels_in != channels:
            self.shortcut = nn.Sequential(nn.Conv2d(channels_in, channels, 1, stride))

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = F.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        return F.relu(out + self.shortcut(x))


class ReportResNet20(nn.Module):
    """Three groups of two blocks: 16 -> 64, 64 -> 128, 128 -> 256 channels."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 3, padding=1)
        self.bn = _norm(16)
        blocks: list[nn.Module] = []
        for inner, channels, stride in ((16, 64, 1), (64, 128, 2), (128, 256, 2)):
            blocks += [Block(inner, inner, channels, stride), Block(channels, inner, channels, 1)]
        self.blocks = nn.Sequential(*blocks)
        self.bn_final = _norm(256)
        self.fc = nn.Linear(256, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn(self.conv(x)))  # N 16 32 32
        out = F.relu(self.bn_final(self.blocks(out)))  # N 256 8 8
        out = torch.flatten(F.adaptive_avg_pool2d(out, 1), 1)
        logits: Tensor = self.fc(out)
        return logits
