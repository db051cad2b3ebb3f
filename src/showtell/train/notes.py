"""Notes on a run's data before it begins: missing splits, metrics that say little, captions that are cut, new words."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from showtell.data import Dataset
from showtell.data.dataset import some
from showtell.errors import DataError
from showtell.metrics import cider_caveat
from showtell.train.inputs.batches import Captions, EncodedCaptions
from showtell.types import Sample, Split
from showtell.vocabulary import Vocabulary


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


def word_changes(old: Vocabulary, vocabulary: Vocabulary, captions: Captions) -> dict[str, dict[str, int]]:
    """Counts in the train captions of the words that `old` lacks, most frequent first.

    `new` are words of `vocabulary`, `unknown` are not.
    """
    counts = Counter(word for many in captions.values() for caption in many for word in caption)
    sayable = [word for word in counts if (word[0].isalnum() or word[0] == "'") and word not in old.ids]
    sayable.sort(key=lambda word: (-counts[word], word))
    new = {word: counts[word] for word in sayable if word in vocabulary.ids}
    return {"new": new, "unknown": {word: counts[word] for word in sayable if word not in new}}


def describe_words(changes: Mapping[str, Mapping[str, int]], min_count: int, *, added: bool) -> Iterator[str]:
    """A line on the new words and one on those that stay unknown; `added` tells whether new words are added at all."""
    rare = f"stay unknown, seen less than {min_count} times (vocabulary.min_count)"
    unknown = rare if added else "stay unknown (finetune.new_words=true adds them)"
    for words, what in ((changes["new"], "are new"), (changes["unknown"], unknown)):
        if words:
            shown = [f"{word} ({count})" for word, count in words.items()]
            yield f"{len(words)} words of the train captions {what}: {some(shown, 12)}"


def notes(dev: Sequence[Sample], train: EncodedCaptions) -> Iterator[str]:
    """A line on each weakness of the dev photos and of the train captions."""
    for style in sorted({sample.style for sample in dev}):
        if caveat := cider_caveat([sample.captions for sample in dev if sample.style == style]):
            which = f"dev of {style}" if style else "dev"
            yield f"{which}: {caveat}; among epochs of equal CIDEr the best is that of the lowest dev loss"
    if cut := train.cut:
        count, limit = int((train.lengths > 0).sum()), train.max_words
        yield f"{cut} of {count} train captions are longer than {limit} words and cut; training.max_words takes more"
