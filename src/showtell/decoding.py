"""Greedy, sampled and beam search for captions, in numpy, over any model that predicts one token at a time.

A model offers three operations (`StepModel`); torch and onnxruntime models both implement them, so what validation measures
is what the product does. Arrays are shaped (photos B, hypotheses K, ...). Photos whose search has ended leave the batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

from showtell.arrays import Array
from showtell.types import DecodeOptions

_BLOCK = 32  # tokens; about the square root of a vocabulary, so that there are as many blocks as tokens in one


class Step(NamedTuple):
    """What a model says after reading one token for each hypothesis."""

    log_probs: Array  # (B, K, vocabulary) float32, natural logarithm
    state: Any
    attention: Array | None  # (B, K, 49) float32, each row sums to 1; None where the model does not attend


class StepModel(Protocol):
    """One token at a time. A state belongs to B photos with K hypotheses each; only the model looks inside it."""

    def start(self, features: Array) -> Any:
        """State of B photos with one empty hypothesis each, from grid features (B, 49, 2048)."""
        ...

    def step(self, tokens: Array, state: Any) -> Step:
        """Reads the last token of each hypothesis, int64 (B, K), and predicts the next."""
        ...

    def reorder(self, state: Any, photos: Array, hypotheses: Array) -> Any:
        """State of photos `photos` (B',) of `state`, each with its hypotheses `hypotheses` (B', K').

        A photo i below B' that goes on keeps its place: `photos[i]` is i. So only photos that fill a gap need be moved, and
        that may be done within `state`, which is of no use afterwards.
        """
        ...


@dataclass(frozen=True, slots=True)
class SearchTokens:
    """Ids with a meaning to the search; ids in `never` are not emitted.

    Where words are not to be repeated, those in `may_repeat` still may, and `conjunction` is "and", or -1 where there is none.
    """

    begin: int
    end: int
    never: tuple[int, ...]
    may_repeat: tuple[int, ...] = ()
    conjunction: int = -1


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """A caption as token ids, begin and end left out. `log_prob` is the sum over its tokens, the end's included."""

    tokens: tuple[int, ...]
    log_prob: float
    finished: bool

    @property
    def length(self) -> int:
        """Number of log-probabilities in the sum."""
        return len(self.tokens) + self.finished

    @property
    def score(self) -> float:
        """Mean log-probability per token."""
        return self.log_prob / self.length

    def rank(self, length_penalty: float) -> float:
        """What hypotheses are compared by; higher is better."""
        return float(self.log_prob / self.length**length_penalty)


def search(model: StepModel, features: Array, tokens: SearchTokens, options: DecodeOptions) -> list[list[Hypothesis]]:
    """The `options.num_captions` best hypotheses of each photo, best first, from grid features (B, 49, 2048).

    Finished hypotheses come before those that reached `max_length` without an end, which only stand in where too few ended.
    A list is shorter than asked only where the vocabulary allows fewer captions.
    """
    if len(features) == 0:
        return []
    if options.sample or options.beam_size == 1:
        found = _roll(model, features, tokens, options)
    else:
        found = _beam(model, features, tokens, options)

    def order(hypothesis: Hypothesis) -> tuple[bool, float]:
        return hypothesis.finished, hypothesis.rank(options.length_penalty)

    return [sorted(hypotheses, key=order, reverse=True)[: options.num_captions] for hypotheses in found]


def _roll(model: StepModel, features: Array, ids: SearchTokens, options: DecodeOptions) -> list[list[Hypothesis]]:
    """Greedy search, or `num_captions` samples a photo: each hypothesis goes its own way to its end."""
    photos, count = len(features), options.num_captions
    # Each photo draws for itself, so that its captions do not depend on those beside it.
    rngs = [np.random.default_rng(options.seed) for _ in range(photos)]
    state = model.reorder(model.start(features), np.arange(photos), np.zeros((photos, count), np.int64))
    last = np.full((photos, count), ids.begin)
    words = np.zeros((photos, count, 0), np.int64)
    sums = np.zeros((photos, count))
    ended = np.zeros((photos, count), bool)
    found: list[list[Hypothesis]] = [[] for _ in range(photos)]
    where = np.arange(photos)  # which photo each row of the batch is
    for length in range(options.max_length + 1):
        step = model.step(last, state)
        log_probs = _allowed(step.log_probs, words, ids, options)[..., : step.log_probs.shape[-1]]
        last = _draw(log_probs, options, [rngs[photo] for photo in where]) if options.sample else log_probs.argmax(-1)
        gained = np.take_along_axis(log_probs, last[..., None], -1)[..., 0].astype(np.float64)
        possible = np.isfinite(gained)  # not so where every word is forbidden
        ending = possible & (last == ids.end)
        # What cannot go on, or has no room left, stays unfinished.
        stopping = ~ended & (ending | ~possible | (length == options.max_length))
        for row, k in np.argwhere(stopping):
            finished = bool(ending[row, k])
            log_prob = float(sums[row, k] + (gained[row, k] if finished else 0))
            found[where[row]].append(Hypothesis(tuple(words[row, k].tolist()), log_prob, finished))
        ended = ended | stopping
        live = _without_gaps(np.flatnonzero(~ended.all(1)))
        if len(live) == 0:
            break
        words = np.concatenate([words, last[..., None]], -1)[live]
        sums = np.where(ended, sums, sums + gained)[live]
        last, ended, where = last[live], ended[live], where[live]
        state = model.reorder(step.state, live, np.tile(np.arange(count), (len(live), 1)))
    return found


def _draw(log_probs: Array, options: DecodeOptions, rngs: Sequence[np.random.Generator]) -> Array:
    """One token id for each hypothesis, by temperature and nucleus sampling (Holtzman et al. 2020): (B, K)."""
    scaled = log_probs.astype(np.float64) / options.temperature
    with np.errstate(invalid="ignore"):  # infinite less infinite, where every word is forbidden
        scaled = scaled - scaled.max(-1, keepdims=True)
    if options.top_p < 1:
        order = np.argsort(-scaled, -1, kind="stable")
        probs = np.exp(np.take_along_axis(scaled, order, -1))
        before = np.cumsum(probs, -1) - probs  # mass of the tokens ahead: the first is always kept
        outside = before >= options.top_p * probs.sum(-1, keepdims=True)
        np.put_along_axis(scaled, order, np.where(outside, -np.inf, np.take_along_axis(scaled, order, -1)), -1)
    noise = np.stack([rng.gumbel(size=scaled.shape[1:]) for rng in rngs])
    drawn: Array = (scaled + noise).argmax(-1)  # the Gumbel-max trick draws from the softmax
    return drawn


def _beam(model: StepModel, features: Array, ids: SearchTokens, options: DecodeOptions) -> list[list[Hypothesis]]:
    """Beam search: of all one-token extensions of a photo's hypotheses the best `beam_size` go on.

    An end among the best `beam_size` extensions finishes a hypothesis. A photo is done when it has `beam_size` finished ones
    and the best of those going on ranks below them all.
    """
    photos, beam = len(features), options.beam_size
    state = model.start(features)
    last = np.full((photos, 1), ids.begin)
    words = np.zeros((photos, 1, 0), np.int64)
    sums = np.zeros((photos, 1))
    found: list[list[Hypothesis]] = [[] for _ in range(photos)]
    where = np.arange(photos)
    for length in range(1, options.max_length + 2):
        step = model.step(last, state)
        # Twice the beam: even if half of them end, enough are left to go on.
        flat, parents, tokens = _best_extensions(sums, _allowed(step.log_probs, words, ids, options), 2 * beam)
        ending = tokens == ids.end
        for row, place in np.argwhere(ending[:, :beam] & np.isfinite(flat[:, :beam])):
            hypothesis = Hypothesis(tuple(words[row, parents[row, place]].tolist()), float(flat[row, place]), True)
            found[where[row]].append(hypothesis)
        if length > options.max_length:
            break
        going = np.argsort(ending, axis=1, kind="stable")[:, :beam]  # those that do not end, best first
        flat = np.where(np.take_along_axis(ending, going, 1), -np.inf, np.take_along_axis(flat, going, 1))
        parents, tokens = np.take_along_axis(parents, going, 1), np.take_along_axis(tokens, going, 1)
        going_on = [row for row in range(len(where)) if not _done(found[where[row]], flat[row].max(), length, options)]
        live = _without_gaps(np.array(going_on, int))
        if len(live) == 0:
            return found
        # What stands for no extension, where there are fewer than the beam is wide, reads a word that every model knows.
        tokens = np.where(np.isfinite(flat), tokens, ids.begin)
        parents, last, sums, where = parents[live], tokens[live], flat[live], where[live]
        words = np.concatenate([words[live[:, None], parents], last[..., None]], -1)
        state = model.reorder(step.state, live, parents)
    for row, k in np.argwhere(np.isfinite(sums)):
        found[where[row]].append(Hypothesis(tuple(words[row, k].tolist()), float(sums[row, k]), False))
    return found


def _without_gaps(live: Array) -> Array:
    """These row numbers, all different, in an order in which those below their count are at their own place."""
    order = np.arange(len(live))
    order[~np.isin(order, live)] = live[live >= len(live)]
    return order


def _done(finished: Sequence[Hypothesis], best_sum: float, length: int, options: DecodeOptions) -> bool:
    """Whether a photo's search can stop: `best_sum` is the highest sum among hypotheses of `length` words that go on."""
    if not np.isfinite(best_sum):
        return True
    if len(finished) < options.beam_size:
        return False
    ranks = sorted((hypothesis.rank(options.length_penalty) for hypothesis in finished), reverse=True)
    return bool(best_sum / length**options.length_penalty <= ranks[options.beam_size - 1])


def _best_extensions(sums: Array, log_probs: Array, count: int) -> tuple[Array, Array, Array]:
    """The `count` best one-token extensions of each photo's hypotheses: their sums, hypotheses and tokens, (B, count) each.

    `sums` float64 (B, K) are the hypotheses' own, `log_probs` float32 (B, K, V padded by `_allowed`) the tokens'. The best
    extensions lie in the `count` blocks of tokens whose best is best, so only those are looked at one by one.
    """
    photos, hypotheses, vocabulary = log_probs.shape
    blocks = log_probs.reshape(
        photos, hypotheses, _BLOCK, vocabulary // _BLOCK
    )  # token t is in block t % (vocabulary // _BLOCK)
    _, chosen = _top((sums[..., None] + blocks.max(2)).reshape(photos, -1), count)
    chosen.sort(1)
    parents, block = np.divmod(chosen, blocks.shape[-1])
    rows = np.arange(photos)[:, None]
    values = sums[rows, parents, None] + blocks[rows, parents, :, block]  # (B, blocks chosen, _BLOCK)
    best, places = _top(values.reshape(photos, -1), count)
    among, within = np.divmod(places, _BLOCK)
    return best, parents[rows, among], within * blocks.shape[-1] + block[rows, among]


def _top(values: Array, count: int) -> tuple[Array, Array]:
    """The `count` highest values of each row, highest first (ties: lower index first), and their indices."""
    count = min(count, values.shape[1])
    part = np.argpartition(-values, count - 1, axis=1)[:, :count]
    part.sort(axis=1)
    order = np.argsort(-np.take_along_axis(values, part, 1), axis=1, kind="stable")
    indices = np.take_along_axis(part, order, 1)
    return np.take_along_axis(values, indices, 1), indices


def _allowed(log_probs: Array, words: Array, ids: SearchTokens, options: DecodeOptions) -> Array:
    """A copy with minus infinity for tokens that are never emitted, and for those that would repeat an n-gram or a word.

    Tokens are padded to a multiple of `_BLOCK`, with minus infinity.
    """
    *shape, vocabulary = log_probs.shape
    allowed = np.full((*shape, -(-vocabulary // _BLOCK) * _BLOCK), -np.inf, np.float32)
    allowed[..., :vocabulary] = log_probs
    allowed[..., list(ids.never)] = -np.inf
    size = options.no_repeat_ngram
    if size and words.shape[-1] >= size:
        ngrams = np.lib.stride_tricks.sliding_window_view(words, size, axis=-1)  # (B, K, words - size + 1, size)
        context = words[..., None, words.shape[-1] - size + 1 :]
        row, k, place = np.nonzero((ngrams[..., :-1] == context).all(-1))
        allowed[row, k, ngrams[row, k, place, -1]] = -np.inf
    if options.no_repeat_words and words.shape[-1]:
        said = np.where(np.isin(words, ids.may_repeat), ids.never[0], words)
        said[..., -1] = words[..., -1]  # no word at all comes twice in a row, or on both sides of the conjunction
        said[..., -2:-1] = np.where(words[..., -1:] == ids.conjunction, words[..., -2:-1], said[..., -2:-1])
        np.put_along_axis(allowed, said, -np.inf, axis=-1)
    return allowed
