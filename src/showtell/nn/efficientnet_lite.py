"""EfficientNet-Lite as a grid encoder: EfficientNet (Tan and Le 2019) without squeeze-and-excitation and with ReLU6.

Google's Lite variants (2020) leave out the layers that suffer from int8. Lite2 needs an eighth of ResNet-50's multiplications.
Its seven groups of blocks make four stages here, by the size of their outputs.
"""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from showtell.nn.encoder import StagedEncoder

# Of each group of blocks: the stage it belongs to, kernel size, stride, expansion, channels and blocks before scaling.
_GROUPS = (
    (1, 3, 1, 1, 16, 1),
    (1, 3, 2, 6, 24, 2),
    (2, 5, 2, 6, 40, 2),
    (3, 3, 2, 6, 80, 3),
    (3, 5, 1, 6, 112, 3),
    (4, 5, 2, 6, 192, 4),
    (4, 3, 1, 6, 320, 1),
)
_STEM, _HEAD = 32, 1280  # channels, which Lite does not scale


@dataclass(frozen=True, slots=True)
class EfficientNetLiteConfig:
    """Multipliers of channels and of blocks; the defaults are Lite2's. `head` is the channel count of a grid feature."""

    width: float = 1.1
    depth: float = 1.2
    head: int = _HEAD
    norm_eps: float = 1e-3
    kind: Literal["efficientnet-lite"] = "efficientnet-lite"

    @property
    def channels(self) -> int:
        """Channels of a grid feature: 1280."""
        return self.head

    def stage_channels(self, stage: int) -> int:
        """Output channels of a stage, counted from 1: 24, 48, 120, 1280 for Lite2."""
        return self.head if stage == 4 else [self.scaled(group[4]) for group in _GROUPS if group[0] == stage][-1]

    def scaled(self, channels: int) -> int:
        """The channel count times the width multiplier: the nearest multiple of 8 that is not below 90% of it."""
        wanted = channels * self.width
        near = max(8, int(wanted + 4) // 8 * 8)
        return near if near >= 0.9 * wanted else near + 8


class _Same(nn.Conv2d):
    """A convolution with TensorFlow's padding SAME: of an odd number of zeros, the extra one is at the end."""

    def __init__(self, inputs: int, outputs: int, size: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(inputs, outputs, size, stride, 0 if stride > 1 else size // 2, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.stride[0] > 1:
            total = [max(0, (-(-side // 2) - 1) * 2 + self.kernel_size[0] - side) for side in (x.shape[3], x.shape[2])]
            x = F.pad(x, [part for zeros in total for part in (zeros // 2, zeros - zeros // 2)])
        return super().forward(x)


class InvertedResidual(nn.Module):
    """A 1x1 convolution that expands, a depthwise one and a 1x1 one that contracts (Sandler et al. 2018)."""

    def __init__(self, inputs: int, outputs: int, size: int, stride: int, expansion: int, eps: float) -> None:
        super().__init__()
        width = inputs * expansion
        self.conv1: nn.Module | None = None
        self.bn1: nn.Module | None = None
        if expansion > 1:
            self.conv1, self.bn1 = _Same(inputs, width, 1), nn.BatchNorm2d(width, eps=eps)
        self.conv2, self.bn2 = _Same(width, width, size, stride, groups=width), nn.BatchNorm2d(width, eps=eps)
        self.conv3, self.bn3 = _Same(width, outputs, 1), nn.BatchNorm2d(outputs, eps=eps)
        self.shortcut = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        inner = x
        if self.conv1 is not None and self.bn1 is not None:
            inner = F.relu6(self.bn1(self.conv1(inner)))
        inner = F.relu6(self.bn2(self.conv2(inner)))
        inner = self.bn3(self.conv3(inner))
        outputs: Tensor = x + inner if self.shortcut else inner
        return outputs


class EfficientNetLite(StagedEncoder):
    """Pixels to grid features (B, G, 1280)."""

    def __init__(self, config: EfficientNetLiteConfig) -> None:
        super().__init__()
        self.config = config
        eps = config.norm_eps
        self.conv1, self.bn1 = _Same(3, _STEM, 3, 2), nn.BatchNorm2d(_STEM, eps=eps)
        stages: dict[int, list[nn.Module]] = {1: [], 2: [], 3: [], 4: []}
        channels = [_STEM, *(config.scaled(group[4]) for group in _GROUPS)]
        for number, (group, (inputs, outputs)) in enumerate(zip(_GROUPS, pairwise(channels), strict=True)):
            stage, size, stride, expansion, _, count = group
            scaled = number not in (0, len(_GROUPS) - 1)  # Lite scales neither the first group nor the last
            for block in range(math.ceil(config.depth * count) if scaled else count):
                first = block == 0
                stages[stage].append(
                    InvertedResidual(inputs if first else outputs, outputs, size, stride if first else 1, expansion, eps)
                )
        head = nn.Sequential(_Same(channels[-1], config.head, 1), nn.BatchNorm2d(config.head, eps=eps), nn.ReLU6())
        for stage, blocks in stages.items():
            self.add_module(f"layer{stage}", nn.Sequential(*blocks, *([head] if stage == 4 else [])))

    def stem(self, pixels: Tensor) -> Tensor:
        """Half the sides, 32 channels."""
        return F.relu6(self.bn1(self.conv1(pixels)))

    def convolutions(self) -> list[tuple[str, str]]:
        """Names of each convolution and of the normalisation after it, from the stem to the head."""
        found = [name for name, module in self.named_modules() if isinstance(module, nn.Conv2d)]
        return [(name, name[:-1] + "1" if name.endswith(".0") else name.replace("conv", "bn")) for name in found]
