"""ResNet-50 as a grid encoder (He et al. 2015, "Deep Residual Learning for Image Recognition").

Two variants share every weight name and shape and differ in where a stage's first block takes its stride of 2: on its first
1x1 convolution ("v1": the paper, Keras) or on its 3x3 one ("v1.5": torchvision). Weights of one run through the other give
plausible nonsense, so the variant is part of the config that travels with them.

Parameter names are torchvision's. Convolutions have no biases: where a source has them, the importer folds them into the
batch normalisation that follows.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from showtell.nn.encoder import StagedEncoder


@dataclass(frozen=True, slots=True)
class ResNetConfig:
    """Shape of a bottleneck ResNet; the defaults are ResNet-50. `width` is the channel count of the stem."""

    variant: Literal["v1", "v1.5"]
    blocks: tuple[int, int, int, int] = (3, 4, 6, 3)
    width: int = 64
    norm_eps: float = 1e-5

    @property
    def channels(self) -> int:
        """Channels of a grid feature: 2048 for ResNet-50."""
        return self.width * 32

    def stage_channels(self, stage: int) -> int:
        """Output channels of a stage, counted from 1: 256, 512, 1024, 2048."""
        return self.width << (stage + 1)


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions around a shortcut."""

    def __init__(self, inputs: int, width: int, stride: int, config: ResNetConfig) -> None:
        super().__init__()
        first, second = (stride, 1) if config.variant == "v1" else (1, stride)
        outputs = 4 * width
        self.conv1 = nn.Conv2d(inputs, width, 1, stride=first, bias=False)
        self.bn1 = nn.BatchNorm2d(width, eps=config.norm_eps)
        self.conv2 = nn.Conv2d(width, width, 3, stride=second, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width, eps=config.norm_eps)
        self.conv3 = nn.Conv2d(width, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs, eps=config.norm_eps)
        self.downsample: nn.Module | None = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm2d(outputs, eps=config.norm_eps)
            )

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = torch.relu(self.bn1(self.conv1(x)))
        x = torch.relu(self.bn2(self.conv2(x)))
        return torch.relu(self.bn3(self.conv3(x)) + shortcut)


class ResNet(StagedEncoder):
    """Pixels to grid features (B, 49, 2048)."""

    def __init__(self, config: ResNetConfig) -> None:
        super().__init__()
        self.config = config
        self.conv1 = nn.Conv2d(3, config.width, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(config.width, eps=config.norm_eps)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        inputs = config.width
        for stage, count in enumerate(config.blocks):
            width = config.width * 2**stage
            blocks = []
            for block in range(count):
                blocks.append(Bottleneck(inputs, width, 2 if stage > 0 and block == 0 else 1, config))
                inputs = 4 * width
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))

    def stem(self, pixels: Tensor) -> Tensor:
        """A quarter of the sides, `width` channels."""
        x: Tensor = self.maxpool(torch.relu(self.bn1(self.conv1(pixels))))
        return x
