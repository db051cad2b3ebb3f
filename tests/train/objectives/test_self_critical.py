"""Self-critical training: its arithmetic by hand, its samples, and that it raises the reward."""

import json
from copy import deepcopy
from pathlib import Path

import pytest
import torch

from fakes import RecordingReporter
from showtell.decoding import search
from showtell.errors import DataError, RecipeError
from showtell.image import Preprocessing
from showtell.metrics import Cider, NGramTable
from showtell.nn.attention_lstm import AttentionLSTM, DecoderConfig
from showtell.nn.model import CaptionModel, TorchStepModel
from showtell.nn.resnet import ResNet, ResNetConfig
from showtell.train.inputs.batches import Batch
from showtell.train.inputs.inputs import Reading
from showtell.train.objectives.cross_entropy import CrossEntropy
from showtell.train.objectives.self_critical import Reward, Sampled, SelfCritical, mean_of_others, policy, sample
from showtell.train.recipe import Recipe
from showtell.train.run import checkpoint
from showtell.train.train import train
from showtell.types import DecodeOptions
from showtell.vocabulary import BEGIN, END, PAD, UNKNOWN, Vocabulary, style_token

COLOURS = ("red", "green", "blue", "black", "white")
THINGS = ("dog", "cat", "horse", "bird", "boat")
PLACES = ("on grass", "in the water")
CAPTIONS = {  # 50 photos; the likeliest beginning, "there", does not lead to the caption that most people agree with
    f"{colour}-{thing}-{number}.jpg": [
        f"a {colour} {thing} is {place}".split(),
        f"the {colour} {thing} is {place}".split(),
        f"one {colour} {thing} is {place}".split(),
        f"there is a {thing}".split(),
        f"there we see {colour}".split(),
    ]
    for colour in COLOURS
    for thing in THINGS
    for number, place in enumerate(PLACES)
}
VOCABULARY = Vocabulary.from_captions((c for many in CAPTIONS.values() for c in many), 1)
NEVER = VOCABULARY.search_tokens().never


def draw(decoder, features: torch.Tensor, count: int, max_length: int) -> Sampled:
    """Captions sampled from the plain begin token on."""
    return sample(decoder, features, torch.full((len(features), 1), BEGIN), NEVER, count, max_length=max_length)


def model(vocabulary: Vocabulary = VOCABULARY, *, dropout: float = 0.0, seed: int = 0) -> CaptionModel:
    """A decoder of 16 feature channels; the encoder is never asked."""
    torch.manual_seed(seed)
    config = DecoderConfig(len(vocabulary), features=16, hidden=48, attention=16, word_dropout=dropout, dropout=dropout)
    return CaptionModel(ResNet(ResNetConfig("v1.5", width=1)), AttentionLSTM(config), vocabulary, Preprocessing())


def batch() -> tuple[torch.Tensor, Batch]:
    """Grid features (50, 4, 16) of 50 synthetic photos, and their captions."""
    encoded = [[[*VOCABULARY.encode(words), END] for words in many] for many in CAPTIONS.values()]
    longest = max(len(ids) for many in encoded for ids in many)
    tokens = torch.tensor([[ids + [PAD] * (longest - len(ids)) for ids in many] for many in encoded])
    written = Sampled(tokens, torch.full((len(tokens), 1), BEGIN))
    features = torch.randn(50, 4, 16, generator=torch.Generator().manual_seed(1))
    weights = torch.ones(len(written.targets))
    photos = Reading(features.numpy(), 4)
    return features, Batch(tuple(CAPTIONS), photos, written.inputs, written.lengths, written.targets, weights)


def descend(captioner: CaptionModel, objective, steps: int, rate: float) -> list:
    """Trains the decoder with Adam; the loss of each step."""
    features, photos = batch()
    optimizer = torch.optim.Adam(captioner.decoder.parameters(), rate)
    captioner.decoder.train()
    losses = []
    for _ in range(steps):
        loss = objective(captioner, features, photos)
        optimizer.zero_grad()
        (loss.total / loss.count).backward()
        optimizer.step()
        losses.append(loss)
    return losses


