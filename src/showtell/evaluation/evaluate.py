"""Scores with intervals for one set of candidates, and the comparison of two."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from showtell.errors import DataError
from showtell.evaluation.captions import join, read_candidates, read_references
from showtell.evaluation.significance import SAMPLES, Difference, Interval, differences, intervals
from showtell.metrics import DEFAULT_METRICS, DocumentFrequencies, Scores, cider_caveat, score


@dataclass(frozen=True)
class Evaluation:
    """One set of candidates, measured. `name` says whose they are; `without_*` count images that were left out.

    `notes` say what keeps a score from meaning what it usually does.
    """

    name: str
    candidates: Mapping[str, str]
    references: Mapping[str, Sequence[str]]
    scores: Scores
    intervals: Mapping[str, Interval]
    without_candidate: int = 0
    without_reference: int = 0
    notes: Sequence[str] = ()

    def to_json(self) -> dict[str, Any]:
        """The object that `showtell evaluate --json` writes."""
        found = {name: [interval.low, interval.high] for name, interval in self.intervals.items()}
        left_out = {"without_candidate": self.without_candidate, "without_reference": self.without_reference}
        captions = {"captions": dict(self.candidates)}
        about = {"intervals": found, "left_out": left_out, "notes": list(self.notes)}
        return {"name": self.name} | self.scores.to_json() | about | captions


@dataclass(frozen=True)
class Comparison:
    """Two sets of candidates for the same images, measured against the same references."""

    first: Evaluation
    second: Evaluation
    differences: Mapping[str, Difference]

    def to_json(self) -> dict[str, Any]:
        """The object that `showtell evaluate --compare A B --json` writes."""
        return {
            "first": self.first.to_json(),
            "second": self.second.to_json(),
            "differences": {name: asdict(difference) for name, difference in self.differences.items()},
        }


def evaluate(
    candidates: Mapping[str, str],
    references: Mapping[str, Sequence[str]],
    metrics: Sequence[str] = DEFAULT_METRICS,
    *,
    name: str = "candidates",
    frequencies: DocumentFrequencies | None = None,
    training_captions: Iterable[str] | None = None,
    tokenizer: str = "ptb",
    samples: int = SAMPLES,
) -> Evaluation:
    """Scores captions by image and finds 95% intervals by `samples` bootstrap samples. Raises as `metrics.score` does."""
    scores = score(
        candidates, references, metrics, frequencies=frequencies, training_captions=training_captions, tokenizer=tokenizer
    )
    note = cider_caveat(references.values()) if frequencies is None and {"cider", "cider-plain"} & set(metrics) else None
    found = intervals(scores.results, samples=samples)
    return Evaluation(name, candidates, references, scores, found, notes=[note] if note else [])


def evaluate_files(
    candidates: Path,
    references: Path,
    metrics: Sequence[str] = DEFAULT_METRICS,
    *,
    partial: bool = False,
    split: str | None = None,
    frequencies: DocumentFrequencies | None = None,
    training_captions: Iterable[str] | None = None,
    tokenizer: str = "ptb",
    samples: int = SAMPLES,
) -> Evaluation:
    """Like `evaluate`, from a candidate and a reference file. Raises DataError for what is wrong in them, or between them."""
    pairs = join(read_candidates(candidates), read_references(references, split), partial=partial)
    evaluation = evaluate(
        pairs.candidates,
        pairs.references,
        metrics,
        name=candidates.name,
        frequencies=frequencies,
        training_captions=training_captions,
        tokenizer=tokenizer,
        samples=samples,
    )
    return replace(evaluation, without_candidate=pairs.without_candidate, without_reference=pairs.without_reference)


def compare(first: Evaluation, second: Evaluation, *, samples: int = SAMPLES) -> Comparison:
    """Tests whether the second set of candidates is better than the first.

    Raises DataError unless both caption the same images and were measured against the same references.
    """
    if list(first.candidates) != list(second.candidates):
        odd = sorted(first.candidates.keys() ^ second.candidates.keys())
        which = f"{len(odd)} images are in one only, {', '.join(odd[:3])} among them" if odd else "their order differs"
        raise DataError(
            f"{first.name} and {second.name} do not caption the same images: {which}; a paired test needs both captions"
        )
    for image, captions in first.references.items():
        if list(captions) != list(second.references[image]):
            raise DataError(f"{first.name} and {second.name} were measured against different references, {image}'s for one")
    return Comparison(first, second, differences(first.scores.results, second.scores.results, samples=samples))


def compare_files(
    first: Path,
    second: Path,
    references: Path,
    metrics: Sequence[str] = DEFAULT_METRICS,
    *,
    partial: bool = False,
    split: str | None = None,
    frequencies: DocumentFrequencies | None = None,
    tokenizer: str = "ptb",
    samples: int = SAMPLES,
) -> Comparison:
    """`compare` on two candidate files; with `partial` on the images that both have."""
    known = read_references(references, split)
    pairs = [join(read_candidates(path), known, partial=partial) for path in (first, second)]
    shared = [name for name in pairs[0].candidates if name in pairs[1].candidates] if partial else list(pairs[0].candidates)
    if not shared:
        raise DataError(f"{first} and {second} have no image in common; a paired test needs captions of the same images")
    texts = {image: known.captions[image] for image in shared}
    evaluations = []
    for path, pair in zip((first, second), pairs, strict=True):
        captions = {image: pair.candidates[image] for image in shared}
        evaluations.append(
            evaluate(captions, texts, metrics, name=path.name, frequencies=frequencies, tokenizer=tokenizer, samples=samples)
        )
    return compare(*evaluations, samples=samples)
