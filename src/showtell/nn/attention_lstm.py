"""The attention LSTM decoder: one word at a time, each from a fresh look at the photo's 7x7 grid.

Two kinds are offered. "soft" is Show, Attend and Tell's soft attention with the gated context (Xu et al. 2015): one LSTM whose
last hidden state decides where to look. "top-down" is the two-LSTM decoder of Anderson et al. 2018, on grid features: the first
LSTM looks, the second speaks. In both, grid features are first projected to `values`, words in and out share one embedding
matrix (Press and Wolf 2017), and everything that depends on the photo alone is computed once, in `prepare`.

Shapes: B photos, K captions of each, G grid cells (49), A attention size, H hidden size, V words.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True, slots=True)
class DecoderConfig:
    """Sizes of the decoder. `dropout` acts on words, values and output in training alone."""

    vocabulary: int
    features: int = 2048
    kind: Literal["soft", "top-down"] = "soft"
    hidden: int = 512
    embedding: int = 512
    values: int = 512
    attention: int = 512
    dropout: float = 0.5
    feature_dropout: float = 0.2


class Prepared(NamedTuple):
    """What depends on the photo alone."""

    values: Tensor  # (B, G, D)
    keys: Tensor  # (B, G, A)
    mean: Tensor  # (B, D)


class State(NamedTuple):
    """Hidden and cell states, the layers of a two-LSTM decoder one after another in the last dimension."""

    hidden: Tensor  # (B, K, layers * H)
    cell: Tensor  # (B, K, layers * H)


class Attention(nn.Module):
    """Additive attention (Bahdanau et al. 2015) of each caption's query over its photo's grid."""

    def __init__(self, query: int, attention: int) -> None:
        super().__init__()
        self.query = nn.Linear(query, attention)
        self.score = nn.Linear(attention, 1, bias=False)

    def forward(self, query_BKH: Tensor, prepared: Prepared) -> tuple[Tensor, Tensor]:
        """Context (B, K, D) and attention weights (B, K, G)."""
        joint = torch.tanh(prepared.keys.unsqueeze(1) + self.query(query_BKH).unsqueeze(2))  # (B, K, G, A)
        weights = torch.softmax(self.score(joint).squeeze(-1), dim=-1)
        return weights @ prepared.values, weights


def lstm_cell(gates: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    """New hidden and cell state (..., H) from the summed gate inputs (..., 4H), in torch's order i, f, g, o."""
    i, f, g, o = gates.chunk(4, dim=-1)
    cell = torch.sigmoid(f) * cell + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(cell), cell