@pytest.fixture(scope="module")
def overfitted() -> CaptionModel:
    """Knows the 50 photos and their captions by heart, and says other words now and then, as it was smoothed."""
    captioner = model()
    losses = descend(captioner, CrossEntropy(0.2), 70, 1e-2)
    assert losses[-1].total / losses[-1].count < 1.5  # of 1.2 that label smoothing leaves; 3.2 at the start
    return captioner


def rewards_of(captioner: CaptionModel, reward: Reward) -> tuple[float, float]:
    """Mean rewards of 20 samples a photo and of the greedy captions."""
    torch.manual_seed(5)
    features, photos = batch()
    drawn = reward(photos.names, draw(captioner.decoder.eval(), features, 20, 10).tokens)
    found = search(TorchStepModel(captioner.decoder), features.numpy(), VOCABULARY.search_tokens(), DecodeOptions(beam_size=1))
    greedy = [[*best.tokens, END] for [best] in found]
    padded = torch.tensor([[ids + [PAD] * (30 - len(ids))] for ids in greedy])
    return drawn.mean().item(), reward(photos.names, padded).mean().item()


# --- reward and baseline


def test_mean_of_others_by_hand() -> None:
    rewards = torch.tensor([[1.0, 2.0, 6.0], [0.0, 0.0, 3.0]])
    assert mean_of_others(rewards).tolist() == [[4.0, 3.5, 1.5], [1.5, 1.5, 0.0]]
    assert torch.allclose((rewards - mean_of_others(rewards)).sum(1), torch.zeros(2))  # advantages of a photo cancel


def test_the_end_token_is_inside_the_reward() -> None:
    reward = Reward(CAPTIONS, VOCABULARY)
    name = next(iter(CAPTIONS))
    whole = [*VOCABULARY.encode(CAPTIONS[name][0]), END]
    broken = [*whole[:-1], PAD]
    both = reward([name], torch.tensor([[whole, broken]]))[0]
    # Without the end token both are the same words: metrics that leave it out cannot tell them apart.
    assert both[0] > both[1] + 0.05
    table = NGramTable()
    cider = Cider(table.count([[*words, "<end>"] for words in many] for many in CAPTIONS.values()), table)
    assert both[0].item() == pytest.approx(cider.rewards([0], [[*CAPTIONS[name][0], "<end>"]])[0])
    cut = [*VOCABULARY.encode(["a", "red", "dog", "is", "on"]), END]  # ended in the middle of a phrase
    assert reward([name], torch.tensor([[cut]]))[0, 0] < both[0]


def test_each_style_has_document_frequencies_of_its_own() -> None:
    names = list(CAPTIONS)
    styles = {name: "plain" if "dog" in name else "rich" for name in names}
    written = {name: [[style_token(styles[name]), *words] for words in CAPTIONS[name]] for name in names}
    vocabulary = VOCABULARY.with_styles(["plain", "rich"])
    both = [names[0], names[-2]]
    tokens = torch.tensor([[[*VOCABULARY.encode(CAPTIONS[name][0]), END]] for name in both])
    found = Reward(written, vocabulary)(both, tokens).flatten()
    for name, reward in zip(both, found.tolist(), strict=True):
        alike = {other: CAPTIONS[other] for other in names if styles[other] == styles[name]}
        assert reward == pytest.approx(Reward(alike, vocabulary)([name], tokens[[both.index(name)]]).item())
    assert not torch.allclose(found, Reward(CAPTIONS, VOCABULARY)(both, tokens).flatten())


def test_a_single_photo_is_refused() -> None:
    with pytest.raises(DataError, match="two train photos"):
        Reward({"a.jpg": [["a", "dog"]]}, VOCABULARY)


# --- sampling


def test_forbidden_tokens_are_never_sampled_however_likely() -> None:
    captioner = model()
    with torch.no_grad():
        captioner.decoder.vocabulary_bias[[PAD, BEGIN, UNKNOWN]] = 50.0
        captioner.decoder.vocabulary_bias[END] = 1.0
    drawn = draw(captioner.decoder.eval(), torch.randn(10, 4, 16), 20, 8)
    assert not ((drawn.tokens == BEGIN) | (drawn.tokens == UNKNOWN)).any()
    after = (drawn.tokens == END).cumsum(-1) - (drawn.tokens == END).long()  # ends before each place
    broken_off = drawn.tokens[..., -1:] == PAD
    assert torch.equal(drawn.tokens[..., :8] == PAD, after[..., :8] > 0)  # nothing but what follows an end is padding
    assert broken_off.any()
    assert drawn.lengths.min() >= 1


