"""What a person should know of a run's data before it begins: what cannot be measured, what is cut, which words are new."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from showtell.data import Dataset
from showtell.data.dataset import some
from showtell.errors import DataError
from showtell.metrics import cider_caveat
from showtell.train.inputs.batches import Written
from showtell.train.recipe import Recipe
from showtell.train.run import checkpoint
from showtell.types import Sample, Split
from showtell.vocabulary import END, Vocabulary


def check_splits(dataset: Dataset) -> None:
    """Raises DataError where there is nothing to train on, or nothing to measure on."""
    needed: tuple[tuple[Split, str], ...] = (("train", "to learn from"), ("dev", "to choose the best epoch by"))
    for split, purpose in needed:
        if not any(sample.split == split for sample in dataset.samples):
            have = ", ".join(sorted({sample.split for sample in dataset.samples if sample.split})) or "none"
            raise DataError(
                f"{dataset.name}: training needs photos of the split {split!r} {purpose}, and there are some of {have}. "
                "Mark some as such, in the column or the file of splits or by the folder's name (docs/data.md); where no photo "
                "has a split, all are drawn"
            )


def word_changes(
    recipe: Recipe, vocabulary: Vocabulary, captions: Mapping[str, Sequence[Sequence[str]]]
) -> dict[str, dict[str, int]]:
    """How often the words that a start model did not know occur in the train captions, most frequent first.

    `new` are those that `vocabulary` has and it had not; `unknown` are those that it has not either.
    """
    old = Vocabulary.load(checkpoint.find(Path(recipe.init)).path / "vocab.json")
    counts = Counter(word for many in captions.values() for caption in many for word in caption)
    sayable = [word for word in counts if (word[0].isalnum() or word[0] == "'") and word not in old.ids]
    sayable.sort(key=lambda word: (-counts[word], word))
    new = {word: counts[word] for word in sayable if word in vocabulary.ids}
    return {"new": new, "unknown": {word: counts[word] for word in sayable if word not in new}}


def describe_words(changes: Mapping[str, Mapping[str, int]], recipe: Recipe) -> Iterator[str]:
    """A line on the new words and one on those that stay unknown."""
    rare = f"stay unknown, seen less than {recipe.vocabulary.min_count} times (vocabulary.min_count)"
    unknown = rare if recipe.finetune.new_words else "stay unknown (finetune.new_words=true adds them)"
    for words, what in ((changes["new"], "are new"), (changes["unknown"], unknown)):
        if words:
            shown = [f"{word} ({count})" for word, count in words.items()]
            yield f"{len(words)} words of the train captions {what}: {some(shown, 12)}"


def notes(dev: Sequence[Sample], written: Written, max_words: int) -> Iterator[str]:
    """A line on each; `written` are the train captions."""
    for style in sorted({sample.style for sample in dev}):
        if caveat := cider_caveat([sample.captions for sample in dev if sample.style == style]):
            which = f"dev of {style}" if style else "dev"
            yield f"{which}: {caveat}; among epochs of equal CIDEr the best is that of the lowest dev loss"
    if cut := cut_captions(written, max_words):
        count = int((written.lengths > 0).sum())
        yield f"{cut} of {count} train captions are longer than {max_words} words and cut; training.max_words takes more"


def cut_captions(written: Written, max_words: int) -> int:
    """How many captions went without their end."""
    last = written.targets[..., max_words : max_words + 1]
    return int(((last != END) & (written.lengths[..., None] > max_words)).sum())
