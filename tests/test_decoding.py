"""The search over mock models whose captions are worked out by hand, and against exhaustive enumeration."""

import itertools
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from showtell.arrays import Array
from showtell.decoding import Constraints, Hypothesis, SearchTokens, Step, contains, search
from showtell.errors import OptionError
from showtell.types import DecodeOptions

PAD, BEGIN, END, UNKNOWN, A, B, C = range(7)
IDS = SearchTokens(begin=BEGIN, end=END, never=(PAD, BEGIN, UNKNOWN))


class TableModel:
    """Probabilities of the next token by photo and words so far; what a table leaves out is impossible.

    A photo's features are its number.
    """

    def __init__(self, *tables: dict[tuple[int, ...], dict[int, float]]) -> None:
        self.tables = tables

    def start(self, features: Array) -> Any:
        return [[(int(photo), ())] for photo in features[:, 0, 0]]

    def step(self, tokens: Array, state: Any) -> Step:
        log_probs = np.full((*tokens.shape, 7), -np.inf, np.float32)
        after = []
        for row, hypotheses in enumerate(state):
            after.append([])
            for k, (photo, words) in enumerate(hypotheses):
                words = (*words, int(tokens[row, k]))
                for token, probability in self.tables[photo].get(words[1:], {}).items():
                    log_probs[row, k, token] = math.log(probability)
                after[-1].append((photo, words))
        return Step(log_probs, after, None)

    def reorder(self, state: Any, photos: Array, hypotheses: Array) -> Any:
        assert all(photos[place] == place for place in range(len(photos)) if place in photos)  # those that go on stay put
        return [[state[photo][k] for k in row] for photo, row in zip(photos, hypotheses, strict=True)]


# The likeliest first word leads nowhere likely: greedy takes A (0.5), a beam of two finds B end (0.4 * 0.9 = 0.36).
GARDEN_PATH = {
    (): {A: 0.5, B: 0.4, C: 0.1},
    (A,): {A: 0.4, B: 0.3, END: 0.3},
    (A, A): {END: 0.5, A: 0.5},
    (A, B): {END: 1.0},
    (B,): {END: 0.9, C: 0.1},
    (C,): {END: 1.0},
}


def run(*tables: dict[tuple[int, ...], dict[int, float]], **options: Any) -> list[list[Hypothesis]]:
    return search(TableModel(*tables), numbered(len(tables)), IDS, DecodeOptions(**options))


def numbered(photos: int) -> Array:
    """Features (photos, 49, 1) of photos that TableModel tells apart."""
    return np.repeat(np.arange(photos)[:, None, None], 49, axis=1)


def test_greedy_takes_the_likeliest_word_each_time() -> None:
    [[found]] = run(GARDEN_PATH, beam_size=1, max_length=2)
    assert found.tokens == (A, A)
    assert found.finished
    assert found.log_prob == pytest.approx(math.log(0.5 * 0.4 * 0.5))
    assert found.score == pytest.approx(math.log(0.5 * 0.4 * 0.5) / 3)


def test_beam_of_two_worked_out_by_hand() -> None:
    # Words 1: A .5, B .4. Words 2: B-end .36 ends first, A-A .2, A-B .15, A-end .15 (cut: third of two).
    # Words 3: A-B-end .15 ends second, A-A-end .1 and A-A-A .1 are cut. Two have ended, and nothing better can.
    [found] = run(GARDEN_PATH, beam_size=2, num_captions=2, length_penalty=0.0, max_length=5)
    assert [h.tokens for h in found] == [(B,), (A, B)]
    assert [h.log_prob for h in found] == pytest.approx([math.log(0.36), math.log(0.15)])


def test_length_penalty_changes_the_ranking() -> None:
    # By mean log-probability A-B-end (0.15 ** (1/3) = 0.53) loses to B-end (0.36 ** (1/2) = 0.6); squared lengths win it.
    by_mean = run(GARDEN_PATH, beam_size=2, num_captions=2, length_penalty=1.0)[0]
    by_square = run(GARDEN_PATH, beam_size=2, num_captions=2, length_penalty=2.0)[0]
    assert by_mean[0].tokens == (B,)
    assert by_square[0].tokens == (A, B)


