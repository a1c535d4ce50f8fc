"""VGG for CIFAR with BatchNorm, as in open_lth: convolutions keep their bias, one linear layer."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Filters of each 3x3 convolution; "M" is a 2x2 max-pool.
PLANS: dict[int, tuple[int | str, ...]] = {
    11: (64, "M", 128, "M", *[256] * 2, "M", *[512] * 2, "M", *[512] * 2),
    13: (*[64] * 2, "M", *[128] * 2, "M", *[256] * 2, "M", *[512] * 2, "M", *[512] * 2),
    16: (*[64] * 2, "M", *[128] * 2, "M", *[256] * 3, "M", *[512] * 3, "M", *[512] * 3),
    19: (*[64] * 2, "M", *[128] * 2, "M", *[256] * 4, "M", *[512] * 4, "M", *[512] * 4),
}


class ConvModule(nn.Module):
    """conv3x3 with bias - BatchNorm - ReLU."""

    def __init__(self, channels_in: int, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels, 3, padding=1)
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)))


class CifarVGG(nn.Module):
    """depth: a key of PLANS."""

    def __init__(self, depth: int, num_classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels_in = 3
        for step in PLANS[depth]:
            if isinstance(step, int):
                layers.append(ConvModule(channels_in, step))
                channels_in = step
            else:
                layers.append(nn.MaxPool2d(2))
        self.layers = nn.Sequential(*layers)
        self.fc = nn.Linear(channels_in, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        out = self.layers(x)  # N 512 2 2
        out = torch.flatten(F.avg_pool2d(out, 2), 1)  # N 512
        logits: Tensor = self.fc(out)
        return logits
