"""The top-down decoder of Anderson et al. 2018 on grid features: a first LSTM looks, a second one speaks."""

import torch
from torch import Tensor, nn

from showtell.nn.attention_lstm import Attention, AttentionLSTM, DecoderConfig, Prepared, State, lstm_cell


class TopDownLSTM(AttentionLSTM):
    """Both states lie side by side in `State`, (B, K, 2H): looking, then speaking."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__(config)
        hidden, features = config.hidden, config.features
        del self.gate, self.state_gates
        self.initial = nn.Linear(config.attention, 4 * hidden)
        self.attention = Attention(hidden, config.attention)
        self.overview = nn.Linear(config.attention, 4 * hidden, bias=False)
        self.looking_gates = nn.Linear(2 * hidden, 4 * hidden, bias=False)
        self.speaking_gates = nn.Linear(2 * hidden + features, 4 * hidden)
        with torch.no_grad():
            self.speaking_gates.bias[hidden : 2 * hidden] = 1.0

    def _advance(self, words: Tensor, prepared: Prepared, state: State) -> tuple[State, Tensor]:
        looking, speaking = state.hidden.chunk(2, -1)
        looking_cell, speaking_cell = state.cell.chunk(2, -1)
        overview = self.overview(prepared.keys.mean(1)).unsqueeze(1)
        looking, looking_cell = lstm_cell(
            words + overview + self.looking_gates(torch.cat([looking, speaking], -1)), looking_cell
        )
        context, weights = self.attention(looking, prepared)
        gates = self.speaking_gates(torch.cat([looking, context, speaking], -1))
        speaking, speaking_cell = lstm_cell(gates, speaking_cell)
        return State(torch.cat([looking, speaking], -1), torch.cat([looking_cell, speaking_cell], -1)), weights

    def _scores(self, hidden: Tensor) -> Tensor:
        return super()._scores(hidden[..., -self.config.hidden :])
