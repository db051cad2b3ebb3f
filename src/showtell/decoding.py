"""Greedy, sampled and beam search for captions, in numpy, over any model that predicts one token at a time.

A model offers three operations (`StepModel`); torch and onnxruntime models both implement them, so validation
measures the search of the product. Arrays are shaped (photos B, hypotheses K, ...). A photo leaves the batch when its
search has ended.

`Constraints` say which words a photo's captions must have and must not have. Words that must be there are found by constrained
beam search (Anderson et al. 2017, "Guided Open Vocabulary Image Captioning with Constrained Beam Search").
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

from showtell.arrays import Array
from showtell.errors import OptionError
from showtell.types import MOST_INCLUDED, DecodeOptions

_BLOCK = 32  # tokens; about the square root of a vocabulary, so that there are as many blocks as tokens in one


class Step(NamedTuple):
    """A model's prediction after it has read one token for each hypothesis."""

    log_probs: Array  # (B, K, vocabulary) float32, natural logarithm
    state: Any
    attention: Array | None  # (B, K, cells) float32, each row sums to 1; None without attention


class StepModel(Protocol):
    """One token at a time. A state belongs to B photos with K hypotheses each; only the model looks inside it."""

    def start(self, features: Array) -> Any:
        """State of B photos with one empty hypothesis each, from grid features (B, cells, channels)."""
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
    """Ids with a meaning to the search; ids in `never` are not emitted. Every caption starts with the words `start`.

    Where words are not to be repeated, those in `may_repeat` still may, and `conjunction` is "and", or -1 where there is none.
    """

    begin: int
    end: int
    never: tuple[int, ...]
    may_repeat: tuple[int, ...] = ()
    conjunction: int = -1
    start: tuple[int, ...] = ()


Phrase = tuple[int, ...]  # one or more token ids in a row


@dataclass(frozen=True, slots=True)
class Constraints:
    """Words that the captions of one photo must have, and words that they must not have.

    A caption contains at least one phrase of each set in `include`, and no phrase of `avoid`. Raises OptionError where
    `include` asks for more than MOST_INCLUDED words, and where every phrase of a set contains one to avoid.
    """

    include: tuple[tuple[Phrase, ...], ...] = ()
    avoid: tuple[Phrase, ...] = ()

    def __post_init__(self) -> None:
        # Each word multiplies the hypotheses: n words need 2 ** n beams.
        if (words := sum(min(map(len, phrases)) for phrases in self.include)) > MOST_INCLUDED:
            raise OptionError(f"include has {words} words; a search can ask for {MOST_INCLUDED} at most")
        for phrases in self.include:
            if all(any(contains(phrase, barred) for barred in self.avoid) for phrase in phrases):
                raise OptionError(f"the tokens {phrases} are to be both included and avoided")

    def __add__(self, other: "Constraints") -> "Constraints":
        """Both together."""
        return Constraints(self.include + other.include, self.avoid + other.avoid)


def contains(tokens: Sequence[int], phrase: Phrase) -> bool:
    """Whether the tokens of `phrase` stand in a row in `tokens`."""
    return any(tuple(tokens[at : at + len(phrase)]) == phrase for at in range(len(tokens) - len(phrase) + 1))


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """A caption as token ids, begin and end left out. `log_prob` is the sum over its tokens, the end's included.

    The first `given` tokens were not searched for, and are not in the sum.
    """

    tokens: tuple[int, ...]
    log_prob: float
    finished: bool
    given: int = 0

    @property
    def length(self) -> int:
        """Number of log-probabilities in the sum."""
        return max(1, len(self.tokens) - self.given + self.finished)  # a sum of none is 0

    @property
    def score(self) -> float:
        """Mean log-probability per token."""
        return self.log_prob / self.length

    def rank(self, length_penalty: float) -> float:
        """What hypotheses are compared by; higher is better."""
        return float(self.log_prob / self.length**length_penalty)


