"""Measuring a model while it is trained: dev photos captioned by the same search as the product's."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from showtell import metrics
from showtell.decoding import Array, search
from showtell.nn.captioner import CaptionModel, TorchStepModel
from showtell.nn.resnet import ResNet
from showtell.text import detokenize
from showtell.train.display import Reporter
from showtell.train.inputs import Inputs
from showtell.train.recipe import Recipe
from showtell.types import DecodeOptions, Sample
from showtell.vocab import SEARCH_TOKENS


def validate(
    model: CaptionModel,
    inputs: Inputs,
    samples: Sequence[Sample],
    recipe: Recipe,
    report: Reporter,
    batch_size: int = 50,
) -> tuple[dict[str, float], dict[str, str]]:
    """Scores x100 of the model's captions of `samples`, and the captions of the first three."""
    options = DecodeOptions(**recipe.validation.model_dump())
    steps = TorchStepModel(model.decoder)
    candidates: dict[str, str] = {}
    for start in range(0, len(samples), batch_size):
        with torch.inference_mode():
            names = [sample.image for sample in samples[start : start + batch_size]]
            features = grid_features(model.encoder, inputs.read(names))
        found = search(steps, features.numpy(), SEARCH_TOKENS, options)
        for sample, hypotheses in zip(samples[start : start + batch_size], found, strict=True):
            candidates[sample.image] = detokenize(model.vocabulary.decode(hypotheses[0].tokens))
        report.progress("dev", len(candidates), len(samples))
    references = {sample.image: sample.captions for sample in samples}
    scores = {name: round(value, 3) for name, value in metrics.score(candidates, references).corpus.items()}
    return scores, {sample.image: candidates[sample.image] for sample in samples[:3]}


def grid_features(encoder: ResNet, read: Array) -> Tensor:
    """Grid features float32 (B, 49, 2048), or their mean (B, 1, 2048), from what Inputs.read gave: what the rest of the
    encoder makes of a stage's outputs or of pixels, and grid features themselves as they are."""
    x = torch.from_numpy(np.asarray(read, np.float32))
    if x.ndim == 3:
        return x
    channels, config = x.shape[-1], encoder.config
    x = x.permute(0, 3, 1, 2)  # of shape (B, channels, H, W), in memory still channels last
    if channels == 3:
        return encoder(x)  # type: ignore[no-any-return]
    [stage] = [stage for stage in range(1, len(config.blocks)) if config.stage_channels(stage) == channels]
    return encoder.last_stages(x, stage + 1)