class AttentionLSTM(nn.Module):
    """Grid features and the words so far to scores of the next word."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        hidden, values = config.hidden, config.values
        self.layers = 2 if config.kind == "top-down" else 1
        self.project = nn.Sequential(nn.Linear(config.features, values), nn.LayerNorm(values), nn.ReLU())
        self.keys = nn.Linear(values, config.attention, bias=False)
        self.embedding = nn.Embedding(config.vocabulary, config.embedding)
        self.initial = nn.Linear(values, 2 * self.layers * hidden)
        self.attention = Attention(hidden, config.attention)
        self.gate = nn.Linear(hidden, values)
        # The gate inputs of the (first) LSTM, split by what they read: words can then be read for all steps at once.
        self.word_gates = nn.Linear(config.embedding, 4 * hidden)
        if config.kind == "soft":
            self.state_gates = nn.Linear(hidden + values, 4 * hidden, bias=False)
        else:
            self.mean_gates = nn.Linear(values, 4 * hidden, bias=False)
            self.state_gates = nn.Linear(2 * hidden, 4 * hidden, bias=False)
            self.language_gates = nn.Linear(2 * hidden + values, 4 * hidden)
        self.output = nn.Linear(hidden + values, config.embedding)
        self.vocabulary_bias = nn.Parameter(torch.zeros(config.vocabulary))
        self.dropout = nn.Dropout(config.dropout)
        self.feature_dropout = nn.Dropout(config.feature_dropout)
        self._initialise()

    def _initialise(self) -> None:
        nn.init.normal_(self.embedding.weight, std=self.config.embedding**-0.5)
        with torch.no_grad():
            hidden = self.config.hidden
            self.word_gates.bias[hidden : 2 * hidden] = 1.0  # remember by default (Jozefowicz et al. 2015)
            if self.layers == 2:
                self.language_gates.bias[hidden : 2 * hidden] = 1.0

    def prepare(self, features: Tensor) -> tuple[Prepared, State]:
        """Grid features (B, G, 2048) to what is computed once a photo, and the state of one empty caption (K = 1)."""
        values = self.feature_dropout(self.project(features))
        mean = values.mean(1)
        hidden, cell = torch.tanh(self.initial(mean)).unsqueeze(1).chunk(2, dim=-1)
        return Prepared(values, self.keys(values), mean), State(hidden, cell)

    def step(self, tokens: Tensor, prepared: Prepared, state: State) -> tuple[Tensor, State, Tensor]:
        """Reads int64 tokens (B, K): log-probabilities of the next (B, K, V), new state, attention weights (B, K, G)."""
        words = self.word_gates(self.embedding(tokens))
        if self.layers == 2:
            words = words + self.mean_gates(prepared.mean).unsqueeze(1)
        spoken, state, weights = self._advance(words, prepared, state)
        return torch.log_softmax(self._scores(spoken), dim=-1), state, weights

    def forward(self, features: Tensor, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Teacher forcing: scores (logits) of the word after each of a caption's first `lengths` tokens.

        features (B, G, 2048); tokens int64 (B, K, T), each caption from its begin token on; lengths int64 (B, K).
        Returns (sum of lengths, V): only steps that exist, in the order of `tokens[mask]` with
        `mask = arange(T) < lengths[..., None]`.
        """
        prepared, state = self.prepare(features)
        # Captions by falling length within a photo and photos by falling longest caption, so that at each step those still
        # going on are the corner of a rectangle, and what has ended costs next to nothing.
        photo_order = lengths.max(1).values.argsort(descending=True)
        caption_order = lengths[photo_order].argsort(dim=1, descending=True)
        prepared = Prepared(*(part[photo_order] for part in prepared))
        sorted_lengths = lengths[photo_order].gather(1, caption_order)
        sorted_tokens = tokens[photo_order].gather(1, caption_order.unsqueeze(-1).expand(-1, -1, tokens.shape[2]))
        words = self.word_gates(self.dropout(self.embedding(sorted_tokens)))  # (B, K, T, 4H)
        if self.layers == 2:
            words = words + self.mean_gates(prepared.mean)[:, None, None]
        words = words.unbind(2)  # slicing one step at a time out of the whole would cost its size in zeros at each, going back
        hidden, cell = (part[photo_order].expand(-1, tokens.shape[1], -1) for part in state)

        # Place of each (photo, caption, step) in `tokens`, to put the outputs back in its order.
        places = (photo_order.unsqueeze(1) * tokens.shape[1] + caption_order) * tokens.shape[2]
        outputs, positions = [], []
        for t in range(int(lengths.max())):
            going = sorted_lengths > t
            B, K = int(going[:, 0].sum()), int(going.sum(1).max())
            if B < len(prepared.keys):
                prepared = Prepared(*(part[:B] for part in prepared))
            out, (hidden, cell), _ = self._advance(words[t][:B, :K], prepared, State(hidden[:B, :K], cell[:B, :K]))
            outputs.append(out[going[:B, :K]])
            positions.append(places[going] + t)
        return self._scores(torch.cat(outputs)[torch.cat(positions).argsort()])

    def _advance(self, words: Tensor, prepared: Prepared, state: State) -> tuple[Tensor, State, Tensor]:
        """One LSTM step from the words' gate inputs (B, K, 4H): what the output layer reads (B, K, H + D)."""
        if self.layers == 1:
            context, weights = self.attention(state.hidden, prepared)
            context = torch.sigmoid(self.gate(state.hidden)) * context
            gates = words + self.state_gates(torch.cat([state.hidden, context], -1))
            hidden, cell = lstm_cell(gates, state.cell)
            return torch.cat([hidden, context], -1), State(hidden, cell), weights
        looking, speaking = state.hidden.chunk(2, -1)
        looking_cell, speaking_cell = state.cell.chunk(2, -1)
        looking, looking_cell = lstm_cell(words + self.state_gates(torch.cat([looking, speaking], -1)), looking_cell)
        context, weights = self.attention(looking, prepared)
        context = torch.sigmoid(self.gate(looking)) * context
        gates = self.language_gates(torch.cat([looking, context, speaking], -1))
        speaking, speaking_cell = lstm_cell(gates, speaking_cell)
        state = State(torch.cat([looking, speaking], -1), torch.cat([looking_cell, speaking_cell], -1))
        return torch.cat([speaking, context], -1), state, weights

    def _scores(self, spoken: Tensor) -> Tensor:
        """Word scores (..., V) from (..., H + D)."""
        output = self.dropout(torch.tanh(self.output(self.dropout(spoken))))
        return F.linear(output, self.embedding.weight, self.vocabulary_bias)
