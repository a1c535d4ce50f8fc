"""Hand-written modules for tests: other people's networks, as small as they can be."""

import torch
import torch.nn.functional as F
from torch import nn


class Mixed(nn.Module):
    """Every normalisation layer of torch that takes a batch of vectors or images."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.batch = nn.BatchNorm2d(8)
        self.sync = nn.SyncBatchNorm(8)
        self.group = nn.GroupNorm(2, 8)
        self.instance = nn.InstanceNorm2d(8, affine=True, track_running_stats=True)
        self.conv3 = nn.Conv3d(8, 4, 1)
        self.batch3 = nn.BatchNorm3d(4)
        self.batch1 = nn.BatchNorm1d(4)
        self.layer = nn.LayerNorm(4)
        self.rms = nn.RMSNorm(4)
        self.head = nn.Linear(4, 5)

    def forward(self, x):
        x = self.conv(x)
        for norm in (self.batch, self.group, self.instance):
            x = F.relu(norm(x))
        x = self.batch3(self.conv3(x[:, :, None]))[:, :, 0]
        x = self.batch1(x.mean((2, 3)))
        return self.head(self.rms(self.layer(x)))


class Odd(nn.Module):
    """BatchNorms with something missing: no affine, no statistics, no bias, nothing at all."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, groups=3)
        self.no_affine = nn.BatchNorm2d(6, affine=False)
        self.no_statistics = nn.BatchNorm2d(6, track_running_stats=False)
        self.no_bias = nn.BatchNorm2d(6)
        self.no_bias.register_parameter("bias", None)
        self.bare = nn.BatchNorm2d(6, affine=False, track_running_stats=False)
        self.up = nn.ConvTranspose2d(6, 4, 2, stride=2, groups=2)
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        x = self.no_statistics(self.no_affine(self.conv(x)))
        x = self.bare(self.no_bias(x))
        return self.head(self.up(x).mean((2, 3)))


class BatchNormAct(nn.BatchNorm2d):
    """As timm writes it: a BatchNorm with its activation inside."""

    def __init__(self, channels):
        super().__init__(channels)
        self.drop = nn.Identity()
        self.act = nn.ReLU()

    def forward(self, x):
        return self.act(self.drop(super().forward(x)))


class ForeignBatchNorm(nn.Module):
    """A BatchNorm that is no subclass of torch's: weight, bias, running statistics."""

    def __init__(self, channels):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x):
        return F.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, self.training
        )


class ForeignRMSNorm(nn.Module):
    """As transformers writes it."""

    def __init__(self, channels):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.variance_epsilon = 1e-6

    def forward(self, x):
        return self.weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)


class ScaleShift(nn.Module):
    """Not a normalisation layer: weight and bias of one dimension, but it normalises nothing."""

    def __init__(self, channels):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x):
        return x * self.weight + self.bias


class Foreign(nn.Module):
    """Look-alikes, a shortcut under torchvision's name, and names that lie about their types."""

    def __init__(self):
        super().__init__()
        self.bn_conv = nn.Conv2d(3, 8, 1, bias=False)
        self.one = BatchNormAct(8)
        self.downsample = nn.Sequential(nn.Conv2d(8, 8, 1, bias=False), ForeignBatchNorm(8))
        self.not_a_norm = ScaleShift(8)
        self.fc_norm = ForeignRMSNorm(8)
        self.classifier_dropout = nn.Dropout(0.0)
        self.last = nn.Linear(8, 3)

    def forward(self, x):
        x = self.one(self.bn_conv(x))
        x = (x + self.downsample(x)).mean((2, 3))
        return self.last(self.fc_norm(self.not_a_norm(x)))


class FrozenBatchNorm(nn.Module):
    """As torchvision and DETR write it: all four tensors are buffers."""

    def __init__(self, channels):
        super().__init__()
        self.eps = 1e-5
        for name, value in (("weight", 1.0), ("bias", 0.0), ("mean", 0.0), ("var", 1.0)):
            name = f"running_{name}" if name in ("mean", "var") else name
            self.register_buffer(name, torch.full((channels,), value))

    def forward(self, x):
        scale = (self.weight * (self.running_var + self.eps).rsqrt())[:, None, None]
        return x * scale + self.bias[:, None, None] - self.running_mean[:, None, None] * scale
