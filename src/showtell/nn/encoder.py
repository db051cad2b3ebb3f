"""The interface of encoders: pixels to grid features, with parameters in four stages, of which training may freeze the first.

Shapes: B photos, pixels normalised (B, 3, size, size), grid features (B, G, channels) with G cells, rows one after another.
Of staged encoders G = (size / 32) ** 2, 49 of 224 pixels.
"""

import hashlib
import json
from dataclasses import asdict
from typing import Any, Protocol

from torch import Tensor, nn

STAGES = 4


class EncoderConfig(Protocol):
    """The shape of an encoder: a frozen dataclass."""

    @property
    def channels(self) -> int:
        """Channels of a grid feature."""
        ...


class Encoder(nn.Module):
    """Pixels to grid features: no pooling, no classifier."""

    config: Any  # an EncoderConfig, and a dataclass

    def cells(self, size: int) -> int:
        """Cells of the grid of photos of `size` pixels a side."""
        raise NotImplementedError

    def stage_parameters(self, number: int) -> list[nn.Parameter]:
        """The parameters of a stage, counted from 1 to STAGES."""
        raise NotImplementedError

    def fingerprint(self) -> str:
        """SHA-256 over config, parameter names and values: two encoders share it only if they give the same features."""
        digest = hashlib.sha256(json.dumps(asdict(self.config), sort_keys=True).encode())
        for name, value in sorted(self.state_dict().items()):
            if not name.endswith("num_batches_tracked"):
                digest.update(name.encode())
                digest.update(value.detach().cpu().numpy().tobytes())
        return digest.hexdigest()


class StagedEncoder(Encoder):
    """An encoder that can be stopped after a stage, so that the outputs of frozen stages are computed once.

    Subclasses have `stem` and the modules layer1 to layer4; their configs have `stage_channels(stage)`.
    """

    def stem(self, pixels: Tensor) -> Tensor:
        """The layers before the first stage."""
        raise NotImplementedError

    def stage(self, number: int) -> nn.Module:
        """A stage, counted from 1; each but the first halves the sides of its input."""
        return self.get_submodule(f"layer{number}")

    def cells(self, size: int) -> int:
        """See Encoder: a cell is 32 pixels a side."""
        return (size // 32) ** 2

    def stage_parameters(self, number: int) -> list[nn.Parameter]:
        """See Encoder."""
        return list(self.stage(number).parameters())

    def forward(self, pixels: Tensor) -> Tensor:
        """Normalised pixels (B, 3, size, size) to grid features (B, G, channels)."""
        return self.last_stages(self.first_stages(pixels, 0), 1)

    def first_stages(self, pixels: Tensor, last: int) -> Tensor:
        """Normalised pixels to the outputs of stage `last` (B, channels, sides, sides), or of the stem for 0.

        Of 224 pixels the sides are 56, 28 and 14 after the stages 1, 2 and 3.
        """
        x = self.stem(pixels)
        for number in range(1, last + 1):
            x = self.stage(number)(x)
        return x

    def last_stages(self, x: Tensor, first: int) -> Tensor:
        """The input of stage `first`, which is the output of the stage before it, to grid features (B, G, channels)."""
        for number in range(first, STAGES + 1):
            x = self.stage(number)(x)
        return x.flatten(2).transpose(1, 2)
