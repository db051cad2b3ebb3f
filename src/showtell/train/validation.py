"""Measuring a model while it is trained: dev photos captioned by the same search as the product's."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from showtell import metrics
from showtell.decoding import Array, search
from showtell.nn.captioner import CaptionModel, TorchStepModel
from showtell.nn.resnet import ResNet
from showtell.text import RULES, detokenize
from showtell.train.batches import Written
from showtell.train.display import Reporter
from showtell.train.distributed import Processes
from showtell.train.inputs import Inputs
from showtell.train.recipe import Recipe
from showtell.types import DecodeOptions, Sample


@dataclass(frozen=True)
class Validation:
    """How a model does on photos that it does not learn from."""

    scores: Mapping[str, float]  # x100
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
    tokenize = RULES[recipe.vocabulary.text].tokenize
    written = Written([[tokenize(text) for text in sample.captions] for sample in own], model.vocabulary, recipe)
    captions: dict[str, str] = {}
    total, words = 0.0, 0
    model.decoder.eval()
    for start in range(0, len(own), batch_size):
        with torch.inference_mode():
            names = [sample.image for sample in own[start : start + batch_size]]
            read = inputs.read(names)
            features = grid_features(model.encoder, read)
            batch = written.batch(np.arange(start, start + len(names)), names, read).to(features.device)
            if len(batch.targets):  # a word that the model knows, at least
                scores = model.decoder(features, batch.inputs, batch.lengths)
                total += F.cross_entropy(scores, batch.targets, reduction="sum").item()
                words += len(batch.targets)
        found = search(steps, features.cpu().numpy(), model.vocabulary.search_tokens(), options)
        for sample, hypotheses in zip(own[start : start + batch_size], found, strict=True):
            captions[sample.image] = detokenize(model.vocabulary.decode(hypotheses[0].tokens))
        report.progress("dev", len(captions), len(own))
    candidates = {image: caption for part in processes.gather(captions) for image, caption in part.items()}
    references = {sample.image: sample.captions for sample in samples}
    totals, counts = zip(*processes.gather((total, words)), strict=True)
    return Validation(
        scores={name: round(value, 3) for name, value in metrics.score(candidates, references).corpus.items()},
        loss=round(sum(totals) / max(1, sum(counts)), 4),
        examples={sample.image: candidates[sample.image] for sample in samples[:3]},
    )


def grid_features(encoder: ResNet, read: Array, dtype: torch.dtype = torch.float32) -> Tensor:
    """Grid features (B, 49, 2048), or their mean (B, 1, 2048), of what Inputs.read gave.

    Those that come from a cache as they are are in `dtype`; of a stage's outputs and of pixels, the rest of the encoder is
    computed. On the encoder's device.
    """
    x = torch.from_numpy(read).to(next(encoder.parameters()).device)
    if x.ndim == 3:
        return x.to(dtype)
    channels, config = x.shape[-1], encoder.config
    x = x.float().permute(0, 3, 1, 2)  # the shape that torch wants; in memory channels stay last, as convolutions like them
    if channels == 3:
        return encoder(x)  # type: ignore[no-any-return]
    [stage] = [stage for stage in range(1, len(config.blocks)) if config.stage_channels(stage) == channels]
    return encoder.last_stages(x, stage + 1)
