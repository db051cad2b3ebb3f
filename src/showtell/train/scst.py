"""Self-critical sequence training, SCST (Rennie et al. 2017): sampled captions that beat their like are made likelier.

Several captions of each photo are drawn from the model and rewarded by CIDEr-D against the photo's train captions, n-grams
weighted by how few train photos they describe. What counts is the advantage over a baseline: the mean reward of the photo's
other samples (Luo 2020, "A Better Variant of Self-Critical Sequence Training"), or the reward of its greedy caption (Rennie).

The end token is a word of candidates and references alike, so that a caption broken off ("a dog in a") earns less than a whole
one; without it SCST learns to leave sentences unfinished (Hu, Cavicchioli and Capotondi 2023, arXiv 2305.12254).

Shapes: B photos, K sampled captions of each, T steps of the longest, N tokens of all samples together, V words.
"""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from showtell.errors import DataError
from showtell.files import replacing
from showtell.metrics import Cider, NGramTable, SentenceBleu
from showtell.metrics.result import Tokens
from showtell.nn.captioner import CaptionModel
from showtell.nn.decoders import Decoder
from showtell.train.batches import Batch
from showtell.train.checkpoint import load_tensors
from showtell.train.objectives import Loss, Objective
from showtell.train.recipe import ScstRecipe
from showtell.vocab import BEGIN, END, PAD, SEARCH_TOKENS, SPECIAL, Vocabulary

_IMPOSSIBLE = -1e9  # log-probability of what is never sampled: its exponential is 0, and unlike -inf it can be subtracted


@dataclass(frozen=True)
class Sampled:
    """K captions of each of B photos, as drawn."""

    tokens: Tensor  # (B, K, T) int64: words, then the end unless the caption was broken off, then padding

    @property
    def lengths(self) -> Tensor:
        """Tokens of each caption, its end included: int64 (B, K)."""
        return (self.tokens != PAD).sum(-1)

    @property
    def inputs(self) -> Tensor:
        """What the decoder reads before each token: int64 (B, K, T)."""
        return torch.cat([torch.full_like(self.tokens[..., :1], BEGIN), self.tokens[..., :-1]], -1)

    @property
    def targets(self) -> Tensor:
        """All tokens without padding: int64 (N,)."""
        return self.tokens[self.tokens != PAD]


def policy(scores: Tensor, temperature: float = 1.0) -> Tensor:
    """Log-probabilities (..., V) by which captions are sampled, from the decoder's scores or log-probabilities (..., V).

    Padding, begin and unknown have none.
    """
    scores = scores.float() / temperature
    never = torch.zeros(scores.shape[-1], dtype=torch.bool, device=scores.device)
    never[list(SEARCH_TOKENS.never)] = True
    return F.log_softmax(scores.masked_fill(never, _IMPOSSIBLE), dim=-1)


@torch.no_grad()
def sample(
    decoder: Decoder, features: Tensor, count: int, *, max_length: int, temperature: float = 1.0, greedy: bool = False
) -> Sampled:
    """Draws `count` captions of at most `max_length` words for each photo, from grid features float32 (B, 49, 2048).

    With `greedy` the first of them is the likeliest word by word instead. A caption that has not ended after `max_length`
    words goes without its end.
    """
    start: tuple[Any, Any] = decoder.prepare(features)
    prepared, state = start
    state = type(state)(*(part.expand(-1, count, *part.shape[2:]) for part in state))
    going = torch.arange(len(features), device=features.device)  # photos with a caption that has not ended
    tokens = torch.full((len(features), count, max_length + 1), PAD, device=features.device)
    last = torch.full_like(tokens[..., 0], BEGIN)
    ended = torch.zeros_like(last, dtype=torch.bool)
    for t in range(max_length + 1):
        log_probs, state, _ = decoder.step(last, prepared, state)
        log_probs = policy(log_probs, temperature)
        noise = -torch.empty_like(log_probs).exponential_().log()  # Gumbel noise: the maximum is a draw from the softmax
        if greedy:
            noise[:, 0] = 0
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
    # Autocast keeps the low-precision copies of weights that it has made; those made here would give no gradients later.
    torch.clear_autocast_cache()
    return Sampled(tokens[..., : t + 1])


