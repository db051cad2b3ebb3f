"""Encoder and decoder together: the torch model that is trained, saved and exported."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from showtell.decoding import Array, Step
from showtell.image import Preprocessing
from showtell.nn.attention_lstm import AttentionLSTM, Prepared, State
from showtell.nn.resnet import ResNet
from showtell.vocab import Vocabulary


@dataclass
class CaptionModel:
    """A captioner in torch: networks, vocabulary and preprocessing that belong together."""

    encoder: ResNet
    decoder: AttentionLSTM
    vocabulary: Vocabulary
    preprocessing: Preprocessing

    def networks(self) -> nn.ModuleDict:
        """Both networks as one module, for saving: parameters are named encoder.* and decoder.*"""
        return nn.ModuleDict({"encoder": self.encoder, "decoder": self.decoder})


class TorchStepModel:
    """The decoder behind the search's protocol (`decoding.StepModel`)."""

    def __init__(self, decoder: AttentionLSTM) -> None:
        self.decoder = decoder.eval()
        self.device = next(decoder.parameters()).device

    @torch.inference_mode()
    def start(self, features: Array) -> tuple[Prepared, State]:
        """See decoding.StepModel."""
        return self.decoder.prepare(torch.from_numpy(np.asarray(features, np.float32)).to(self.device))

    @torch.inference_mode()
    def step(self, tokens: Array, state: tuple[Prepared, State]) -> Step:
        """See decoding.StepModel."""
        log_probs, after, attention = self.decoder.step(torch.from_numpy(tokens).to(self.device), *state)
        return Step(log_probs.cpu().numpy(), (state[0], after), attention.cpu().numpy())

    @torch.inference_mode()
    def reorder(self, state: tuple[Prepared, State], photos: Array, hypotheses: Array) -> tuple[Prepared, State]:
        """See decoding.StepModel."""
        prepared, recurrent = state
        rows = torch.from_numpy(photos).to(self.device)
        columns = torch.from_numpy(hypotheses).to(self.device)
        if len(rows) < len(prepared.keys):  # while all photos go on, their grids stay where they are
            prepared = Prepared(*(part[rows] for part in prepared))
        return prepared, State(*(part[rows.unsqueeze(1), columns] for part in recurrent))

