"""Evaluates one set of candidates, with confidence intervals, and compares two sets."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from showtell.errors import DataError
from showtell.evaluation.captions import join, read_candidates, read_references
from showtell.evaluation.significance import SAMPLES, Difference, Interval, differences, intervals
from showtell.metrics import DEFAULT_METRICS, Scores, cider_caveat, score


@dataclass(frozen=True)
class Evaluation:
    """The scores of one set of candidates. `name` names the set; `without_*` count images that were left out.

    `notes` warn about scores that must not be read as usual.
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
        return {
            "name": self.name,
            **self.scores.to_json(),
            "intervals": {name: [interval.low, interval.high] for name, interval in self.intervals.items()},
            "left_out": {"without_candidate": self.without_candidate, "without_reference": self.without_reference},
            "notes": list(self.notes),
            "captions": dict(self.candidates),
        }


@dataclass(frozen=True)
class Comparison:
    """The scores of two sets of candidates against the same references, and their differences."""

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
    training_captions: Iterable[str] | None = None,
    tokenizer: str = "ptb",
    samples: int = SAMPLES,
) -> Evaluation:
    """Scores captions by image, with 95% intervals of `samples` bootstrap samples. Raises what `metrics.score` raises."""
    scores = score(candidates, references, metrics, training_captions=training_captions, tokenizer=tokenizer)
    note = cider_caveat(references.values()) if "cider" in metrics else None
    notes = [note] if note else []
    return Evaluation(name, candidates, references, scores, intervals(scores.results, samples=samples), notes=notes)


def evaluate_files(
    candidates: Path,
    references: Path,
    metrics: Sequence[str] = DEFAULT_METRICS,
    *,
    partial: bool = False,
    split: str | None = None,
    tokenizer: str = "ptb",
) -> Evaluation:
    """Evaluates a candidate file against a reference file. Raises DataError where a file is broken or images do not match."""
    pairs = join(read_candidates(candidates), read_references(references, split), partial=partial)
    evaluation = evaluate(pairs.candidates, pairs.references, metrics, name=candidates.name, tokenizer=tokenizer)
    return replace(evaluation, without_candidate=pairs.without_candidate, without_reference=pairs.without_reference)


def compare(first: Evaluation, second: Evaluation, *, samples: int = SAMPLES) -> Comparison:
    """Tests whether the second set of candidates is better than the first.

    Raises DataError unless both have captions of the same images, scored against the same references.
    """
    if list(first.candidates) != list(second.candidates):
        only = sorted(first.candidates.keys() ^ second.candidates.keys())
        which = f"{len(only)} images are in one only, {', '.join(only[:3])} among them" if only else "their order differs"
        raise DataError(
            f"{first.name} and {second.name} do not caption the same images: {which}; a paired test needs both captions"
        )
    for image, captions in first.references.items():
        if list(captions) != list(second.references[image]):
            raise DataError(f"{first.name} and {second.name} were scored against different references, of {image} for one")
    return Comparison(first, second, differences(first.scores.results, second.scores.results, samples=samples))


def compare_files(
    first: Path,
    second: Path,
    references: Path,
    metrics: Sequence[str] = DEFAULT_METRICS,
    *,
    partial: bool = False,
    split: str | None = None,
    tokenizer: str = "ptb",
) -> Comparison:
    """Compares two candidate files; with `partial`, on the images that both have."""
    known = read_references(references, split)
    pairs = [join(read_candidates(path), known, partial=partial) for path in (first, second)]
    shared = [name for name in pairs[0].candidates if name in pairs[1].candidates] if partial else list(pairs[0].candidates)
    if not shared:
        raise DataError(f"{first} and {second} have no image in common; a paired test needs captions of the same images")
    texts = {image: known.captions[image] for image in shared}
    one, two = (
        evaluate({image: pair.candidates[image] for image in shared}, texts, metrics, name=path.name, tokenizer=tokenizer)
        for path, pair in zip((first, second), pairs, strict=True)
    )
    return compare(one, two)
