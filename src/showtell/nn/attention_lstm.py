"""The attention LSTM decoder: soft attention over the photo's grid at each word (Show, Attend and Tell; Xu et al. 2015).

At each step the hidden state is the attention's query. The context, the weighted mean of the grid features, is gated and joins
the last word's embedding as the LSTM's input. The new hidden state scores the next word. Input and output words share one
embedding matrix (Press and Wolf 2017), so the embedding has the size of the hidden state.

Shapes: B photos, K captions of each, G grid cells (such as 64), D feature channels (such as 1280), A attention units, H hidden
units, V words.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from showtell.nn.packing import Packed


@dataclass(frozen=True, slots=True)
class DecoderConfig:
    """Sizes and dropout rates of the decoder.

    `feature_dropout` acts on a photo's channels, in all cells alike; `word_dropout` on the word embeddings; `state_dropout` on
    the recurrent state, with one mask for all steps of a caption (Gal and Ghahramani 2016); `dropout` on the state that scores
    words.
    """

    vocabulary: int
    features: int = 2048
    hidden: int = 512
    attention: int = 256
    word_dropout: float = 0.3
    dropout: float = 0.5
    feature_dropout: float = 0.0
    state_dropout: float = 0.0
    kind: Literal["attention-lstm"] = "attention-lstm"


class Prepared(NamedTuple):
    """Tensors that depend on the photo alone, computed once for all its words and captions."""

    values: Tensor  # (B, G, D): the grid features themselves
    keys: Tensor  # (B, G, A)


class State(NamedTuple):
    """The LSTM's state in each caption."""

    hidden: Tensor  # (B, K, H)
    cell: Tensor  # (B, K, H)


class Attention(nn.Module):
    """Additive attention (Bahdanau et al. 2015) of each caption's query over its photo's grid."""

    def __init__(self, hidden: int, attention: int) -> None:
        super().__init__()
        self.query = nn.Linear(hidden, attention)
        self.score = nn.Linear(attention, 1, bias=False)

    def forward(self, query: Tensor, prepared: Prepared) -> tuple[Tensor, Tensor]:
        """Context (B, K, D) and attention weights (B, K, G) of queries (B, K, H)."""
        joint = (prepared.keys.unsqueeze(1) + self.query(query).unsqueeze(2)).tanh_()  # (B, K, G, A), the largest by far
        weights = torch.softmax(self.score(joint).squeeze(-1), dim=-1)
        return weights @ prepared.values, weights


