"""Self-critical sequence training, SCST (Rennie et al. 2017): policy gradient with CIDEr-D as the reward.

Several captions of each photo are sampled from the model. Their reward is CIDEr-D against the photo's train captions, with
document frequencies of the train photos. The baseline of a sample is the mean reward of the photo's other samples (Luo 2020, "A
Better Variant of Self-Critical Sequence Training").

The end token counts as a word of candidates and references, so that a truncated caption ("a dog in a") earns less than a whole
one. Without it, SCST learns to leave sentences unfinished (Hu, Cavicchioli and Capotondi 2023, arXiv 2305.12254).

Shapes: B photos, K sampled captions of each, T steps of the longest, N tokens of all samples together, V words.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from showtell.errors import DataError
from showtell.metrics import Cider, NGramTable
from showtell.nn.decoders import Decoder
from showtell.nn.model import CaptionModel
from showtell.train.inputs.batches import Batch, Captions
from showtell.train.objectives.cross_entropy import Loss, Objective
from showtell.vocabulary import END, PAD, SPECIAL, Vocabulary

_IMPOSSIBLE = -1e9  # log-probability of barred tokens: its exponential is 0, and unlike -inf it can be subtracted


@dataclass(frozen=True)
class Sampled:
    """K sampled captions of each of B photos."""

    tokens: Tensor  # (B, K, T) int64: words, the end token unless the caption was cut off, padding
    begin: Tensor  # (B, 1) int64: the first token of each photo's captions

    @property
    def lengths(self) -> Tensor:
        """Tokens of each caption, its end included: int64 (B, K)."""
        return (self.tokens != PAD).sum(-1)

    @property
    def inputs(self) -> Tensor:
        """Decoder inputs, the token before each token: int64 (B, K, T)."""
        return torch.cat([self.begin.unsqueeze(1).expand(-1, self.tokens.shape[1], 1), self.tokens[..., :-1]], -1)

    @property
    def targets(self) -> Tensor:
        """All tokens without padding: int64 (N,)."""
        return self.tokens[self.tokens != PAD]


def policy(scores: Tensor, never: Sequence[int]) -> Tensor:
    """Log-probabilities (..., V) of the sampling policy, from the decoder's scores or log-probabilities (..., V).

    Tokens in `never` have probability 0.
    """
    scores = scores.float()
    forbidden = torch.zeros(scores.shape[-1], dtype=torch.bool, device=scores.device)
    forbidden[list(never)] = True
    return F.log_softmax(scores.masked_fill(forbidden, _IMPOSSIBLE), dim=-1)


@torch.no_grad()
def sample(decoder: Decoder, features: Tensor, begin: Tensor, never: Sequence[int], count: int, *, max_length: int) -> Sampled:
    """Samples `count` captions of at most `max_length` words for each photo, from grid features float32 (B, G, D).

    `begin` int64 (B, 1) is the first token of each photo's captions; tokens in `never` are not sampled. A caption without an
    end token after `max_length` words is cut off.
    """
    start: tuple[Any, Any] = decoder.prepare(features)
    prepared, state = start
    state = type(state)(*(part.expand(-1, count, *part.shape[2:]) for part in state))
    going = torch.arange(len(features), device=features.device)  # photos with a caption that has not ended
    tokens = torch.full((len(features), count, max_length + 1), PAD, device=features.device)
    last = begin.expand(-1, count)
    ended = torch.zeros_like(last, dtype=torch.bool)
    for t in range(max_length + 1):
        log_probs, state, _ = decoder.step(last, prepared, state)
        log_probs = policy(log_probs, never)
        noise = -torch.empty_like(log_probs).exponential_().log()  # Gumbel noise: the maximum is a draw from the softmax
        last = (log_probs + noise).argmax(-1)
        ending = last == END
        tokens[going, :, t] = last.masked_fill(ended | (~ending if t == max_length else ended), PAD)
        ended = ended | ending
        live = ~ended.all(1)
        if not live.any():
            break
        if not live.all():
            going, last, ended = going[live], last[live], ended[live]
            prepared = type(prepared)(*(part[live] for part in prepared))
            state = type(state)(*(part[live] for part in state))
    # Autocast caches low-precision copies of weights; those made here have no gradients.
    torch.clear_autocast_cache()
    return Sampled(tokens[..., : t + 1], begin)


class Reward:
    """CIDEr-D of token ids against the train captions, the end token counted as a word.

    `captions` are the tokenised train captions by photo name; document frequencies are those of the photo's style.
    """

    def __init__(self, captions: Captions, vocabulary: Vocabulary) -> None:
        if len(captions) < 2:
            raise DataError("self-critical training needs two train photos at least: n-grams of all photos weigh nothing")
        self._words = vocabulary.words
        table = NGramTable()
        styles = {name: vocabulary.split_style(many[0])[0] for name, many in captions.items()}
        # Document frequencies depend on the data set: each style has its own.
        self._scorers: dict[str, tuple[Cider, int]] = {}
        for style in sorted(set(styles.values())):
            names = [name for name in captions if styles[name] == style]
            written = [[[*vocabulary.split_style(tokens)[1], SPECIAL[END]] for tokens in captions[name]] for name in names]
            cider = Cider(table.count(written), table)
            self._scorers.update((name, (cider, row)) for row, name in enumerate(names))

    def __call__(self, names: Sequence[str], tokens: Tensor) -> Tensor:
        """Rewards float32 (B, K) of captions int64 (B, K, T) of the named photos; a person's caption has about 1."""
        words = self._words
        rewards = torch.zeros(tokens.shape[:2])
        scorers = {id(cider): cider for cider, _ in (self._scorers[name] for name in names)}
        for cider in scorers.values():
            photos = [photo for photo, name in enumerate(names) if self._scorers[name][0] is cider]
            captions = [[words[i] for i in caption if i != PAD] for many in tokens[photos].tolist() for caption in many]
            rows = [self._scorers[names[photo]][1] for photo in photos for _ in range(tokens.shape[1])]
            rewards[photos] = torch.from_numpy(cider.rewards(rows, captions)).float().view(len(photos), -1)
        return rewards.to(tokens.device)