def search(
    model: StepModel,
    features: Array,
    tokens: SearchTokens,
    options: DecodeOptions,
    constraints: Sequence[Constraints] = (),
) -> list[list[Hypothesis]]:
    """The `options.num_captions` best hypotheses of each photo, best first, from grid features (B, cells, channels).

    `constraints` has those of each photo, or is empty where there are none. To include words, greedy search follows one
    hypothesis for each set of them that was said. Raises OptionError where samples are asked to include words.

    Finished hypotheses come before those that reached `max_length` without an end, which only stand in where too few ended.
    A list is shorter than asked only where the vocabulary and the constraints allow fewer captions.
    """
    if len(features) == 0:
        return []
    each = list(constraints) or [Constraints()] * len(features)
    including = np.array([bool(one.include) for one in each])
    if options.sample and including.any():
        raise OptionError("samples cannot be made to include words; leave sample=True out")
    found: list[list[Hypothesis]] = [[] for _ in each]
    for part in (np.flatnonzero(including), np.flatnonzero(~including)):
        if len(part):
            rolls = options.sample or (options.beam_size == 1 and not including[part[0]])
            grids = features if len(part) == len(features) else features[part]
            hypotheses = (_greedy_or_sample if rolls else _beam)(model, grids, tokens, options, [each[row] for row in part])
            for row, one in zip(part, hypotheses, strict=True):
                found[row] = one

    def order(hypothesis: Hypothesis) -> tuple[bool, float]:
        return hypothesis.finished, hypothesis.rank(options.length_penalty)

    return [sorted(hypotheses, key=order, reverse=True)[: options.num_captions] for hypotheses in found]


def _begin(model: StepModel, features: Array, ids: SearchTokens, count: int) -> tuple[Any, Array, Array]:
    """The state of `count` equal hypotheses a photo that have read all but the last of begin and `ids.start`.

    Also that last token, (B, count), and the words so far, (B, count, words).
    """
    photos = len(features)
    state, read = model.start(features), (ids.begin, *ids.start)
    for token in read[:-1]:
        state = model.step(np.full((photos, 1), token), state).state
    if count > 1:
        state = model.reorder(state, np.arange(photos), np.zeros((photos, count), np.int64))
    words = np.tile(np.array(ids.start, np.int64), (photos, count, 1))
    return state, np.full((photos, count), read[-1]), words


def _greedy_or_sample(
    model: StepModel, features: Array, ids: SearchTokens, options: DecodeOptions, constraints: list[Constraints]
) -> list[list[Hypothesis]]:
    """Greedy search, or `num_captions` samples a photo: each hypothesis goes its own way to its end."""
    photos, count = len(features), options.num_captions
    # Each photo draws for itself, so that its captions do not depend on those beside it.
    rngs = [np.random.default_rng(options.seed) for _ in range(photos)]
    state, last, words = _begin(model, features, ids, count)
    sums = np.zeros((photos, count))
    ended = np.zeros((photos, count), bool)
    found: list[list[Hypothesis]] = [[] for _ in range(photos)]
    where = np.arange(photos)  # which photo each row of the batch is
    for length in range(len(ids.start), options.max_length + 1):
        step = model.step(last, state)
        barred = [constraints[photo].avoid for photo in where]
        log_probs = _allowed(step.log_probs, words, ids, options, barred)[..., : step.log_probs.shape[-1]]
        last = _sample_token(log_probs, options, [rngs[photo] for photo in where]) if options.sample else log_probs.argmax(-1)
        gained = np.take_along_axis(log_probs, last[..., None], -1)[..., 0].astype(np.float64)
        possible = np.isfinite(gained)  # not so where every word is forbidden
        ending = possible & (last == ids.end)
        # A hypothesis without possible words, or of the largest length, stays unfinished.
        stopping = ~ended & (ending | ~possible | (length == options.max_length))
        for row, k in np.argwhere(stopping):
            finished = bool(ending[row, k])
            log_prob = float(sums[row, k] + (gained[row, k] if finished else 0))
            found[where[row]].append(Hypothesis(tuple(words[row, k].tolist()), log_prob, finished, len(ids.start)))
        ended = ended | stopping
        live = _live_rows(np.flatnonzero(~ended.all(1)))
        if len(live) == 0:
            break
        words = np.concatenate([words, last[..., None]], -1)[live]
        sums = np.where(ended, sums, sums + gained)[live]
        last, ended, where = last[live], ended[live], where[live]
        state = model.reorder(step.state, live, np.tile(np.arange(count), (len(live), 1)))
    return found


