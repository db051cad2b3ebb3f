"""Decoders by the kind in their config: the only module that tells kinds apart.

All have the same interface: `prepare` once a photo, `step` once a word, `forward` for teacher forcing (see nn.attention_lstm).
`prepare` and `step` return named tuples of tensors: (B, ...) for tensors of a photo, (B, K, ...) for tensors of a caption.
"""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from showtell.errors import OptionError
from showtell.nn.attention_lstm import AttentionLSTM, DecoderConfig
from showtell.nn.merge_lstm import MergeConfig, MergeLSTM

Config = DecoderConfig | MergeConfig
Decoder = AttentionLSTM | MergeLSTM

_KINDS: dict[str, tuple[type[Config], type[Decoder]]] = {
    "attention-lstm": (DecoderConfig, AttentionLSTM),
    "merge": (MergeConfig, MergeLSTM),
}


def read_config(values: Mapping[str, Any]) -> Config:
    """A decoder's config from its JSON object. Raises OptionError for an unknown kind and for unknown or missing keys."""
    kind = values.get("kind", "attention-lstm")  # configs from before there were kinds
    if kind not in _KINDS:
        raise OptionError(f"decoder kind {kind!r} is not known; there are {', '.join(_KINDS)}")
    config_type, _ = _KINDS[kind]
    try:
        return config_type(**values)
    except TypeError:
        known = ", ".join(field.name for field in fields(config_type))
        raise OptionError(f"a decoder of kind {kind} has {known}; these are {', '.join(values)}") from None


def build(config: Config) -> Decoder:
    """The decoder of that config, with new random weights."""
    network: Any = _KINDS[config.kind][1]
    decoder: Decoder = network(config)
    return decoder
