"""The attention LSTM decoder: one word at a time, each from a fresh look at the photo's 7x7 grid.

Show, Attend and Tell's soft attention with a gated context (Xu et al. 2015): the LSTM's last hidden state decides where on the
grid to look, the mean of the features there, gated, joins the last word as the LSTM's input, and the new hidden state scores
the next word. Words in and out share one embedding matrix (Press and Wolf 2017), so embedding and hidden state are of one size.

Shapes: B photos, K captions of each, G grid cells (49), D feature channels (2048), A attention size, H hidden size, V words.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from showtell.nn.packing import Packed


@dataclass(frozen=True, slots=True)
class DecoderConfig:
    """Sizes of the decoder, and shares dropped in training alone.

    `feature_dropout` drops channels of a photo, in all its cells; `word_dropout` numbers of the words read; `state_dropout`
    numbers of the hidden state on its way to the next step, the same ones at each step of a caption (Gal and Ghahramani 2016);
    `dropout` numbers of the state that scores the next word.
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
    """What depends on the photo alone: computed once, however many words and captions follow."""

    values: Tensor  # (B, G, D): the grid features themselves
    keys: Tensor  # (B, G, A)


class State(NamedTuple):
    """Where the LSTM stands in each caption."""

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
    """Grid features and the words so far to scores of the next word."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        hidden, features = config.hidden, config.features
        self.keys = nn.Linear(features, config.attention, bias=False)
        self.initial = nn.Linear(config.attention, 2 * hidden)
        self.attention = Attention(hidden, config.attention)
        self.gate = nn.Linear(hidden, features)
        self.embedding = nn.Embedding(config.vocabulary, hidden)
        # The inputs of the LSTM's gates, split by what they read: words can then be read for all steps at once.
        self.word_gates = nn.Linear(hidden, 4 * hidden)
        self.state_gates = nn.Linear(hidden + features, 4 * hidden, bias=False)
        self.vocabulary_bias = nn.Parameter(torch.zeros(config.vocabulary))
        self.word_dropout = nn.Dropout(config.word_dropout)
        self.dropout = nn.Dropout(config.dropout)
        nn.init.normal_(self.embedding.weight, std=hidden**-0.5)
        with torch.no_grad():
            self.word_gates.bias[hidden : 2 * hidden] = 1.0  # remember by default (Jozefowicz et al. 2015)

    def prepare(self, features: Tensor) -> tuple[Prepared, State]:
        """Grid features (B, G, D) to what is computed once a photo, and the state of one empty caption (K = 1)."""
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

        features (B, G, 2048); tokens int64 (B, K, T), each caption from its begin token on; lengths int64 (B, K).
        Returns (sum of lengths, V): only steps that exist, in the order of `tokens[mask]` with
        `mask = arange(T) < lengths[..., None]`.
        """
        prepared, state = self.prepare(features * self._kept(features[:, :1], self.config.feature_dropout))
        K = tokens.shape[1]
        packed = Packed.of(tokens, lengths)
        # Attention wants a photo's captions side by side: photos by falling longest caption and a photo's captions by falling
        # length make those still going the corner of a rectangle, nearly.
        photo_order = lengths.max(1).values.argsort(descending=True)
        caption_order = lengths[photo_order].argsort(dim=1, descending=True)
        cells = photo_order.unsqueeze(1) * K + caption_order  # (B, K): numbers of the captions
        rank = packed.order.argsort()[cells]  # (B, K): their places in the packed order
        place = rank.flatten().argsort()  # and back: cell of each, in reading order
        row, column = place // K, place % K
        first, *later = packed.sizes
        heights, widths = ((part.cummax(0).values[[size - 1 for size in later]] + 1).tolist() for part in (row, column))

        first_words, *later_words = self.word_gates(self.word_dropout(self.embedding(packed.tokens))).split(packed.sizes)
        # A photo's captions begin from one state, so that their first look is one and the same.
        context, _ = self.attention(state.hidden, prepared)
        inflow = self._gate_inputs(state.hidden.squeeze(1), context.squeeze(1))
        # index_select throughout: its way back adds whole rows, that of indexing single numbers.
        inflow, cell = (part.index_select(0, packed.order[:first] // K) for part in (inflow, state.cell.squeeze(1)))
        hidden, cell = lstm_cell(first_words + inflow, cell)
        outputs = [hidden]
        kept = self._kept(hidden, self.config.state_dropout)
        prepared = Prepared(*(part.index_select(0, photo_order) for part in prepared))
        for n, words, B, W in zip(later, later_words, heights, widths, strict=True):
            if len(prepared.keys) > B:
                prepared = Prepared(*(part[:B] for part in prepared))
            hidden = hidden[:n] * kept[:n]
            # Cells of captions that have ended repeat another's state; nobody reads what comes of it.
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
        """What to multiply with so that training drops that share of the numbers, and nothing else does."""
        return F.dropout(torch.ones_like(like), dropped, self.training)

    def _scores(self, hidden: Tensor) -> Tensor:
        """Word scores (..., V) from hidden states (..., H)."""
        return F.linear(self.dropout(hidden), self.embedding.weight, self.vocabulary_bias)
