"""Self-critical training: its arithmetic by hand, its samples, and that it raises the reward."""

import json
from copy import deepcopy
from pathlib import Path

import pytest
import torch

from showtell.errors import DataError, RecipeError
from showtell.image import Preprocessing
from showtell.metrics import Cider, NGramTable, SentenceBleu, score
from showtell.nn.attention_lstm import AttentionLSTM, DecoderConfig
from showtell.nn.captioner import CaptionModel
from showtell.nn.resnet import ResNet, ResNetConfig
from showtell.train import checkpoint
from showtell.train.batches import Batch
from showtell.train.checkpoint import load_tensors
from showtell.train.loop import train
from showtell.train.objectives import CrossEntropy
from showtell.train.recipe import Recipe, ScstRecipe
from showtell.train.schedule import stage_of
from showtell.train.scst import Reward, Sampled, SelfCritical, mean_of_others, policy, sample, start_model
from showtell.vocab import BEGIN, END, PAD, UNKNOWN, Vocabulary

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


class Log:
    """Hears what a run reports; `stop_at` raises when a step of that name begins, as a kill would come."""

    def __init__(self, stop_at: str = "") -> None:
        self._stop_at = stop_at

    def message(self, text: str) -> None: ...

    def progress(self, what: str, done: int, total: int, note: str = "") -> None:
        if what == self._stop_at:
            raise KeyboardInterrupt


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
    written = Sampled(tokens)
    features = torch.randn(50, 4, 16, generator=torch.Generator().manual_seed(1))
    return features, Batch(
        tuple(CAPTIONS), features.numpy(), written.inputs, written.lengths, written.targets, torch.ones(len(written.targets))
    )


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
    rewards = reward(photos.names, sample(captioner.decoder.eval(), features, 21, max_length=10, greedy=True).tokens)
    return rewards[:, 1:].mean().item(), rewards[:, 0].mean().item()


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


def test_bleu_is_mixed_in_as_weighted() -> None:
    names = list(CAPTIONS)[:3:2]
    tokens = torch.tensor([[[*VOCABULARY.encode(CAPTIONS[name][k]), END] for k in (0, 1)] for name in names])
    tokens[0, 1, 0] = END
    tokens[0, 1, 1:] = PAD  # a caption of no words
    cider = Reward(CAPTIONS, VOCABULARY)(names, tokens)
    mixed = Reward(CAPTIONS, VOCABULARY, bleu_weight=0.5)(names, tokens)
    assert torch.allclose(mixed - cider, torch.tensor([[0.5, 0.0], [0.5, 0.5]]), atol=1e-4)


def test_sentence_bleu_is_that_of_the_metrics() -> None:
    references = [["a dog runs on the wet grass", "the brown dog runs"], ["a cat", "one cat sits"]]
    candidates = ["a brown dog runs on the grass", "a cat sits there"]
    table = NGramTable()
    bleu = SentenceBleu(table.count([caption.split() for caption in many] for many in references), table)
    ours = bleu.rewards([1, 0, 1], [candidates[1].split(), candidates[0].split(), []])
    named = {str(n): caption for n, caption in enumerate(candidates)}
    theirs = score(named, {str(n): many for n, many in enumerate(references)}, ["bleu"]).results["BLEU-4"]
    assert ours[:2].tolist() == pytest.approx([theirs.images[1], theirs.images[0]])
    assert ours[2] == pytest.approx(0, abs=1e-6)


def test_a_single_photo_is_refused() -> None:
    with pytest.raises(DataError, match="two train photos"):
        Reward({"a.jpg": [["a", "dog"]]}, VOCABULARY)


# --- sampling


def test_forbidden_tokens_are_never_sampled_however_likely() -> None:
    captioner = model()
    with torch.no_grad():
        captioner.decoder.vocabulary_bias[[PAD, BEGIN, UNKNOWN]] = 50.0
        captioner.decoder.vocabulary_bias[END] = 1.0
    drawn = sample(captioner.decoder.eval(), torch.randn(10, 4, 16), 20, max_length=8)
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
    drawn = sample(captioner.decoder.eval(), torch.randn(3, 4, 16), 2, max_length=5)
    assert drawn.lengths.tolist() == [[5, 5]] * 3
    assert not (drawn.tokens == END).any()


def test_samples_follow_the_policy() -> None:
    captioner = model()
    decoder, features = captioner.decoder.eval(), torch.randn(1, 4, 16)
    torch.manual_seed(0)
    drawn = sample(decoder, features, 20_000, max_length=1, temperature=2.0)
    counts = torch.bincount(drawn.tokens[0, :, 0], minlength=len(VOCABULARY)) / 20_000
    prepared, state = decoder.prepare(features)
    with torch.no_grad():
        log_probs, _, _ = decoder.step(torch.tensor([[BEGIN]]), prepared, state)
    expected = log_probs[0, 0] / 2
    expected[[PAD, BEGIN, UNKNOWN]] = -torch.inf
    assert torch.allclose(counts, expected.softmax(-1), atol=0.012)  # over three standard errors
    assert torch.allclose(policy(log_probs[0, 0], 2.0).exp(), expected.softmax(-1), atol=1e-6)