def _sample_token(log_probs: Array, options: DecodeOptions, rngs: Sequence[np.random.Generator]) -> Array:
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


def _beam(
    model: StepModel, features: Array, ids: SearchTokens, options: DecodeOptions, constraints: list[Constraints]
) -> list[list[Hypothesis]]:
    """Beam search: of all one-token extensions of a photo's hypotheses the best `beam_size` go on.

    An end among the best `beam_size` extensions finishes a hypothesis. A photo is done when it has `beam_size` finished ones
    and the best of those going on ranks below them all. Where words must be included, there is a beam of that size for each
    state of `_Inclusion`, and hypotheses end in state 0 alone.
    """
    photos, beam = len(features), options.beam_size
    state, last, words = _begin(model, features, ids, 1)
    inclusion = _Inclusion.of(constraints, ids)
    sums = np.zeros((photos, 1))
    found: list[list[Hypothesis]] = [[] for _ in range(photos)]
    where = np.arange(photos)
    met = inclusion.first[:, None] if inclusion else np.zeros((photos, 1), np.int64)  # (B, K), states
    for length in range(len(ids.start) + 1, options.max_length + 2):
        step = model.step(last, state)
        barred = [constraints[photo].avoid for photo in where]
        # Twice the beam: even if half of them end, enough are left to go on. (B, states, 2 * beam)
        if inclusion:
            wanted = inclusion.wanted(where, met, ids)
            log_probs = _allowed(step.log_probs, words, ids, options, barred, wanted)
            log_probs[met != 0, ids.end] = -np.inf
            flat, parents, tokens = inclusion.best_extensions(where, met, sums, log_probs, 2 * beam)
        else:
            log_probs = _allowed(step.log_probs, words, ids, options, barred)
            flat, parents, tokens = (part[:, None] for part in _best_extensions(sums, log_probs, 2 * beam))
        ending = tokens == ids.end
        for row, place in np.argwhere(ending[:, 0, :beam] & np.isfinite(flat[:, 0, :beam])):
            caption = tuple(words[row, parents[row, 0, place]].tolist())
            found[where[row]].append(Hypothesis(caption, float(flat[row, 0, place]), True, len(ids.start)))
        if length > options.max_length:
            break
        going = np.argsort(ending, axis=-1, kind="stable")[..., :beam]  # those that do not end, best first
        flat = np.where(np.take_along_axis(ending, going, -1), -np.inf, np.take_along_axis(flat, going, -1))
        met = np.broadcast_to(np.arange(flat.shape[1])[:, None], flat.shape)
        rows, searched = len(where), length - len(ids.start)
        parents, tokens = (np.take_along_axis(part, going, -1).reshape(rows, -1) for part in (parents, tokens))
        flat, met = flat.reshape(rows, -1), met.reshape(rows, -1)
        going_on = [row for row in range(rows) if not _done(found[where[row]], flat[row].max(), searched, options)]
        live = _live_rows(np.array(going_on, int))
        if len(live) == 0:
            return found
        # What stands for no extension, where there are fewer than the beam is wide, reads a word that every model knows.
        tokens = np.where(np.isfinite(flat), tokens, ids.begin)
        parents, last, sums, met, where = parents[live], tokens[live], flat[live], met[live], where[live]
        words = np.concatenate([words[live[:, None], parents], last[..., None]], -1)
        state = model.reorder(step.state, live, parents)
    for row, k in np.argwhere(np.isfinite(sums) & (met == 0)):
        found[where[row]].append(Hypothesis(tuple(words[row, k].tolist()), float(sums[row, k]), False, len(ids.start)))
    return found


