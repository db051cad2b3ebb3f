"""Encoder and decoder together: the torch model that is trained, saved and exported."""

import json
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from showtell.arrays import Array
from showtell.bundle import Bundle
from showtell.decoding import Step
from showtell.errors import BundleError
from showtell.image import Preprocessing
from showtell.nn.decoders import Decoder
from showtell.nn.encoder import Encoder
from showtell.vocabulary import Vocabulary


@dataclass
class CaptionModel:
    """A captioner in torch: networks, vocabulary and preprocessing."""

    encoder: Encoder
    decoder: Decoder
    vocabulary: Vocabulary
    preprocessing: Preprocessing

    def networks(self) -> nn.ModuleDict:
        """Both networks as one module, for saving: parameters are named encoder.* and decoder.*"""
        return nn.ModuleDict({"encoder": self.encoder, "decoder": self.decoder})

    def check_encoder_of(self, bundle: Bundle) -> None:
        """Raises BundleError where the bundle's encoder is no form of this model's: another architecture or preprocessing."""
        wanted = json.loads(json.dumps(asdict(self.encoder.config)))  # with lists for tuples, as the bundle's config has them
        if bundle.config.encoder != wanted or bundle.preprocessing != self.preprocessing:
            raise BundleError(
                f"{bundle.folder}: its encoder or preprocessing differs from the model's; give a bundle of the model"
            )


class TorchState(NamedTuple):
    """The state of a search: the decoder's named tuples."""

    prepared: Any  # of tensors (B, ...)
    recurrent: Any  # of tensors (B, K, ...)


class TorchStepModel:
    """The decoder as a step model of the search (`decoding.StepModel`)."""

    def __init__(self, decoder: Decoder) -> None:
        self.decoder = decoder.eval()
        self.device = next(decoder.parameters()).device

    @torch.inference_mode()
    def start(self, features: Array) -> TorchState:
        """See decoding.StepModel."""
        return TorchState(*self.decoder.prepare(torch.from_numpy(np.asarray(features, np.float32)).to(self.device)))

    @torch.inference_mode()
    def step(self, tokens: Array, state: TorchState) -> Step:
        """See decoding.StepModel."""
        log_probs, after, attention = self.decoder.step(torch.from_numpy(tokens).to(self.device), *state)
        weights = None if attention is None else attention.cpu().numpy()
        return Step(log_probs.cpu().numpy(), TorchState(state.prepared, after), weights)

    @torch.inference_mode()
    def reorder(self, state: TorchState, photos: Array, hypotheses: Array) -> TorchState:
        """See decoding.StepModel."""
        prepared, recurrent = state
        rows = torch.from_numpy(photos).to(self.device)
        columns = torch.from_numpy(hypotheses).to(self.device)
        if len(rows) < len(prepared[0]):  # while all photos go on, their grids stay where they are
            prepared = type(prepared)(*(part[rows] for part in prepared))
        return TorchState(prepared, type(recurrent)(*(part[rows.unsqueeze(1), columns] for part in recurrent)))