def test_unfinished_beams_stand_in_only_where_too_few_ended() -> None:
    endless = {words: {A: 0.6, B: 0.4} for n in range(4) for words in itertools.product((A, B), repeat=n)}
    [found] = run(endless, beam_size=2, num_captions=2, max_length=3)
    assert [h.tokens for h in found] == [(A, A, A), (A, A, B)]
    assert not any(h.finished for h in found)
    assert found[0].score == pytest.approx(math.log(0.6))
    [[greedy]] = run(endless, beam_size=1, max_length=3)
    assert greedy.tokens == (A, A, A)
    one_ends = {**endless, (B,): {END: 0.7, A: 0.3}}
    [found] = run(one_ends, beam_size=3, num_captions=3, max_length=1)
    assert [(h.tokens, h.finished) for h in found][:2] == [((B,), True), ((A,), False)]


def test_end_right_after_the_last_allowed_word_counts() -> None:
    table = {(): {A: 1.0}, (A,): {B: 1.0}, (A, B): {END: 0.9, C: 0.1}}
    for beam_size in (1, 2):
        [[found]] = run(table, beam_size=beam_size, max_length=2)
        assert found.tokens == (A, B)
        assert found.finished


@pytest.mark.parametrize("options", [{"beam_size": 1}, {"beam_size": 3}, {"sample": True, "seed": 1}])
def test_special_tokens_are_never_emitted(options: dict[str, Any]) -> None:
    table = {(): {UNKNOWN: 0.9, A: 0.1}, (A,): {PAD: 0.5, BEGIN: 0.3, END: 0.2}}
    [[found]] = run(table, **options)
    assert found.tokens == (A,)
    assert found.finished


def test_dead_end_is_kept_as_unfinished() -> None:
    table = {(): {A: 1.0}, (A,): {UNKNOWN: 1.0}}
    [[greedy]] = run(table, beam_size=1)
    assert (greedy.tokens, greedy.finished) == ((A,), False)


def test_photos_of_a_batch_do_not_disturb_each_other() -> None:
    other = {(): {C: 0.9, A: 0.1}, (C,): {C: 0.7, END: 0.3}, (C, C): {C: 0.6, END: 0.4}, (C, C, C): {END: 1.0}}
    for options in ({"beam_size": 2, "num_captions": 2}, {"beam_size": 1}, {"beam_size": 3, "length_penalty": 0.0}):
        for tables in itertools.product((GARDEN_PATH, other), repeat=3):
            assert run(*tables, **options) == [run(table, **options)[0] for table in tables]


def test_no_repeat_ngram() -> None:
    loop = {words: {A: 0.8, B: 0.15, END: 0.05} for n in range(8) for words in itertools.product((A, B), repeat=n)}
    [[free]] = run(loop, beam_size=1, max_length=6)
    [[unigrams]] = run(loop, beam_size=1, max_length=6, no_repeat_ngram=1)
    [[bigrams]] = run(loop, beam_size=1, max_length=6, no_repeat_ngram=2)
    assert free.tokens == (A,) * 6
    assert unigrams.tokens == (A, B)  # then only the end is left
    assert bigrams.tokens == (A, A, B, A)  # A-A, A-B and B-A are used up; B-B needs a B
    [[beam]] = run(loop, beam_size=3, max_length=6, no_repeat_ngram=2)
    pairs = list(itertools.pairwise(beam.tokens))
    assert len(set(pairs)) == len(pairs)