def test_the_greedy_caption_comes_first_and_is_the_likeliest_word_by_word(overfitted: CaptionModel) -> None:
    features, _ = batch()
    decoder = overfitted.decoder.eval()
    first = sample(decoder, features, 3, max_length=10, greedy=True).tokens[:, 0]
    again = sample(decoder, features, 1, max_length=10, greedy=True).tokens[:, 0]
    width = min(first.shape[1], again.shape[1])
    assert torch.equal(first[:, :width], again[:, :width])
    written = Sampled(again.unsqueeze(1))
    with torch.no_grad():
        likeliest = policy(decoder(features, written.inputs, written.lengths)).argmax(-1)
    assert torch.equal(likeliest, written.targets)


# --- the loss


def test_gradient_is_that_of_the_advantages(overfitted: CaptionModel) -> None:
    """The objective's gradient equals that of -sum(advantage x log p) written down anew, dropout or not."""
    features, photos = batch()
    captioner = model(dropout=0.5)
    captioner.decoder.load_state_dict(overfitted.decoder.state_dict())
    captioner.decoder.train()
    reward = Reward(CAPTIONS, VOCABULARY)
    torch.manual_seed(3)
    loss = SelfCritical(ScstRecipe(samples=4), reward)(captioner, features, photos)
    assert captioner.decoder.training
    loss.total.backward()
    found = captioner.decoder.embedding.weight.grad.clone()

    captioner.decoder.zero_grad()
    captioner.decoder.eval()
    torch.manual_seed(3)
    drawn = sample(captioner.decoder, features, 4, max_length=20)
    rewards = reward(photos.names, drawn.tokens)
    others = torch.stack([rewards[:, [j for j in range(4) if j != k]].mean(1) for k in range(4)], 1)
    prepared, state = captioner.decoder.prepare(features)
    state = type(state)(*(part.expand(-1, 4, -1) for part in state))
    total = torch.zeros(())
    for t in range(drawn.tokens.shape[2]):
        log_probs, state, _ = captioner.decoder.step(drawn.inputs[..., t], prepared, state)
        chosen = policy(log_probs).gather(-1, drawn.tokens[..., t : t + 1]).squeeze(-1)
        total = total - ((rewards - others) * chosen)[drawn.tokens[..., t] != PAD].sum()
    total.backward()
    assert loss.total.item() == pytest.approx(total.item(), rel=1e-4)
    assert torch.allclose(found, captioner.decoder.embedding.weight.grad, atol=1e-4)
    assert loss.count == int(drawn.lengths.sum())
    assert loss.shown["reward"] == pytest.approx(rewards.mean().item())
    assert loss.shown["baseline"] == pytest.approx(rewards.mean().item(), abs=1e-5)


def test_divergence_is_zero_at_the_start_and_only_there(overfitted: CaptionModel, tmp_path: Path) -> None:
    features, photos = batch()
    captioner = deepcopy(overfitted)
    objective = SelfCritical(
        ScstRecipe(samples=3, kl_weight=1.0),
        Reward(CAPTIONS, VOCABULARY),
        start=start_model(captioner.decoder, tmp_path / "start"),
    )
    assert objective(captioner, features, photos).shown["kl"] == pytest.approx(0, abs=1e-6)
    with torch.no_grad():
        captioner.decoder.vocabulary_bias += torch.randn_like(captioner.decoder.vocabulary_bias)
    assert objective(captioner, features, photos).shown["kl"] > 0.05


def test_cross_entropy_is_mixed_in_per_word(overfitted: CaptionModel) -> None:
    features, photos = batch()
    captioner = deepcopy(overfitted)
    captioner.decoder.train()
    reward = Reward(CAPTIONS, VOCABULARY)
    torch.manual_seed(3)
    alone = SelfCritical(ScstRecipe(), reward)(captioner, features, photos)
    torch.manual_seed(3)
    mixed = SelfCritical(ScstRecipe(cross_entropy_weight=0.5), reward, cross_entropy=CrossEntropy(0.1))(
        captioner, features, photos
    )
    written = CrossEntropy(0.1)(captioner, features, photos)
    expected = alone.total / alone.count + 0.5 * written.total / written.count
    assert (mixed.total / mixed.count).item() == pytest.approx(expected.item(), rel=1e-5)


def test_gradients_survive_sampling_under_autocast(overfitted: CaptionModel, tmp_path: Path) -> None:
    features, photos = batch()
    captioner = deepcopy(overfitted)
    start = start_model(captioner.decoder, tmp_path / "start")
    objective = SelfCritical(ScstRecipe(samples=4, kl_weight=0.1), Reward(CAPTIONS, VOCABULARY), start)
    with torch.autocast("cpu", torch.bfloat16):
        loss = objective(captioner, features.bfloat16(), photos)
    loss.total.backward()
    for name, parameter in captioner.decoder.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
    assert captioner.decoder.state_gates.weight.grad.abs().max() > 0