def mean_of_others(rewards: Tensor) -> Tensor:
    """Baselines (B, K) of rewards (B, K): the mean reward of the photo's other samples; K is at least 2."""
    return (rewards.sum(1, keepdim=True) - rewards) / (rewards.shape[1] - 1)


@dataclass(frozen=True)
class SelfCritical:
    """The negative expected reward, by its policy gradient: -(reward - baseline) log p(caption), per sampled token.

    Dropout is off when captions are sampled and when they are scored. The scored distribution is then the one that they were
    sampled from, forbidden tokens included, as the policy gradient theorem requires. Dropout stays on in the cross-entropy
    term.
    """

    reward: Reward
    samples: int  # of each photo
    max_length: int  # words after which a sample is broken off
    cross_entropy: Objective | None = None  # added with cross_entropy_weight
    cross_entropy_weight: float = 0.0
    descends: ClassVar[bool] = False  # the loss has no level; the reward rises

    def __call__(self, model: CaptionModel, features: Tensor, batch: Batch) -> Loss:
        """See Objective. Shows the mean reward of the samples, their baseline and their mean length in words."""
        decoder = model.decoder
        training = decoder.training
        decoder.eval()
        try:
            never = model.vocabulary.search_tokens().never
            begin = batch.inputs[:, 0, :1]
            sampled = sample(decoder, features.detach(), begin, never, self.samples, max_length=self.max_length)
            rewards = self.reward(batch.names, sampled.tokens)
            baseline = mean_of_others(rewards)
            lengths, targets = sampled.lengths, sampled.targets
            inputs = sampled.inputs[..., : int(lengths.max())]
            log_probs = policy(decoder(features, inputs, lengths), never)
        finally:
            decoder.train(training)
        chosen = log_probs.gather(-1, targets.unsqueeze(-1)).squeeze(-1)
        advantage = (rewards - baseline).flatten().repeat_interleave(lengths.flatten())
        total = -(advantage * chosen).sum()
        shown = {
            "reward": rewards.mean().item(),
            "baseline": baseline.mean().item(),
            "length": ((sampled.tokens != PAD) & (sampled.tokens != END)).sum(-1).float().mean().item(),
        }
        if self.cross_entropy is not None:
            written = self.cross_entropy(model, features, batch)
            # Each part is a mean over its own words: those of the samples, those of the train captions.
            total = total + self.cross_entropy_weight * written.total * (len(targets) / written.count)
            shown["cross-entropy"] = written.total.item() / written.count
        return Loss(total, len(targets), shown)