class Reward:
    """CIDEr-D, and a share of sentence BLEU-4, of token ids against the train captions, the end token counted as a word.

    `captions` are the tokenised train captions by photo name; document frequencies are theirs.
    """

    def __init__(self, captions: Mapping[str, Sequence[Tokens]], vocabulary: Vocabulary, bleu_weight: float = 0.0) -> None:
        if len(captions) < 2:
            raise DataError("self-critical training needs two train photos at least: n-grams of all photos weigh nothing")
        self._rows = {name: row for row, name in enumerate(captions)}
        self._words = vocabulary.words
        table = NGramTable()
        references = table.count([[*words, SPECIAL[END]] for words in many] for many in captions.values())
        self._cider = Cider(references, table)
        self._bleu = SentenceBleu(references, table) if bleu_weight > 0 else None
        self._bleu_weight = bleu_weight

    def __call__(self, names: Sequence[str], tokens: Tensor) -> Tensor:
        """Rewards float32 (B, K) of captions int64 (B, K, T) of the named photos; about 1 is a caption by a person."""
        words = self._words
        captions = [[words[i] for i in caption if i != PAD] for many in tokens.tolist() for caption in many]
        rows = [self._rows[name] for name in names for _ in range(tokens.shape[1])]
        rewards = self._cider.rewards(rows, captions)
        if self._bleu is not None:
            rewards = rewards + self._bleu_weight * self._bleu.rewards(rows, captions)
        return torch.from_numpy(rewards).float().view(tokens.shape[:2]).to(tokens.device)


def mean_of_others(rewards: Tensor) -> Tensor:
    """For each of a photo's samples the mean reward of its other samples: (B, K) to (B, K), K at least 2."""
    return (rewards.sum(1, keepdim=True) - rewards) / (rewards.shape[1] - 1)


@dataclass(frozen=True)
class SelfCritical:
    """The negative expected reward, by its policy gradient: -(reward - baseline) log p(caption), per sampled token.

    Dropout is off where captions are drawn and where they are scored: what is scored is then the very distribution that they
    were drawn from, temperature and forbidden tokens included, as the policy gradient theorem asks. It stays on in the
    cross-entropy term.

    `start` adds `kl_weight` times the divergence KL(policy || start) of the next word's distribution, summed over the whole
    vocabulary at each sampled token. It is 0 as long as the policy is the start model.
    """

    options: ScstRecipe
    reward: Reward
    start: Decoder | None = None  # frozen; needed where kl_weight is above 0
    cross_entropy: Objective | None = None  # needed where cross_entropy_weight is above 0
    descends: ClassVar[bool] = False  # the loss has no level of its own: it is the reward that rises

    def __call__(self, model: CaptionModel, features: Tensor, batch: Batch) -> Loss:
        """See Objective. Shows the mean reward of the samples, their baseline and their mean length in words."""
        options, decoder = self.options, model.decoder
        training = decoder.training
        decoder.eval()
        try:
            greedy = options.baseline == "greedy"
            drawn = sample(
                decoder,
                features.detach(),
                options.samples + greedy,
                max_length=options.max_length,
                temperature=options.temperature,
                greedy=greedy,
            ).tokens
            rewards = self.reward(batch.names, drawn)
            if greedy:
                sampled, baseline, rewards = Sampled(drawn[:, 1:]), rewards[:, :1].expand(-1, options.samples), rewards[:, 1:]
            else:
                sampled, baseline = Sampled(drawn), mean_of_others(rewards)
            lengths, targets = sampled.lengths, sampled.targets
            inputs = sampled.inputs[..., : int(lengths.max())]
            log_probs = policy(decoder(features, inputs, lengths), options.temperature)
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
        if options.kl_weight > 0 and self.start is not None:
            with torch.no_grad():
                start = policy(self.start(features, inputs, lengths), options.temperature)
            torch.clear_autocast_cache()
            divergence = (log_probs.exp() * (log_probs - start)).sum()
            total = total + options.kl_weight * divergence
            shown["kl"] = divergence.item() / len(targets)
        if options.cross_entropy_weight > 0 and self.cross_entropy is not None:
            written = self.cross_entropy(model, features, batch)
            # Both parts are means over their own words: the one of the samples, the other of the train captions.
            total = total + options.cross_entropy_weight * written.total * (len(targets) / written.count)
            shown["cross-entropy"] = written.total.item() / written.count
        return Loss(total, len(targets), shown)


def start_model(decoder: Decoder, file: Path) -> Decoder:
    """A copy of the decoder that does not change and has no dropout, to hold the model near.

    The first call writes its weights to `file`; later ones take them from there, so that a resumed run is held near the same
    model as an uninterrupted one.
    """
    start = deepcopy(decoder).requires_grad_(False).eval()
    if file.exists():
        start.load_state_dict(load_tensors(file))
        return start
    with replacing(file) as temporary:
        save_file({name: value.contiguous() for name, value in start.state_dict().items()}, temporary)
    return start
