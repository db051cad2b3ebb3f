"""Measuring a model while it is trained: dev photos captioned by the same search as the product's."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from statistics import fmean

import numpy as np
import torch
from torch.nn import functional as F

from showtell import metrics
from showtell.decoding import search
from showtell.nn.model import CaptionModel, TorchStepModel
from showtell.text import RULES, detokenize
from showtell.train.inputs.batches import EncodedCaptions, tokenized
from showtell.train.inputs.inputs import Inputs, grid_features
from showtell.train.run.display import Reporter
from showtell.train.run.processes import Processes
from showtell.types import DecodeOptions, Sample


@dataclass(frozen=True)
class Validation:
    """How a model does on photos that it does not learn from."""

    scores: Mapping[str, float]  # x100; means over the styles where there are several
    by_style: Mapping[str, Mapping[str, float]]
    loss: float  # cross-entropy of the reference captions in nats a word, without label smoothing or weights
    examples: Mapping[str, str]  # captions of the first three photos


@dataclass(frozen=True)
class DevSet:
    """Photos to measure a model on, and how: text rule, search settings, words of a reference at most."""

    samples: Sequence[Sample]
    inputs: Inputs
    rule: str  # of text.RULES
    search: DecodeOptions
    max_words: int


def validate(
    model: CaptionModel,
    dev: DevSet,
    report: Reporter,
    batch_size: int = 50,
    processes: Processes | None = None,
) -> Validation:
    """Measures the model on `dev`.

    The processes share the work; each gets the same figures. float32 throughout, as in the product.
    """
    processes = processes or Processes(next(model.decoder.parameters()).device)
    steps = TorchStepModel(model.decoder)
    samples, rule = dev.samples, RULES[dev.rule]
    own = samples[processes.rank :: processes.count]
    own = sorted(own, key=lambda sample: sample.style)  # a batch is searched in one style
    references = list(tokenized(own, dev.rule).values())
    encoded = EncodedCaptions(references, model.vocabulary, rule=dev.rule, max_words=dev.max_words)
    parts = []
    for _, places in groupby(range(len(own)), key=lambda place: own[place].style):
        group = list(places)
        parts += [group[start : start + batch_size] for start in range(0, len(group), batch_size)]
    captions: dict[str, str] = {}
    total, words = 0.0, 0
    model.decoder.eval()
    for part in parts:
        with torch.inference_mode():
            names = [own[place].image for place in part]
            photos = dev.inputs.read(names)
            features = grid_features(model, photos)
            batch = encoded.batch(np.array(part), names, photos).to(features.device)
            if len(batch.targets):  # a word that the model knows, at least
                scores = model.decoder(features, batch.inputs, batch.lengths)
                total += F.cross_entropy(scores, batch.targets, reduction="sum").item()
                words += len(batch.targets)
        tokens = model.vocabulary.search_tokens(own[part[0]].style)
        searched = search(steps, features.cpu().numpy(), tokens, dev.search)
        for name, hypotheses in zip(names, searched, strict=True):
            captions[name] = detokenize(model.vocabulary.decode(hypotheses[0].tokens), spaced=rule.spaced)
        report.progress("dev", len(captions), len(own))
    candidates = {image: caption for part in processes.gather(captions) for image, caption in part.items()}
    by_style = {}
    for style in sorted({sample.style for sample in samples}):
        written = {sample.image: sample.captions for sample in samples if sample.style == style}
        chosen = {image: candidates[image] for image in written}
        corpus = metrics.score(chosen, written, tokenizer=rule.scored_by).corpus
        by_style[style] = {name: round(value, 3) for name, value in corpus.items()}
    totals, counts = zip(*processes.gather((total, words)), strict=True)
    return Validation(
        scores={name: round(fmean(each[name] for each in by_style.values()), 3) for name in next(iter(by_style.values()))},
        by_style=by_style,
        loss=round(sum(totals) / max(1, sum(counts)), 4),
        examples={sample.image: candidates[sample.image] for sample in samples[:3]},
    )