@dataclass(frozen=True, slots=True)
class _Inclusion:
    """For each photo the finite automaton that knows which of its `include` a hypothesis has said (Anderson et al. 2017).

    In state 0 it has said all. `words` (B, n) are the token ids of all phrases, padded with one that is never emitted. `after`
    (B, states, 1 + n) is the state after any other token, then that after each of `words`; `first` (B,) the state to begin in.
    """

    words: Array
    after: Array
    first: Array

    @classmethod
    def of(cls, constraints: Sequence[Constraints], ids: SearchTokens) -> "_Inclusion | None":
        """None where no photo has words to include."""
        if not any(each.include for each in constraints):
            return None
        automata = [_automaton(each.include, ids.start) for each in constraints]
        states, count = (max(sizes) for sizes in zip(*(after.shape for _, after, _ in automata), strict=True))
        words = np.full((len(automata), count - 1), ids.never[0])
        table = np.zeros((len(automata), states, count), np.int64)
        for row, (known, after, _) in enumerate(automata):
            words[row, : len(known)] = known
            table[row, : after.shape[0], : after.shape[1]] = after
        return cls(words, table, np.array([first for _, _, first in automata]))

    def wanted(self, where: Array, met: Array, ids: SearchTokens) -> Array:
        """The words that bring hypotheses in the states `met` (B, K) of the photos `where` (B,) further: (B, K, n)."""
        after = self.after[where[:, None], met]
        return np.where(after[..., 1:] != after[..., :1], self.words[where, None], ids.never[0])

    def best_extensions(
        self, where: Array, met: Array, sums: Array, log_probs: Array, count: int
    ) -> tuple[Array, Array, Array]:
        """The `count` best one-token extensions into each state, as `_best_extensions`: (B, states, count) each.

        `met` (B, K) are the states of the hypotheses of the photos `where` (B,). `log_probs` is overwritten.
        """
        photos, hypotheses, vocabulary = log_probs.shape
        words = np.repeat(self.words[where, None], hypotheses, axis=1)  # (B, K, n)
        special = np.take_along_axis(log_probs, words, -1)
        np.put_along_axis(log_probs, words, -np.inf, -1)
        # No state takes more than `count` other tokens from one hypothesis.
        each = (log_probs.reshape(-1, 1, vocabulary), np.zeros((photos * hypotheses, 1)))
        other, _, tokens = (part.reshape(photos, hypotheses, -1) for part in _best_extensions(each[1], each[0], count))
        after = self.after[where[:, None], met]  # (B, K, 1 + n)
        after = np.concatenate([np.repeat(after[..., :1], other.shape[-1], -1), after[..., 1:]], -1).reshape(photos, 1, -1)
        values = (sums[..., None] + np.concatenate([other, special], -1)).reshape(photos, 1, -1)
        into = np.where(after == np.arange(self.after.shape[1])[:, None], values, -np.inf)  # (B, states, K * candidates)
        best, places = _top_k(into.reshape(-1, into.shape[-1]), count)
        best, places = (part.reshape(photos, into.shape[1], -1) for part in (best, places))
        tokens = np.concatenate([tokens, words], -1)
        rows = np.arange(photos)[:, None, None]
        return best, places // tokens.shape[-1], tokens.reshape(photos, -1)[rows, places]


