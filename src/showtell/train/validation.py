"""Measuring a model while it is trained: dev photos captioned by the same search as the product's."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from statistics import fmean

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from showtell import metrics
from showtell.decoding import Array, search
from showtell.image import Preprocessing
from showtell.nn.encoder import STAGES
from showtell.nn.model import CaptionModel, TorchStepModel
from showtell.text import RULES, detokenize
from showtell.train.inputs.batches import Written, tokenized
from showtell.train.inputs.inputs import Inputs
from showtell.train.recipe import Recipe
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


def validate(
    model: CaptionModel,
    inputs: Inputs,
    samples: Sequence[Sample],
    recipe: Recipe,
    report: Reporter,
    batch_size: int = 50,
    processes: Processes | None = None,
) -> Validation:
    """Measures the model on `samples`.

    The processes share the work; each gets the same figures. float32 throughout, as in the product.
    """
    processes = processes or Processes(next(model.decoder.parameters()).device)
    options = DecodeOptions(**recipe.validation.model_dump())
    steps = TorchStepModel(model.decoder)
    own = samples[processes.rank :: processes.count]
    rule = RULES[recipe.vocabulary.text]
    own = sorted(own, key=lambda sample: sample.style)  # a batch is searched in one style
    written = Written(list(tokenized(own, recipe.vocabulary.text).values()), model.vocabulary, recipe)
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
            read = inputs.read(names)
            features = grid_features(model, read)
            batch = written.batch(np.array(part), names, read).to(features.device)
            if len(batch.targets):  # a word that the model knows, at least
                scores = model.decoder(features, batch.inputs, batch.lengths)
                total += F.cross_entropy(scores, batch.targets, reduction="sum").item()
                words += len(batch.targets)
        tokens = model.vocabulary.search_tokens(own[part[0]].style)
        found = search(steps, features.cpu().numpy(), tokens, options)
        for name, hypotheses in zip(names, found, strict=True):
            captions[name] = detokenize(model.vocabulary.decode(hypotheses[0].tokens), spaced=rule.spaced)
        report.progress("dev", len(captions), len(own))
    candidates = {image: caption for part in processes.gather(captions) for image, caption in part.items()}
    by_style = {}
    for style in sorted({sample.style for sample in samples}):
        references = {sample.image: sample.captions for sample in samples if sample.style == style}
        chosen = {image: candidates[image] for image in references}
        corpus = metrics.score(chosen, references, tokenizer=rule.scored_by).corpus
        by_style[style] = {name: round(value, 3) for name, value in corpus.items()}
    totals, counts = zip(*processes.gather((total, words)), strict=True)
    return Validation(
        scores={name: round(fmean(each[name] for each in by_style.values()), 3) for name in next(iter(by_style.values()))},
        by_style=by_style,
        loss=round(sum(totals) / max(1, sum(counts)), 4),
        examples={sample.image: candidates[sample.image] for sample in samples[:3]},
    )


def grid_features(model: CaptionModel, read: Array, dtype: torch.dtype = torch.float32) -> Tensor:
    """Grid features (B, 49, 2048), or their mean (B, 1, 2048), of what Inputs.read gave.

    Those that come from a cache as they are are in `dtype`; of a stage's outputs and of pixels, the rest of the encoder is
    computed. On the encoder's device.
    """
    encoder = model.encoder
    x = torch.from_numpy(read).to(next(encoder.parameters()).device)
    if x.ndim == 3:
        return x.to(dtype)
    channels, config = x.shape[-1], encoder.config
    if channels == 3:
        return encoder(_normalized(x, model.preprocessing))  # type: ignore[no-any-return]
    x = x.float().permute(0, 3, 1, 2)  # the shape that torch wants; in memory channels stay last, as convolutions like them
    [stage] = [stage for stage in range(1, STAGES) if config.stage_channels(stage) == channels]
    return encoder.last_stages(x, stage + 1)


def _normalized(pixels: Tensor, preprocessing: Preprocessing) -> Tensor:
    """What Preprocessing.normalize makes of uint8 RGB (B, size, size, 3), on the pixels' device."""
    scale, mean, std = (
        pixels.new_tensor(each, dtype=torch.float32) for each in (preprocessing.scale, preprocessing.mean, preprocessing.std)
    )
    channels = pixels.flip(-1) if preprocessing.channel_order == "bgr" else pixels
    return (channels * (scale / std) - mean / std).permute(0, 3, 1, 2)