@pytest.mark.parametrize(
    ("may_repeat", "conjunction", "expected"),
    [
        ((), -1, (A, B, C)),  # each once, and then only the end is left
        ((A,), -1, (A, B, A, C, A)),  # A again and again, but not twice in a row
        ((A, B), B, (A, B, C, A, B)),  # after B does not come what was before it
        ((A, B, C), -1, (A, B, A, B, A, B)),
    ],
)
def test_no_repeat_words(may_repeat: tuple[int, ...], conjunction: int, expected: tuple[int, ...]) -> None:
    loop = {words: {A: 0.5, B: 0.3, C: 0.15, END: 0.05} for n in range(7) for words in itertools.product((A, B, C), repeat=n)}
    ids = replace(IDS, may_repeat=may_repeat, conjunction=conjunction)
    searches: list[dict[str, Any]] = [{"beam_size": 1}, {"sample": True, "top_p": 0.01}, {"beam_size": 3}, {"beam_size": 40}]
    for one in searches:
        options = DecodeOptions(no_repeat_words=True, max_length=6, **one)
        [[found]] = search(TableModel(loop), np.zeros((1, 49, 1)), ids, options)
        words = found.tokens
        assert words == expected or one["beam_size"] > 1
        assert all(first != second for first, second in itertools.pairwise(words))
        assert all(words[i - 1] != words[i + 1] for i in range(1, len(words) - 1) if words[i] == conjunction)
        assert all(words.count(word) == 1 for word in words if word not in may_repeat)


def test_sampling_follows_the_model() -> None:
    table = {(): {A: 0.7, B: 0.2, C: 0.1}, (A,): {END: 1.0}, (B,): {END: 1.0}, (C,): {END: 1.0}}
    [found] = run(table, sample=True, seed=3, num_captions=4000, top_p=1.0)
    shares = {word: sum(h.tokens == (word,) for h in found) / 4000 for word in (A, B, C)}
    assert shares == pytest.approx({A: 0.7, B: 0.2, C: 0.1}, abs=0.03)
    assert found == run(table, sample=True, seed=3, num_captions=4000, top_p=1.0)[0]
    assert all(h.log_prob == pytest.approx(math.log(table[()][h.tokens[0]])) for h in found)
    [nucleus] = run(table, sample=True, seed=3, num_captions=500, top_p=0.75)
    assert {h.tokens for h in nucleus} == {(A,), (B,)}
    [default] = run(table, sample=True, seed=3, num_captions=500)
    assert {h.tokens for h in default} == {(A,)}  # the likeliest words only, or captions are no sentences
    assert run(GARDEN_PATH, table, sample=True, seed=3, num_captions=4000, top_p=1.0)[1] == found  # whatever photo is beside it
    [cold] = run(table, sample=True, seed=3, num_captions=500, temperature=0.05)
    assert {h.tokens for h in cold} == {(A,)}


def random_table(seed: int, max_length: int) -> dict[tuple[int, ...], dict[int, float]]:
    """A model that may say any of three words, or end, after any words."""
    rng = np.random.default_rng(seed)
    prefixes = (prefix for n in range(max_length + 1) for prefix in itertools.product((A, B, C), repeat=n))
    return {prefix: dict(zip((A, B, C, END), rng.dirichlet(np.ones(4)).tolist(), strict=True)) for prefix in prefixes}


def all_hypotheses(
    table: dict[tuple[int, ...], dict[int, float]], max_length: int, start: tuple[int, ...] = ()
) -> list[Hypothesis]:
    """Every caption that begins with `start` and ends, and those without an end that have `max_length` words."""
    every = []
    for caption in table:
        if caption[: len(start)] == start:
            log_prob = sum(math.log(table[caption[:i]][caption[i]]) for i in range(len(start), len(caption)))
            every.append(Hypothesis(caption, log_prob + math.log(table[caption][END]), True, len(start)))
            if len(caption) == max_length:
                every.append(Hypothesis(caption, log_prob, False, len(start)))
    return every


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), length_penalty=st.sampled_from([0.0, 1.0]), max_length=st.integers(1, 3))
def test_wide_beam_finds_what_enumeration_finds(seed: int, length_penalty: float, max_length: int) -> None:
    table = random_table(seed, max_length)
    every = [hypothesis for hypothesis in all_hypotheses(table, max_length) if hypothesis.finished]
    best = sorted(every, key=lambda h: h.rank(length_penalty), reverse=True)
    wide = 4 ** (max_length + 1)  # more than there are extensions of all hypotheses together
    [found] = run(table, beam_size=wide, num_captions=len(every), length_penalty=length_penalty, max_length=max_length)
    assert [h.tokens for h in found] == [h.tokens for h in best]
    assert [h.log_prob for h in found] == pytest.approx([h.log_prob for h in best], rel=1e-5)


