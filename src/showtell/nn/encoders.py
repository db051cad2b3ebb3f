"""Encoders by the kind in their config: the only module that tells kinds apart."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from showtell.errors import OptionError
from showtell.nn.backbones import Backbone, BackboneConfig
from showtell.nn.efficientnet_lite import EfficientNetLite, EfficientNetLiteConfig
from showtell.nn.encoder import Encoder
from showtell.nn.resnet import ResNet, ResNetConfig

Config = ResNetConfig | EfficientNetLiteConfig | BackboneConfig


def read_config(values: Mapping[str, Any]) -> Config:
    """An encoder's config from its JSON object. Raises OptionError for an unknown kind and for unknown or missing keys."""
    kind = values.get("kind", "resnet")  # configs from before there were kinds
    kinds: dict[str, Any] = {
        "resnet": ResNetConfig,
        "efficientnet-lite": EfficientNetLiteConfig,
        "hf": BackboneConfig,
        "timm": BackboneConfig,
    }
    if kind not in kinds:
        raise OptionError(f"encoder kind {kind!r} is not known; there are {', '.join(kinds)}")
    plain: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
    try:
        config: Config = kinds[kind](**plain)
    except TypeError:
        known = ", ".join(field.name for field in fields(kinds[kind]))
        raise OptionError(f"an encoder of kind {kind} has {known}; these are {', '.join(values)}") from None
    return config


def build(config: Config) -> Encoder:
    """The encoder of that config, with new random weights."""
    if isinstance(config, BackboneConfig):
        return Backbone(config)
    return ResNet(config) if isinstance(config, ResNetConfig) else EfficientNetLite(config)
