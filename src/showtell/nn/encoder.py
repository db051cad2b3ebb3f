"""The interface of encoders: a stem and four stages, of which training may freeze the first ones and train the others.

Shapes: B photos, pixels normalised (B, 3, size, size), grid features (B, G, channels) with G = (size / 32) ** 2 cells, 49 of
224 pixels, rows one after another.
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

    def stage_channels(self, stage: int) -> int:
        """Output channels of a stage, counted from 1."""
        ...


class Encoder(nn.Module):
    """Pixels to grid features: no pooling, no classifier. Subclasses have `stem` and the modules layer1 to layer4."""

    config: Any  # an EncoderConfig, and a dataclass

    def stem(self, pixels: Tensor) -> Tensor:
        """The layers before the first stage."""
        raise NotImplementedError

    def stage(self, number: int) -> nn.Module:
        """A stage, counted from 1; each but the first halves the sides of its input."""
        return self.get_submodule(f"layer{number}")

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

    def fingerprint(self) -> str:
        """SHA-256 over config, parameter names and values: two encoders share it only if they give the same features."""
        digest = hashlib.sha256(json.dumps(asdict(self.config), sort_keys=True).encode())
        for name, value in sorted(self.state_dict().items()):
            if not name.endswith("num_batches_tracked"):
                digest.update(name.encode())
                digest.update(value.detach().cpu().numpy().tobytes())
        return digest.hexdigest()