def test_captions_are_broken_off_without_an_end() -> None:
    captioner = model()
    with torch.no_grad():
        captioner.decoder.vocabulary_bias[END] = -50.0
    drawn = draw(captioner.decoder.eval(), torch.randn(3, 4, 16), 2, 5)
    assert drawn.lengths.tolist() == [[5, 5]] * 3
    assert not (drawn.tokens == END).any()


def test_samples_follow_the_policy() -> None:
    captioner = model()
    decoder, features = captioner.decoder.eval(), torch.randn(1, 4, 16)
    torch.manual_seed(0)
    drawn = draw(decoder, features, 20_000, 1)
    counts = torch.bincount(drawn.tokens[0, :, 0], minlength=len(VOCABULARY)) / 20_000
    prepared, state = decoder.prepare(features)
    with torch.no_grad():
        log_probs, _, _ = decoder.step(torch.tensor([[BEGIN]]), prepared, state)
    expected = log_probs[0, 0].clone()
    expected[[PAD, BEGIN, UNKNOWN]] = -torch.inf
    assert torch.allclose(counts, expected.softmax(-1), atol=0.012)  # over three standard errors
    assert torch.allclose(policy(log_probs[0, 0], NEVER).exp(), expected.softmax(-1), atol=1e-6)


def test_samples_begin_with_the_style_of_their_photo() -> None:
    vocabulary = VOCABULARY.with_styles(["plain", "rich"])
    captioner = model(vocabulary)
    begins = torch.tensor([[vocabulary.search_tokens(style).begin] for style in ("plain", "rich")])
    with torch.no_grad():  # after each style's token one word follows for sure
        captioner.decoder.embedding.weight *= 20
        captioner.decoder.word_gates.weight *= 5
    features = torch.randn(1, 4, 16).expand(2, -1, -1)
    never = vocabulary.search_tokens().never
    drawn = sample(captioner.decoder.eval(), features, begins, never, 50, max_length=3)
    assert drawn.inputs[:, :, 0].tolist() == begins.expand(-1, 50).tolist()
    first, second = (torch.bincount(tokens, minlength=len(vocabulary)) / 50 for tokens in drawn.tokens[:, :, 0])
    assert (first - second).abs().sum() > 0.5
    assert not torch.isin(drawn.tokens, torch.tensor(never)[1:]).any()


# --- the loss


def test_gradient_is_that_of_the_advantages(overfitted: CaptionModel) -> None:
    """The objective's gradient equals that of -sum(advantage x log p) written down anew, dropout or not."""
    features, photos = batch()
    captioner = model(dropout=0.5)
    captioner.decoder.load_state_dict(overfitted.decoder.state_dict())
    captioner.decoder.train()
    reward = Reward(CAPTIONS, VOCABULARY)
    torch.manual_seed(3)
    loss = SelfCritical(reward, 4, 20)(captioner, features, photos)
    assert captioner.decoder.training
    loss.total.backward()
    found = captioner.decoder.embedding.weight.grad.clone()

    captioner.decoder.zero_grad()
    captioner.decoder.eval()
    torch.manual_seed(3)
    drawn = draw(captioner.decoder, features, 4, 20)
    rewards = reward(photos.names, drawn.tokens)
    others = torch.stack([rewards[:, [j for j in range(4) if j != k]].mean(1) for k in range(4)], 1)
    prepared, state = captioner.decoder.prepare(features)
    state = type(state)(*(part.expand(-1, 4, -1) for part in state))
    total = torch.zeros(())
    for t in range(drawn.tokens.shape[2]):
        log_probs, state, _ = captioner.decoder.step(drawn.inputs[..., t], prepared, state)
        chosen = policy(log_probs, NEVER).gather(-1, drawn.tokens[..., t : t + 1]).squeeze(-1)
        total = total - ((rewards - others) * chosen)[drawn.tokens[..., t] != PAD].sum()
    total.backward()
    assert loss.total.item() == pytest.approx(total.item(), rel=1e-4)
    assert torch.allclose(found, captioner.decoder.embedding.weight.grad, atol=1e-4)
    assert loss.count == int(drawn.lengths.sum())
    assert loss.shown["reward"] == pytest.approx(rewards.mean().item())
    assert loss.shown["baseline"] == pytest.approx(rewards.mean().item(), abs=1e-5)


