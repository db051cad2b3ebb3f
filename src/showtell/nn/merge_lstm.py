"""The merge decoder of the original project: no attention, the photo is one pooled vector.

An LSTM reads the words so far, without the photo. Its state is added to a projection of the photo, and a layer over the sum
scores the next word ("merge", Tanti et al. 2017, "What is the Role of Recurrent Neural Networks (RNNs) in an Image Caption
Generator?"). The photo's vector is the mean over its grid, for ResNet-50 the average-pooled vector.

The original project trained on every prefix of a caption as one example. The LSTM's state after t words depends on those words
alone. So reading a caption once, and scoring the next word after each step, gives the same sum of losses in one pass. Only
dropout differs: the prefixes of a caption share one draw for each word, and a photo's captions share one draw for the photo.

Shapes: B photos, K captions of each, G grid cells, D feature channels, E embedding size, H hidden size, V words.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from showtell.nn.attention_lstm import State, lstm_cell
from showtell.nn.packing import Packed


@dataclass(frozen=True, slots=True)
class MergeConfig:
    """Sizes and dropout rates of the decoder: `dropout` of the photo's features, `word_dropout` of the word embeddings."""

    vocabulary: int
    features: int = 2048
    hidden: int = 256
    embedding: int = 50
    word_dropout: float = 0.3
    dropout: float = 0.3
    kind: Literal["merge"] = "merge"


class PreparedImage(NamedTuple):
    """The tensor that depends on the photo alone."""

    image: Tensor  # (B, H)


class MergeLSTM(nn.Module):
    """Scores of the next word, from features and the words so far."""

    def __init__(self, config: MergeConfig) -> None:
        super().__init__()
        self.config = config
        hidden = config.hidden
        self.image = nn.Linear(config.features, hidden)
        self.embedding = nn.Embedding(config.vocabulary, config.embedding)
        # The LSTM's gate inputs, split by source: those of the words are then computed for all steps at once.
        self.word_gates = nn.Linear(config.embedding, 4 * hidden)
        self.state_gates = nn.Linear(hidden, 4 * hidden, bias=False)
        self.merged = nn.Linear(hidden, hidden)
        self.vocabulary = nn.Linear(hidden, config.vocabulary)
        self.word_dropout = nn.Dropout(config.word_dropout)
        self.dropout = nn.Dropout(config.dropout)
        # Keras's initialisation, as the original project was written in Keras.
        for layer in (self.image, self.word_gates, self.merged, self.vocabulary):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
        nn.init.orthogonal_(self.state_gates.weight)
        nn.init.uniform_(self.embedding.weight, -0.05, 0.05)
        with torch.no_grad():
            self.word_gates.bias[hidden : 2 * hidden] = 1.0  # remember by default (Jozefowicz et al. 2015)

    def prepare(self, features: Tensor) -> tuple[PreparedImage, State]:
        """From features (B, G, D): the photo's projection, and the state of one empty caption (K = 1)."""
        image = torch.relu(self.image(self.dropout(features.mean(1))))
        nothing = torch.zeros_like(image).unsqueeze(1)
        return PreparedImage(image), State(nothing, nothing.clone())  # an ONNX graph has no two outputs that are one

    def step(self, tokens: Tensor, prepared: PreparedImage, state: State) -> tuple[Tensor, State, None]:
        """Reads int64 tokens (B, K): log-probabilities of the next (B, K, V), new state; there is no attention."""
        gates = self.word_gates(self.embedding(tokens)) + self.state_gates(state.hidden)
        state = State(*lstm_cell(gates, state.cell))
        return torch.log_softmax(self._scores(prepared.image.unsqueeze(1), state.hidden), dim=-1), state, None

    def forward(self, features: Tensor, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Teacher forcing: scores (logits) of the word after each of a caption's first `lengths` tokens.

        features (B, G, D); tokens int64 (B, K, T), each caption from its begin token on; lengths int64 (B, K).
        Returns (sum of lengths, V): only steps that exist, in the order of `tokens[mask]` with
        `mask = arange(T) < lengths[..., None]`.
        """
        prepared, _ = self.prepare(features)
        packed = Packed.of(tokens, lengths)
        words = self.word_gates(self.word_dropout(self.embedding(packed.tokens))).split(packed.sizes)
        photo = packed.order // tokens.shape[1]
        hidden = cell = torch.zeros_like(prepared.image[photo])
        outputs = []
        for n, gates in zip(packed.sizes, words, strict=True):
            hidden, cell = lstm_cell(gates + self.state_gates(hidden[:n]), cell[:n])
            outputs.append(hidden)
        photos = torch.cat([photo[:n] for n in packed.sizes])
        return self._scores(
            prepared.image.index_select(0, photos[packed.unsort]), torch.cat(outputs).index_select(0, packed.unsort)
        )

    def _scores(self, image: Tensor, hidden: Tensor) -> Tensor:
        """Word scores (..., V) from the photo's projection and the LSTM's state, both (..., H)."""
        scores: Tensor = self.vocabulary(torch.relu(self.merged(image + hidden)))
        return scores
