"""Fine-tuning: a trained captioner learns other photos and their words, and is measured on its old photos too.

New words are appended to the vocabulary; the ids of the old ones stay. Rehearsal mixes in photos of the old data, against
forgetting (Robins 1995, "Catastrophic forgetting, rehearsal and pseudorehearsal"). Forgetting is measured: the dev photos of
the old data are captioned before and after.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from showtell.data import Dataset, joined
from showtell.files import write_json
from showtell.nn import decoders
from showtell.nn.decoders import Decoder
from showtell.nn.model import CaptionModel
from showtell.train.inputs.batches import Captions
from showtell.train.run.checkpoint import Checkpoint
from showtell.train.run.display import Reporter
from showtell.train.run.log import read as read_log
from showtell.train.run.processes import Processes
from showtell.train.validation import DevSet, validate
from showtell.vocabulary import SPECIAL, Vocabulary, style_token

Scores = Mapping[str, float]  # x100


def grown(decoder: Decoder, vocabulary: int) -> Decoder:
    """The decoder with a vocabulary of `vocabulary` words; the weights of the old words are unchanged.

    A new word's embedding is drawn from the normal distribution of the old embeddings, dimension by dimension. Its bias is the
    lowest of all old words, so that it is rarely used before it is learnt.
    """
    old = decoder.config.vocabulary
    if vocabulary == old:
        return decoder
    bigger = decoders.build(replace(decoder.config, vocabulary=vocabulary))
    state = decoder.state_dict()
    for name, shape in ((name, value.shape) for name, value in bigger.state_dict().items()):
        if state[name].shape == shape:
            continue
        words = state[name][len(SPECIAL) :]
        if words.ndim == 1:
            new = words.min().expand(vocabulary - old)
        else:
            new = words.mean(0) + words.std(0) * torch.randn(vocabulary - old, words.shape[1])
        state[name] = torch.cat([state[name], new])
    bigger.load_state_dict(state)
    return bigger


def with_new_words(model: CaptionModel, captions: Captions, min_count: int, styles: Sequence[str] = ()) -> CaptionModel:
    """The model with the words that occur `min_count` times in the captions, and the styles, added to its vocabulary."""
    vocabulary: Vocabulary = model.vocabulary.extended((c for many in captions.values() for c in many), min_count)
    vocabulary = vocabulary.with_styles(styles)
    decoder = grown(model.decoder, len(vocabulary))
    with torch.no_grad():  # a new style begins as captions did before
        before = model.vocabulary.search_tokens().begin
        for style in set(vocabulary.styles) - set(model.vocabulary.styles):
            decoder.embedding.weight[vocabulary.ids[style_token(style)]] = decoder.embedding.weight[before]
    return replace(model, vocabulary=vocabulary, decoder=decoder)


def in_own_style(dataset: Dataset, vocabulary: Vocabulary) -> Dataset:
    """The data set with the style of its name, if the model has such a style; otherwise unchanged, for the default style."""
    if dataset.name not in vocabulary.styles:
        return dataset
    return replace(dataset, samples=tuple(replace(s, style=s.style or dataset.name) for s in dataset.samples))


def with_replay(new: Dataset, old: Dataset, share: float, seed: int) -> Dataset:
    """The new data set with train photos of the old one mixed in: `share` for each new photo, drawn by `seed`.

    Raises DataError where both have a photo of the same path.
    """
    train = old.split("train")
    count = min(len(train), round(share * len(new.split("train"))))
    drawn = np.sort(np.random.default_rng(seed).permutation(len(train))[:count])
    replayed = replace(old, samples=tuple(train[int(place)] for place in drawn), missing=(), left_out={})
    return replace(joined([new, replayed]), name=new.name)


@dataclass
class BeforeAndAfter:
    """Dev scores before and after fine-tuning, of the new photos and of the old ones, in the run's finetune.json.

    `old_dev` gives the old dev photos as the model at hand reads them; it is None where there are none.
    """

    file: Path
    init: str
    old_dev: Callable[[CaptionModel], DevSet] | None
    processes: Processes
    report: Reporter

    def before(self, model: CaptionModel) -> None:
        """Measures the start model on the old photos, unless the file has its scores."""
        if self.processes.from_first(self.file.exists()):
            return
        scores = self._old(model)
        if self.processes.first:
            write_json(self.file, {"init": self.init, "words": len(model.vocabulary), "before": scores})

    def after(self, best: Checkpoint) -> None:
        """Measures the best model and reports both."""
        model = best.load_model()
        model.networks().to(self.processes.device)
        scores = {"new": best.scores, **self._old(model)}
        if not self.processes.first:
            return
        content: dict[str, Any] = json.loads(self.file.read_text(encoding="utf-8"))
        start = next((line for line in read_log(self.file.with_name("metrics.jsonl")) if line["epoch"] == 0), None)
        before = {**({"new": start["scores"]} if start else {}), **content["before"]}
        write_json(self.file, {**content, "before": before, "epoch": best.epoch, "after": scores})
        for kind, after in scores.items():
            changes = "  ".join(
                f"{name} {before[kind][name]:.1f} -> {after[name]:.1f}" for name in ("BLEU-4", "ROUGE-L", "CIDEr")
            )
            self.report.message(f"{kind} dev photos, before -> after: {changes}")

    def _old(self, model: CaptionModel) -> dict[str, Scores]:
        """Scores of the old dev photos, where there are any."""
        if self.old_dev is None:
            return {}
        return {"old": validate(model, self.old_dev(model), self.report, processes=self.processes).scores}