def test_cross_entropy_is_mixed_in_per_word(overfitted: CaptionModel) -> None:
    features, photos = batch()
    captioner = deepcopy(overfitted)
    captioner.decoder.train()
    reward = Reward(CAPTIONS, VOCABULARY)
    torch.manual_seed(3)
    alone = SelfCritical(reward, 5, 20)(captioner, features, photos)
    torch.manual_seed(3)
    mixed = SelfCritical(reward, 5, 20, CrossEntropy(0.1), 0.5)(captioner, features, photos)
    written = CrossEntropy(0.1)(captioner, features, photos)
    expected = alone.total / alone.count + 0.5 * written.total / written.count
    assert (mixed.total / mixed.count).item() == pytest.approx(expected.item(), rel=1e-5)


def test_gradients_survive_sampling_under_autocast(overfitted: CaptionModel) -> None:
    features, photos = batch()
    captioner = deepcopy(overfitted)
    objective = SelfCritical(Reward(CAPTIONS, VOCABULARY), 4, 20)
    with torch.autocast("cpu", torch.bfloat16):
        loss = objective(captioner, features.bfloat16(), photos)
    loss.total.backward()
    for name, parameter in captioner.decoder.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
    assert captioner.decoder.state_gates.weight.grad.abs().max() > 0


# --- it works


def test_scst_raises_the_reward_of_an_overfitted_model(overfitted: CaptionModel) -> None:
    """CIDEr-D as a fraction, on 50 photos learnt by heart: samples earn 2 more at least, greedy captions too (2.4 and 2.9 at
    first)."""
    captioner = deepcopy(overfitted)
    reward = Reward(CAPTIONS, VOCABULARY)
    before, greedy_before = rewards_of(captioner, reward)
    torch.manual_seed(0)
    losses = descend(captioner, SelfCritical(reward, 5, 8), 50, 4e-3)
    after, greedy_after = rewards_of(captioner, reward)
    assert after > before + 2
    assert greedy_after > greedy_before + 2
    assert losses[-1].shown["reward"] > losses[0].shown["reward"] + 1.5


def test_a_run_of_scst_resumes(learnt: Path, shapes: Path, tmp_path: Path) -> None:
    sets = [f"init={learnt}", f"encoder.cache={tmp_path / 'cache'}", "training.epochs=2", "training.learning_rate=1e-4"]
    scst = ["training.objective=scst", "scst.max_length=8"]
    recipe = Recipe.load("debug", [*sets, *scst, "scst.cross_entropy_weight=0.1"])
    train(recipe, shapes, tmp_path / "whole", resume=False, report=RecordingReporter())
    with pytest.raises(KeyboardInterrupt):
        train(recipe, shapes, tmp_path / "cut", resume=False, report=RecordingReporter(stop_at="epoch 2"))
    train(recipe, shapes, tmp_path / "cut", resume=True, report=RecordingReporter())
    whole, cut = (checkpoint.newest(tmp_path / run, print).load_model().networks().state_dict() for run in ("whole", "cut"))
    assert all(torch.equal(whole[name], cut[name]) for name in whole)
    lines = [json.loads(line) for line in (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()]
    shown = [line["epoch"] for line in lines if {"reward", "baseline", "length", "cross-entropy"} <= set(line)]
    assert set(shown) == {1, 2}


def test_recipe_of_scst_is_checked() -> None:
    wrong = {
        "scst.samples=1": "greater than or equal to 2",
        "scst.sample=3": "unknown key",
        "scst.samples=4": r"recipe debug: the keys of scst are for training\.objective=scst",
        "training.objective=reinforce": r"training\.objective is 'reinforce'",
    }
    for override, message in wrong.items():
        with pytest.raises(RecipeError, match=message):
            Recipe.load("debug", [override])