phrases = st.lists(st.sampled_from((A, B, C)), min_size=1, max_size=2).map(tuple)
constraints = st.tuples(
    st.lists(st.lists(phrases, min_size=1, max_size=2).map(tuple), max_size=2).map(tuple),
    st.lists(phrases, max_size=2).map(tuple),
)


def meets(tokens: tuple[int, ...], asked: Constraints) -> bool:
    said = all(any(contains(tokens, phrase) for phrase in phrases) for phrases in asked.include)
    return said and not any(contains(tokens, phrase) for phrase in asked.avoid)


def constrained(
    tables: list[dict[tuple[int, ...], dict[int, float]]], start: tuple[int, ...], asked: list[Constraints], **options: Any
) -> list[list[Hypothesis]]:
    ids = replace(IDS, start=start)
    return search(TableModel(*tables), numbered(len(tables)), ids, DecodeOptions(**options), asked)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    length_penalty=st.sampled_from([0.0, 1.0]),
    start=st.sampled_from([(), (A,), (B, A)]),
    asked=st.lists(constraints, min_size=3, max_size=3),
    min_length=st.integers(0, 3),
    no_repeat_words=st.booleans(),
)
def test_constrained_search_finds_what_enumeration_finds(
    seed: int, length_penalty: float, start: tuple[int, ...], asked: list[Any], min_length: int, no_repeat_words: bool
) -> None:
    tables = [random_table(seed + photo, 3) for photo in range(3)]
    try:
        limits = [Constraints(*each) for each in asked]
    except OptionError:  # the same word is included and avoided
        assume(False)
    # Words of phrases to include are exempt from no_repeat_words, so it is not part of the enumeration with such.
    no_repeat_words = no_repeat_words and not any(limit.include for limit in limits)
    options: dict[str, Any] = {"max_length": 3, "min_length": min_length, "length_penalty": length_penalty}
    options["no_repeat_words"] = no_repeat_words
    found = constrained(tables, start, limits, beam_size=110, num_captions=110, **options)
    for table, limit, hypotheses in zip(tables, limits, found, strict=True):
        every = [
            one
            for one in all_hypotheses(table, 3, start)
            if (len(one.tokens) >= min_length or not one.finished)
            and not any(contains(one.tokens[max(0, len(start) + 1 - len(barred)) :], barred) for barred in limit.avoid)
            and meets(one.tokens, replace(limit, avoid=()))
            and not (no_repeat_words and any(word in one.tokens[:i] for i, word in enumerate(one.tokens) if i >= len(start)))
        ]
        best = sorted(every, key=lambda one: (one.finished, one.rank(length_penalty)), reverse=True)
        assert [(one.tokens, one.finished) for one in hypotheses] == [(one.tokens, one.finished) for one in best]
        assert [one.log_prob for one in hypotheses] == pytest.approx([one.log_prob for one in best], rel=1e-5)