def _automaton(include: Sequence[tuple[Phrase, ...]], start: Sequence[int]) -> tuple[list[int], Array, int]:
    """The words of `include`, the states after each other token and word, (states, 1 + words), and the state after `start`.

    A state has for each set of phrases what was last said of one of them, or None where one was said whole.
    """
    words = sorted({token for phrases in include for phrase in phrases for token in phrase})
    first: tuple[Phrase | None, ...] = ((),) * len(include)
    for token in start:
        first = _read(first, token, include)
    states: list[tuple[Phrase | None, ...]] = [(None,) * len(include)]
    if first not in states:
        states.append(first)
    table: list[list[int]] = []
    for state in states:  # which grows
        table.append([])
        for token in (-1, *words):
            after = _read(state, token, include)
            if after not in states:
                states.append(after)
            table[-1].append(states.index(after))
    return words, np.array(table), states.index(first)


def _read(state: tuple[Phrase | None, ...], token: int, include: Iterable[tuple[Phrase, ...]]) -> tuple[Phrase | None, ...]:
    """The state after one more token."""

    def after(said: Phrase | None, phrases: tuple[Phrase, ...]) -> Phrase | None:
        if said is None:
            return None
        ends = [(*said, token)[place:] for place in range(len(said) + 2)]  # longest first, the last one empty
        if any(end in phrases for end in ends):
            return None
        return next(end for end in ends if any(phrase[: len(end)] == end for phrase in phrases))

    return tuple(map(after, state, include))


def _live_rows(live: Array) -> Array:
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
    _, chosen = _top_k((sums[..., None] + blocks.max(2)).reshape(photos, -1), count)
    chosen.sort(1)
    parents, block = np.divmod(chosen, blocks.shape[-1])
    rows = np.arange(photos)[:, None]
    values = sums[rows, parents, None] + blocks[rows, parents, :, block]  # (B, blocks chosen, _BLOCK)
    best, places = _top_k(values.reshape(photos, -1), count)
    among, within = np.divmod(places, _BLOCK)
    return best, parents[rows, among], within * blocks.shape[-1] + block[rows, among]


def _top_k(values: Array, count: int) -> tuple[Array, Array]:
    """The `count` highest values of each row, highest first (ties: lower index first), and their indices."""
    count = min(count, values.shape[1])
    part = np.argpartition(-values, count - 1, axis=1)[:, :count]
    part.sort(axis=1)
    order = np.argsort(-np.take_along_axis(values, part, 1), axis=1, kind="stable")
    indices = np.take_along_axis(part, order, 1)
    return np.take_along_axis(values, indices, 1), indices


def _allowed(
    log_probs: Array,
    words: Array,
    ids: SearchTokens,
    options: DecodeOptions,
    barred: Sequence[Sequence[Phrase]],
    wanted: Array | None = None,
) -> Array:
    """A copy with minus infinity for tokens that may not come next.

    Those are tokens that are never emitted, that would repeat an n-gram or a word, that would complete one of the photo's
    `barred` phrases, and the end before `min_length` words. Tokens `wanted` (B, K, n) may repeat.

    Tokens are padded to a multiple of `_BLOCK`, with minus infinity.
    """
    *shape, vocabulary = log_probs.shape
    allowed = np.full((*shape, -(-vocabulary // _BLOCK) * _BLOCK), -np.inf, np.float32)
    allowed[..., :vocabulary] = log_probs
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
    if wanted is not None:
        np.put_along_axis(allowed, wanted, np.take_along_axis(log_probs, wanted, -1), axis=-1)
    allowed[..., list(ids.never)] = -np.inf
    if words.shape[-1] < options.min_length:
        allowed[..., ids.end] = -np.inf
    for photo, phrases in enumerate(barred):
        allowed[photo][:, [phrase[0] for phrase in phrases if len(phrase) == 1]] = -np.inf
        for phrase in phrases:
            if 1 < len(phrase) <= words.shape[-1] + 1:
                begun = (words[photo, :, 1 - len(phrase) :] == phrase[:-1]).all(-1)
                allowed[photo, begun, phrase[-1]] = -np.inf
    return allowed