# --- it works


@pytest.mark.parametrize("baseline", ["samples", "greedy"])
def test_scst_raises_the_reward_of_an_overfitted_model(overfitted: CaptionModel, baseline: str) -> None:
    """CIDEr-D as a fraction, on 50 photos learnt by heart: samples earn 2 more at least, greedy captions too (2.4 and 2.9 at
    first)."""
    captioner = deepcopy(overfitted)
    reward = Reward(CAPTIONS, VOCABULARY)
    before, greedy_before = rewards_of(captioner, reward)
    torch.manual_seed(0)
    losses = descend(captioner, SelfCritical(ScstRecipe(max_length=8, baseline=baseline), reward), 50, 4e-3)
    after, greedy_after = rewards_of(captioner, reward)
    assert after > before + 2
    assert greedy_after > greedy_before + 2
    assert losses[-1].shown["reward"] > losses[0].shown["reward"] + 1.5


def test_divergence_holds_the_model_near_its_start(overfitted: CaptionModel, tmp_path: Path) -> None:
    features, photos = batch()
    reward = Reward(CAPTIONS, VOCABULARY)
    start = start_model(overfitted.decoder, tmp_path / "start")

    def distance(weight: float) -> float:
        """Nats per sampled word between start and model after 15 steps with the term weighted so."""
        captioner = deepcopy(overfitted)
        torch.manual_seed(0)
        descend(captioner, SelfCritical(ScstRecipe(samples=3, max_length=8, kl_weight=weight), reward, start), 15, 3e-3)
        probe = SelfCritical(ScstRecipe(samples=3, max_length=8, kl_weight=1.0), reward, start)
        return probe(captioner, features, photos).shown["kl"]

    assert distance(10.0) < distance(0.0) / 2


def test_the_start_model_stays_what_it_was(overfitted: CaptionModel, tmp_path: Path) -> None:
    captioner = deepcopy(overfitted)
    first = start_model(captioner.decoder, tmp_path / "start")
    with torch.no_grad():
        captioner.decoder.vocabulary_bias += 1
    for start in (first, start_model(captioner.decoder, tmp_path / "start")):
        assert torch.equal(start.vocabulary_bias, overfitted.decoder.vocabulary_bias)
        assert not any(parameter.requires_grad for parameter in start.parameters())
        assert not start.training


def test_scst_is_the_last_stage_of_a_run_and_resumes(learnt: Path, shapes: Path, tmp_path: Path) -> None:
    sets = [f"init={learnt}", f"encoder.cache={tmp_path / 'cache'}", "training.epochs=4", "training.learning_rate=1e-3"]
    scst = ["scst.from_epoch=3", "scst.learning_rate=1e-4", "scst.max_length=8", "scst.kl_weight=0.1"]
    recipe = Recipe.load("debug", [*sets, *scst, "scst.cross_entropy_weight=0.1", "scst.bleu_weight=0.5"])
    train(recipe, shapes, tmp_path / "whole", resume=False, report=Log())
    with pytest.raises(KeyboardInterrupt):
        train(recipe, shapes, tmp_path / "cut", resume=False, report=Log(stop_at="epoch 4"))
    train(recipe, shapes, tmp_path / "cut", resume=True, report=Log())
    whole, cut = (checkpoint.newest(tmp_path / run, print).load_model().networks().state_dict() for run in ("whole", "cut"))
    assert all(torch.equal(whole[name], cut[name]) for name in whole)
    lines = [json.loads(line) for line in (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()]
    shown = [line["epoch"] for line in lines if {"reward", "baseline", "length", "kl", "cross-entropy"} <= set(line)]
    assert set(shown) == {3, 4}
    start = load_tensors(tmp_path / "whole" / "scst-start.safetensors")
    assert not torch.equal(start["embedding.weight"], whole["decoder.embedding.weight"])
    rates = [stage_of(recipe, epoch) for epoch in range(1, 5)]
    assert [(stage.name, stage.first, stage.epochs) for stage in rates] == [("cross-entropy", 1, 2)] * 2 + [("scst", 3, 2)] * 2
    assert [stage.scale for stage in rates] == pytest.approx([1, 1, 0.1, 0.1])


def test_recipe_of_scst_is_checked() -> None:
    assert Recipe.load("debug", ["scst.from_epoch=2", "scst.baseline=greedy", "scst.samples=1"]).scst.samples == 1
    wrong = {
        "scst.samples=1": "greedy",
        "scst.baseline=mean": "baseline",
        "scst.sample=3": "unknown key",
        "scst.from_epoch=4": r"recipe debug: scst\.from_epoch is 4, after the last of 3 epochs",
    }
    for override, message in wrong.items():
        with pytest.raises(RecipeError, match=message):
            Recipe.load("debug", [override])