def lstm_cell(gates: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    """New hidden and cell state (..., H) from the summed gate inputs (..., 4H), in torch's order i, f, g, o."""
    i, f, g, o = gates.chunk(4, dim=-1)
    cell = torch.sigmoid(f) * cell + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(cell), cell


class AttentionLSTM(nn.Module):
    """Scores of the next word, from grid features and the words so far."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        hidden, features = config.hidden, config.features
        self.keys = nn.Linear(features, config.attention, bias=False)
        self.initial = nn.Linear(config.attention, 2 * hidden)
        self.attention = Attention(hidden, config.attention)
        self.gate = nn.Linear(hidden, features)
        self.embedding = nn.Embedding(config.vocabulary, hidden)
        # The LSTM's gate inputs, split by source: those of the words are then computed for all steps at once.
        self.word_gates = nn.Linear(hidden, 4 * hidden)
        self.state_gates = nn.Linear(hidden + features, 4 * hidden, bias=False)
        self.vocabulary_bias = nn.Parameter(torch.zeros(config.vocabulary))
        self.word_dropout = nn.Dropout(config.word_dropout)
        self.dropout = nn.Dropout(config.dropout)
        nn.init.normal_(self.embedding.weight, std=hidden**-0.5)
        with torch.no_grad():
            self.word_gates.bias[hidden : 2 * hidden] = 1.0  # remember by default (Jozefowicz et al. 2015)

    def prepare(self, features: Tensor) -> tuple[Prepared, State]:
        """From grid features (B, G, D): the tensors computed once a photo, and the state of one empty caption (K = 1)."""
        keys = self.keys(features)
        hidden, cell = torch.tanh(self.initial(keys.mean(1))).unsqueeze(1).chunk(2, dim=-1)
        return Prepared(features, keys), State(hidden, cell)

    def step(self, tokens: Tensor, prepared: Prepared, state: State) -> tuple[Tensor, State, Tensor]:
        """Reads int64 tokens (B, K): log-probabilities of the next (B, K, V), new state, attention weights (B, K, G)."""
        context, weights = self.attention(state.hidden, prepared)
        gates = self.word_gates(self.embedding(tokens)) + self._gate_inputs(state.hidden, context)
        state = State(*lstm_cell(gates, state.cell))
        return torch.log_softmax(self._scores(state.hidden), dim=-1), state, weights

    def forward(self, features: Tensor, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Teacher forcing: scores (logits) of the word after each of a caption's first `lengths` tokens.

        features (B, G, D); tokens int64 (B, K, T), each caption from its begin token on; lengths int64 (B, K).
        Returns (sum of lengths, V): only steps that exist, in the order of `tokens[mask]` with
        `mask = arange(T) < lengths[..., None]`.
        """
        prepared, state = self.prepare(features * self._kept(features[:, :1], self.config.feature_dropout))
        K = tokens.shape[1]
        packed = Packed.of(tokens, lengths)
        # Attention computes a photo's captions side by side. Sort photos by their longest caption and a photo's captions by
        # length, both falling: the captions that have a word at a step then nearly fill the corner of a rectangle.
        photo_order = lengths.max(1).values.argsort(descending=True)
        caption_order = lengths[photo_order].argsort(dim=1, descending=True)
        cells = photo_order.unsqueeze(1) * K + caption_order  # (B, K): numbers of the captions
        rank = packed.order.argsort()[cells]  # (B, K): their places in the packed order
        place = rank.flatten().argsort()  # and back: cell of each, in reading order
        row, column = place // K, place % K
        first, *later = packed.sizes
        heights, widths = ((part.cummax(0).values[[size - 1 for size in later]] + 1).tolist() for part in (row, column))

        first_words, *later_words = self.word_gates(self.word_dropout(self.embedding(packed.tokens))).split(packed.sizes)
        # A photo's captions begin from one state: their first attention is computed once.
        context, _ = self.attention(state.hidden, prepared)
        inflow = self._gate_inputs(state.hidden.squeeze(1), context.squeeze(1))
        # index_select throughout: its gradient adds whole rows, that of indexing adds single numbers.
        inflow, cell = (part.index_select(0, packed.order[:first] // K) for part in (inflow, state.cell.squeeze(1)))
        hidden, cell = lstm_cell(first_words + inflow, cell)
        outputs = [hidden]
        kept = self._kept(hidden, self.config.state_dropout)
        prepared = Prepared(*(part.index_select(0, photo_order) for part in prepared))
        for n, words, B, W in zip(later, later_words, heights, widths, strict=True):
            if len(prepared.keys) > B:
                prepared = Prepared(*(part[:B] for part in prepared))
            hidden = hidden[:n] * kept[:n]
            # Cells of captions that have ended repeat another's state; their results are not used.
            asking = hidden.index_select(0, rank[:B, :W].clamp(max=n - 1).flatten()).view(B, W, -1)
            context, _ = self.attention(asking, prepared)
            context = context.flatten(0, 1).index_select(0, row[:n] * W + column[:n])
            hidden, cell = lstm_cell(words + self._gate_inputs(hidden, context), cell[:n])
            outputs.append(hidden)
        return self._scores(torch.cat(outputs).index_select(0, packed.unsort))

    def _gate_inputs(self, hidden: Tensor, context: Tensor) -> Tensor:
        """The part of the LSTM's gate inputs (..., 4H) that comes from the state (..., H) and its context (..., D)."""
        gated: Tensor = self.state_gates(torch.cat([hidden, torch.sigmoid(self.gate(hidden)) * context], -1))
        return gated

    def _kept(self, like: Tensor, dropped: float) -> Tensor:
        """A dropout mask of the shape of `like`; all ones outside training."""
        return F.dropout(torch.ones_like(like), dropped, self.training)

    def _scores(self, hidden: Tensor) -> Tensor:
        """Word scores (..., V) from hidden states (..., H)."""
        return F.linear(self.dropout(hidden), self.embedding.weight, self.vocabulary_bias)