def test_hypotheses_that_may_not_end_yet_keep_their_place_in_the_beam() -> None:
    # A-B must be said. Of one hypothesis for each state, C (then C-C .05) and A compete; both would rather end.
    table = {(): {C: 0.5, A: 0.4, B: 0.1}, (C,): {END: 0.9, C: 0.1}, (C, C): {A: 1.0}, (C, C, A): {B: 1.0}}
    table |= {(A,): {END: 0.9, C: 0.0999, B: 0.0001}, (A, B): {END: 1.0}, (C, C, A, B): {END: 1.0}}
    [[found]] = constrained([table], (), [Constraints((((A, B),),))], beam_size=1, max_length=5)
    assert found.tokens == (C, C, A, B)
    assert found.log_prob == pytest.approx(math.log(0.05))


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    asked=st.lists(constraints, min_size=2, max_size=2),
    beam_size=st.integers(1, 3),
    min_length=st.integers(0, 5),
)
def test_narrow_beams_keep_constraints(seed: int, asked: list[Any], beam_size: int, min_length: int) -> None:
    tables = [random_table(seed + photo, 5) for photo in range(2)]
    try:
        limits = [Constraints(*each) for each in asked]
    except OptionError:
        assume(False)
    found = constrained(tables, (C,), limits, beam_size=beam_size, max_length=5, min_length=min_length, no_repeat_ngram=2)
    for limit, hypotheses in zip(limits, found, strict=True):
        assert hypotheses or limit.avoid
        for hypothesis in hypotheses:
            assert meets(hypothesis.tokens[1:], replace(limit, include=()))
            assert meets(hypothesis.tokens, replace(limit, avoid=()))
            assert hypothesis.tokens[0] == C
            assert len(hypothesis.tokens) >= min_length or not hypothesis.finished
    alone = [
        constrained([table], (C,), [limit], beam_size=beam_size, max_length=5, min_length=min_length, no_repeat_ngram=2)[0]
        for table, limit in zip(tables, limits, strict=True)
    ]
    assert [[one.tokens for one in hypotheses] for hypotheses in found] == [
        [one.tokens for one in hypotheses] for hypotheses in alone
    ]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"beam_size": 0}, "beam_size is 0"),
        ({"beam_size": 2, "num_captions": 3}, "num_captions 3"),
        ({"temperature": 0.5}, "sample"),
        ({"sample": True, "top_p": 0.0}, "top_p is 0"),
        ({"max_length": 0}, "max_length is 0"),
        ({"beam_size": 2600}, "beam_size is 2600; it must be a whole number from 1 to 1,000"),
        ({"beam_size": "3"}, "beam_size is '3'; it must be a whole number"),
        ({"beam_size": 3.0}, "beam_size is 3.0; it must be a whole number"),
        ({"beam_size": True}, "beam_size is True; it must be a whole number"),
        ({"beam_size": None}, "beam_size is None"),
        ({"length_penalty": 1000}, "length_penalty is 1000; it must be a number from 0 to 10"),
        ({"length_penalty": float("nan")}, "length_penalty is nan"),
        ({"length_penalty": "1"}, "length_penalty is '1'"),
        ({"no_repeat_ngram": -1}, "no_repeat_ngram is -1"),
        ({"sample": "yes"}, "sample is 'yes'; it must be True or False"),
        ({"sample": True, "seed": -1}, "seed is -1; it must be a whole number from 0"),
        ({"sample": True, "seed": 0.5}, "seed is 0.5"),
        ({"sample": True, "temperature": float("inf")}, "temperature is inf"),
        ({"sample": True, "temperature": 1e-9}, "temperature is 1e-09"),
        ({"sample": True, "top_p": 1.5}, "top_p is 1.5"),
    ],
)
def test_options_that_contradict_are_refused(options: dict[str, Any], named: str) -> None:
    with pytest.raises(OptionError, match=named):
        DecodeOptions(**options)


def test_numbers_of_numpy_are_numbers() -> None:
    options = DecodeOptions(beam_size=np.int64(2), length_penalty=np.float32(0.5), max_length=np.int32(5))
    [[found]] = run(GARDEN_PATH, beam_size=options.beam_size, max_length=options.max_length)
    assert found.tokens == (B,)


def test_bundles_that_search_do_not_say_how_samples_are_drawn() -> None:
    assert DecodeOptions.from_json({"beam_size": 3, "sample": False, "top_p": 1.0}).updated(sample=True) == DecodeOptions(
        sample=True
    )
    assert DecodeOptions.from_json({"sample": True, "top_p": 1.0}).top_p == 1.0


def test_asking_for_more_captions_widens_the_beam() -> None:
    assert DecodeOptions(beam_size=3).updated(num_captions=5).beam_size == 5
    assert DecodeOptions(beam_size=3).updated(num_captions=2).beam_size == 3
    with pytest.raises(OptionError, match="beam_width"):
        DecodeOptions().updated(beam_width=2)


def test_no_photos_no_captions() -> None:
    assert search(TableModel(), np.zeros((0, 49, 1)), IDS, DecodeOptions()) == []
