"""Decoders of every kind: teacher forcing against stepping, dropout, and what captions see of each other."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from showtell.nn import decoders
from showtell.nn.attention_lstm import AttentionLSTM, DecoderConfig
from showtell.nn.decoders import Config, Decoder
from showtell.nn.merge_lstm import MergeConfig
from showtell.nn.packing import Packed

ATTENTION = DecoderConfig(vocabulary=30, features=16, hidden=24, attention=8)
EVERY_KIND = pytest.mark.parametrize("config", [ATTENTION, MergeConfig(vocabulary=30, features=16, hidden=24, embedding=8)])


def decoder_of(config: Config) -> Decoder:
    torch.manual_seed(0)
    return decoders.build(config).eval()


def by_steps(decoder: Decoder, features: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
    """Log-probabilities of the word after each token, one token of all captions after the other."""
    prepared, state = decoder.prepare(features)
    state = type(state)(*(part.expand(-1, tokens.shape[1], -1) for part in state))
    steps = []
    for t in range(tokens.shape[2]):
        log_probs, state, attention = decoder.step(tokens[:, :, t], prepared, state)
        assert attention is None or torch.allclose(attention.sum(-1), torch.ones(tokens.shape[:2]))
        steps.append(log_probs)
    return torch.stack(steps, 2)[mask]


@EVERY_KIND
def test_teacher_forcing_and_its_gradients_equal_those_of_stepping(config: Config) -> None:
    decoder = decoder_of(config)
    features = torch.randn(3, 49, 16, requires_grad=True)
    tokens = torch.randint(0, 30, (3, 2, 6))
    lengths = torch.tensor([[6, 2], [0, 4], [5, 5]])  # the second photo has one caption only
    expected = by_steps(decoder, features, tokens, torch.arange(6) < lengths.unsqueeze(-1))
    scores = torch.log_softmax(decoder(features, tokens, lengths), -1)
    assert torch.allclose(scores, expected, atol=1e-5)
    weights = torch.randn(int(lengths.sum()), 30)  # any loss
    wanted = [*decoder.parameters(), features]
    ours, theirs = (torch.autograd.grad((each * weights).sum(), wanted) for each in (scores, expected))
    for one, other in zip(ours, theirs, strict=True):
        assert torch.allclose(one, other, atol=1e-5)


def test_dropout_is_one_mask_a_photo_and_one_a_caption(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    config = DecoderConfig(
        30, features=16, hidden=24, attention=8, word_dropout=0, dropout=0, feature_dropout=0.4, state_dropout=0.4
    )
    decoder = AttentionLSTM(config).train()
    features, tokens = torch.randn(3, 49, 16), torch.randint(0, 30, (3, 2, 6))
    lengths = torch.tensor([[6, 2], [1, 4], [5, 5]])
    drawn, dropout = [], F.dropout

    def recorded(like: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        mask = dropout(like, p, training, inplace)
        if p == 0.4:
            drawn.append(mask)
        return mask

    monkeypatch.setattr(F, "dropout", recorded)
    with torch.inference_mode():
        scores = torch.log_softmax(decoder(features, tokens, lengths), -1)
        channels, states = drawn
        assert channels.shape == (3, 1, 16)
        assert states.shape == (6, 24)
        assert set((channels * 0.6).unique().tolist()) == {0, 1}  # what is kept is scaled up
        place = Packed.of(tokens, lengths).order.argsort().view(3, 2)
        prepared, state = decoder.prepare(features * channels)
        state = type(state)(*(part.expand(-1, 2, -1) for part in state))
        steps = []
        for t in range(6):
            log_probs, state, _ = decoder.step(tokens[:, :, t], prepared, state)
            state = state._replace(hidden=state.hidden * states[place])
            steps.append(log_probs)
        mask = torch.arange(6) < lengths.unsqueeze(-1)
        assert torch.allclose(scores, torch.stack(steps, 2)[mask], atol=1e-5)

        decoder.eval()
        assert torch.equal(decoder(features, tokens, lengths), decoder(features, tokens, lengths))
        assert all((kept == 1).all() for kept in drawn[2:])


@EVERY_KIND
def test_captions_do_not_see_each_other_or_other_photos(config: Config) -> None:
    decoder = decoder_of(config)
    features, tokens = torch.randn(2, 49, 16), torch.randint(0, 30, (2, 2, 5))
    lengths = torch.full((2, 2), 5)
    with torch.inference_mode():
        before = decoder(features, tokens, lengths).view(2, 2, 5, 30)
        features[1] += 1
        tokens[0, 1] = 7
        after = decoder(features, tokens, lengths).view(2, 2, 5, 30)
    assert torch.allclose(before[0, 0], after[0, 0], atol=1e-6)
    assert not torch.allclose(before[0, 1], after[0, 1])
    assert not torch.allclose(before[1], after[1])
